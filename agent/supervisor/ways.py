"""What of an instance's process reaches us, and a next agent: its folder, its output and its notices.

Rules: made for the first process of an instance, and left to the next one where nobody else can have them any more and
nobody has changed them: so a restart asks neither the disk nor the service manager for anything but a pidfd.
"""

from msgspec import Struct

from agent.linux.executable import Identity
from agent.linux.fdstore import FdStore
from agent.linux.killtree import Tree
from agent.linux.launcher import Forked
from agent.linux.spawn import Launch
from agent.supervisor.folder import Folder, Made
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.notices import Notices
from agent.supervisor.pipes import Pipe
from agent.supervisor.surroundings import Surroundings


class Ways(Struct, kw_only=True):
    """Empty as `of` gives them."""

    folder: Folder
    tree: Tree
    """How its processes are known, whoever they will be."""
    pipes: list[Pipe] = []
    notices: Notices | None = None
    made: Made | None = None
    """As which the folder was made; None: nobody knows."""
    owner: Identity | None = None
    launch: Launch | None = None
    """As which the process was launched."""
    has_new_leaf: bool = False
    """Whether its cgroup has nothing set by anybody: it was made anew for the next process."""
    forked: Forked | None = None
    """What is to become the next one, in its cgroup already."""

    @classmethod
    def of(cls, around: Surroundings, key: InstanceKey) -> "Ways":
        return cls(folder=around.folder(key), tree=around.tree(key), pipes=[])

    def again(self, owner: Identity | None) -> bool:
        """Whether a process of `owner` finds everything as the first one did."""
        return self.made is not None and self.owner == owner and self.folder.is_as_made(self.made)

    def renew(self) -> None:
        """Nothing of an earlier process is of interest to anybody."""
        for pipe in self.pipes:
            pipe.forget(pipe.taken)
        if self.notices is not None:
            self.notices.renew()

    def close(self, store: FdStore, key: InstanceKey) -> None:
        if self.forked is not None:
            self.forked.close()
        for pipe in self.pipes:
            pipe.close(store, str(key))
        if self.notices is not None:
            self.notices.close(store, str(key))
        self.pipes, self.notices, self.made, self.forked = [], None, None, None
        self.folder.remove()
