"""What of an instance's process reaches us, and a next agent: its folder, its output and its notices.

Rules: made for the first process of an instance, and left to the next one where nobody else can have them any more and
nobody has changed them: so a restart asks neither the disk nor the service manager for anything but a pidfd. FIFOs and
socket are kept under one name, by one word to the service manager: each is known again by what it is.
"""

import os

from msgspec import Struct

from agent.linux import fifo, memfd, notifysocket
from agent.linux.executable import Identity
from agent.linux.fdstore import FdStore
from agent.linux.killtree import Tree
from agent.linux.launcher import Forked
from agent.linux.users import User
from agent.supervisor.folder import NOTIFY, STREAMS, Folder
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.notices import Notices
from agent.supervisor.pipes import Pipe, taken_as
from agent.supervisor.surroundings import Surroundings


class Ways(Struct, kw_only=True):
    """Empty as `of` gives them."""

    folder: Folder
    tree: Tree
    """How its processes are known, whoever they will be."""
    pipes: list[Pipe] = []
    notices: Notices | None = None
    is_made: bool = False
    """Whether the folder was made by us; otherwise nobody knows how it was."""
    owner: Identity | None = None
    user: User | None = None
    """As whom the process was launched."""
    has_new_leaf: bool = False
    """Whether its cgroup has nothing set by anybody: it was made anew for the next process."""
    forked: Forked | None = None
    """What is to become the next one, in its cgroup already."""

    @classmethod
    def of(cls, around: Surroundings, key: InstanceKey) -> "Ways":
        return cls(folder=around.folder(key), tree=around.tree(key), pipes=[])

    @classmethod
    def adopt(cls, around: Surroundings, key: InstanceKey) -> "Ways":
        """Take up those of a process that an earlier agent has started, by their paths what did not come back."""
        ways, store, inherited = cls.of(around, key), around.store, around.inherited
        back = inherited.take_all(kept_as(key))
        known = _known(back)
        for stream in STREAMS:
            name = taken_as(str(key), stream)
            came_back, taken = inherited.count(name), inherited.take(name, memfd.is_file)
            pipe = Pipe.adopt(ways.folder, stream, known.get(stream), taken)
            if came_back and (pipe is None or not pipe.is_open):
                store.drop(name)
            if pipe is not None:
                ways.pipes.append(pipe)
        ways.notices = Notices.adopt(ways.folder.notify, known.get(NOTIFY))
        if len(known) < len(back) or sorted(known.values()) != sorted(ways.fds):
            store.drop(kept_as(key))
            ways.keep(store, key)
        return ways

    @property
    def fds(self) -> list[int]:
        """What the FD store is to have under one name."""
        return [pipe.writer for pipe in self.pipes] + ([self.notices.fd] if self.notices is not None else [])

    def keep(self, store: FdStore, key: InstanceKey) -> None:
        if fds := self.fds:
            store.put(kept_as(key), *fds)

    def again(self, owner: Identity | None) -> bool:
        """Whether a process of `owner` finds everything as the first one did."""
        uid, gid = (owner.uid, owner.gid) if owner is not None else (os.geteuid(), os.getegid())
        opened = {pipe.name: pipe.writer for pipe in self.pipes}
        has_notify = self.notices is not None
        return self.is_made and self.owner == owner and self.folder.is_as_made(uid, gid, opened, has_notify=has_notify)

    def renew(self) -> None:
        """Nothing of an earlier process is of interest to anybody."""
        for pipe in self.pipes:
            pipe.forget(pipe.taken)
        if self.notices is not None:
            self.notices.renew()

    def close(self, store: FdStore, key: InstanceKey) -> None:
        if self.forked is not None:
            self.forked.close()
        if self.fds:
            store.drop(kept_as(key))
        for pipe in self.pipes:
            pipe.close(store, str(key))
        if self.notices is not None:
            self.notices.close()
        self.pipes, self.notices, self.is_made, self.forked = [], None, False, None
        self.folder.remove()


def kept_as(key: InstanceKey) -> str:
    """Under which name the FD store has FIFOs and socket."""
    return f"{key}/ways"


def _known(back: list[int]) -> dict[str, int]:
    """What came back under the one name, by what each is; what is something else is closed."""
    known: dict[str, int] = {}
    for fd in back:
        name = NOTIFY if notifysocket.is_notify_socket(fd) else fifo.name_of(fd) if fifo.is_fifo(fd) else ""
        if name in (NOTIFY, *STREAMS) and name not in known:
            known[name] = fd
        else:
            os.close(fd)
    return known
