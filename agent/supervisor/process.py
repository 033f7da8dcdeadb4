"""One process of ours from its start to its end, with its tree and its output; instances and admin processes alike.

Rules: its end is the pidfd's word, never an end of output; after it the tree is killed, then the output read to its
end. Whoever starts one, or takes one up that an earlier agent started, kills and closes it. What a next agent needs of
it is in the FD store before it runs (`pipes`, `logs`) or right after (its pidfd).
"""

import contextlib
import errno
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.process.probe import is_told, watchdog_ms
from agent.linux import cgroup
from agent.linux.executable import ExecFailure, Identity
from agent.linux.killtree import Tree, end_tree
from agent.linux.notifysocket import can_bind
from agent.linux.pidfd import ExitStatus
from agent.linux.spawn import Launch, Launched, spawn
from agent.linux.users import User
from agent.model.ids import ReleaseName
from agent.model.process import Limits, Probes, Sandbox
from agent.supervisor import limits, sandbox
from agent.supervisor.folder import STREAMS
from agent.supervisor.launchable import InstanceKey, Listener, environment_of, sockets_named, words_of
from agent.supervisor.logs import Marks
from agent.supervisor.mainprocess import MainProcess
from agent.supervisor.notices import Notices
from agent.supervisor.pipes import Pipe
from agent.supervisor.sandbox import fence_of, user_of
from agent.supervisor.stream import Stream
from agent.supervisor.surroundings import Surroundings
from agent.supervisor.watched import Watched
from agent.supervisor.ways import Ways

READ_OUT_S: Final = 5.0
"""So long the output of a process that is gone may wait for its reader."""
ROOM_S: Final = 10.0
"""So long a start waits for the unit of all instances, which at boot systemd starts right after the agent."""
NO_ROOM: Final = f"{cgroup.APPS_UNIT} is not started on this host (systemctl enable --now rollway-apps)"
ROOM_AGAIN_S: Final = 0.05
BEGIN_WORDS: Final = 2
"""So many the service manager is told when a process begins that has nothing of an earlier one."""
LEAVE_WORDS: Final = 5
"""So many at most when one ends that leaves nothing to another."""
UNKEPT: Final = "runs without limits that this host cannot keep"


class Plan(Struct, frozen=True, kw_only=True):
    """What to start."""

    key: InstanceKey
    release: ReleaseName
    command: str
    shell: bool
    cwd: str
    config: Mapping[str, str]
    listeners: tuple[Listener, ...] = ()
    port: int | None = None
    limits: Limits = Limits()
    sandbox: Sandbox = Sandbox()
    probes: Probes | None = None
    """What it may have to say by sd_notify(3); None: nobody hears it."""
    tap: Callable[[bytes], None] | None = None
    """Sees the raw output as well."""
    words: tuple[str, ...] = ()
    """The command, where it came in words: in the place of `command`."""
    watched: Watched | None = None
    """Its streams, where they are not log pipes."""


class Process:
    """Made by `start` and `resume` only."""

    def __init__(
        self,
        around: Surroundings,
        key: InstanceKey,
        tree: Tree,
        *,
        handle: int | None,
        start_time: int | None,
        ways: Ways,
        unkept: tuple[str, ...] = (),
    ) -> None:
        self.start_time: Final = start_time
        self.unkept: Final = unkept
        """Limits that it has to do without."""
        self.main: Final = MainProcess(tree, handle)
        self._around = around
        self._key = key
        self._ways = ways
        self._streams: list[Stream] = []
        self._is_gone = False
        self.left: Ways | None = None
        """For the next process of the instance, once this one is closed."""

    @property
    def tree(self) -> Tree:
        return self.main.tree

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self.tree.pid

    def read(self, tasks: TaskGroup, release: ReleaseName, tap: Callable[[bytes], None] | None = None) -> None:
        """Begin to read its output, or go on where an earlier agent was. Asking again changes nothing."""
        if self._streams:
            return
        logs = self._around.logs
        marks = Marks(logs.found(self._key))
        if not marks.known:
            marks.begin({pipe.name: pipe.taken for pipe in self._ways.pipes})
        process = (self._key, release, self.pid)
        for pipe in self._ways.pipes:
            stream = Stream(self._around, process, pipe, marks=marks, tap=tap, tasks=tasks)
            self._streams.append(stream)
            stream.begin()

    @property
    def notices(self) -> Notices | None:
        """What it says of itself; None where nobody hears it."""
        return self._ways.notices

    async def follow(self, pid: int) -> tuple[int, ...]:
        """That is its main process, now and for a next agent. Gives the handle of the one before, to be seen off."""
        before, handle = self.main.follow(pid), self.main.handle
        if before is not None and handle is not None:
            await to_thread.run_sync(self._keep, handle)
        return before or ()

    def _keep(self, handle: int) -> None:
        self._around.store.drop(pidfd_name(self._key))
        self._around.store.put(pidfd_name(self._key), handle)

    async def show_notice(self) -> None:
        """Let the drain notice appear; a disk that is full takes the notice away from the app, not the drain."""
        with contextlib.suppress(OSError):
            await self._around.do(0, self._ways.folder.show_notice)

    def ended(self) -> ExitStatus | None:
        """How the main process has ended; None where it has not, or that or what it has said is to be waited for."""
        status = self.main.status()
        return status if self.notices is None or not self.notices.has_more else None

    async def wait(self) -> ExitStatus:
        """Wait for the end of the main process; who does not wait to its end leaves the output to others."""
        status: ExitStatus | None = None
        try:
            status = await self.main.wait(self.notices)
        finally:
            if status is None:
                self.let_go()
        return status

    def let_go(self) -> None:
        """Watch nothing of it any more: it and its output are left to others."""
        self.main.ignore()
        for stream in self._streams:
            stream.let_go()
        if self.notices is not None:
            self.notices.ignore()

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed a part of it, and so all of it, for that: known until it is closed."""
        with contextlib.suppress(OSError):  # for want of a descriptor nobody can tell
            return self.tree.cgroup is not None and cgroup.oom_kills(self.tree.cgroup) > 0
        return False

    def fork_ahead(self, plan: Plan) -> None:
        """Have forked, after its end, what the next process is to become, while it is decided what that is.

        Only where its cgroup says that nobody is left of it; all is as before where that cannot be done.
        """
        around, ways, leaf = self._around, self._ways, self.tree.cgroup
        with contextlib.suppress(OSError):
            if leaf is not None and ways.is_made and around.in_memory and cgroup.is_empty(leaf):
                ways.has_new_leaf = cgroup.remove(leaf) and cgroup.renew(leaf)
                ways.forked = around.launcher.ahead(_launch(around, plan, ways, ways.user))

    async def kill(self) -> tuple[int, ...]:
        """SIGKILL to the whole tree; the pids that are still there afterwards."""
        if self._ways.forked is not None:
            self._is_gone = True
            return ()
        survivors = await end_tree(self.tree)
        self._is_gone = not survivors
        return survivors

    async def close(self, *, again: bool = False) -> bool:
        """After its end: whether all its output was read and taken. Its ways are `left` to a next one, if possible."""
        self.let_go()
        read = not any(stream.has_left for stream in self._streams) or await self._read_out()
        # Without a cgroup somebody who is not found may hold them still.
        keeps = again and read and self._is_gone and self.tree.cgroup is not None and self._ways.is_made
        await self._around.do(1 if keeps else LEAVE_WORDS, self._leave, keeps=keeps)
        self.left = self._ways if keeps else None
        return read

    async def _read_out(self) -> bool:
        with anyio.move_on_after(READ_OUT_S) as patience:
            for stream in self._streams:
                await stream.finish()
        return not patience.cancelled_caught

    def _leave(self, *, keeps: bool) -> None:
        if keeps:
            self._ways.renew()
        else:
            self._ways.close(self._around.store, self._key)
        self._around.store.drop(pidfd_name(self._key))  # also of an earlier one, where that came back
        self.main.close()
        if self._ways.forked is None:
            _remove_leaf(self.tree)


def _remove_leaf(tree: Tree) -> None:
    if tree.cgroup is not None:
        with contextlib.suppress(OSError):  # an empty leaf that stays is used again
            cgroup.remove(tree.cgroup)


async def start(around: Surroundings, plan: Plan, left: Ways | None = None) -> Process | ExecFailure:
    """Start it, its output yet to be `read`; or why it cannot be started, whatever stood in the way.

    `left` is what a process of this instance before it has left.
    """
    ways = left or Ways.of(around, plan.key)
    try:
        process = await _start(around, plan, ways, Marks(around.logs.found(plan.key)))
    except OSError as error:
        process = ExecFailure(errno=error.errno or errno.EIO, what=error.filename or str(error))
    except ValueError as error:
        process = ExecFailure(errno=errno.EINVAL, what=f"cannot read the command {plan.command!r}: {error}")
    if isinstance(process, ExecFailure):
        await around.do(LEAVE_WORDS, give_up, around, plan.key, ways)
    return process


async def wait_for_room(around: Surroundings) -> bool:
    """Whether instances can be started; at boot that comes a moment after the agent."""
    with anyio.move_on_after(ROOM_S) as waiting:
        while not await to_thread.run_sync(around.has_room):  # noqa: ASYNC110 - systemd starts it, and tells nobody
            await anyio.sleep(ROOM_AGAIN_S)
    return not waiting.cancelled_caught


async def _start(around: Surroundings, plan: Plan, ways: Ways, marks: Marks) -> Process | ExecFailure:
    """Mostly there is room, and then it is made ready in one go."""
    do: Do = partial(around.do, 0 if ways.is_made else BEGIN_WORDS)
    if plan.sandbox.user is not None or plan.sandbox.writable is not None:
        do = to_thread.run_sync  # a directory server, or a disk of anybody's, is asked
    ready = await do(partial(_make_ready_if_room, around, plan, ways, marks))
    if ready is None and await wait_for_room(around):
        ready = await do(partial(_make_ready, around, plan, ways, marks))
    if ready is None:
        return ExecFailure(errno=errno.EAGAIN, what=NO_ROOM)
    if isinstance(ready, ExecFailure):
        return ready
    launch, unkept = ready
    name = pidfd_name(plan.key)
    forked, ways.forked = ways.forked, None
    launched = await around.launcher.launch(launch, lambda process: around.store.put(name, process.pidfd), forked)
    if isinstance(launched, ExecFailure):
        return launched
    tree = replace(ways.tree, pid=launched.pid, start_time=launched.start_time)
    handle, start_time = launched.pidfd, launched.start_time
    return Process(around, plan.key, tree, handle=handle, start_time=start_time, ways=ways, unkept=unkept)


Ready = tuple[Launch, tuple[str, ...]]
"""What is to be started, and the limits that it has to do without."""
Do = Callable[[Callable[[], Ready | ExecFailure | None]], Awaitable[Ready | ExecFailure | None]]


def _make_ready_if_room(around: Surroundings, plan: Plan, ways: Ways, marks: Marks) -> Ready | ExecFailure | None:
    return _make_ready(around, plan, ways, marks) if around.has_room() else None


def _make_ready(around: Surroundings, plan: Plan, ways: Ways, marks: Marks) -> Ready | ExecFailure:
    """All that it needs before it is started."""
    user = user_of(plan.sandbox)
    if isinstance(user, str):
        return ExecFailure(errno=errno.ENOTSUP, what=user)
    owner = user.identity if user else None
    if not ways.again(owner):
        if ways.is_made:
            ways.close(around.store, plan.key)
        _make_ways(around, plan, ways, owner)
    ways.user = user
    marks.begin({pipe.name: pipe.taken for pipe in ways.pipes})
    leaf = ways.tree.cgroup
    if leaf is not None and ways.forked is None:
        ways.has_new_leaf = cgroup.renew(leaf)
    unkept = limits.put(leaf, plan.limits, is_new=ways.has_new_leaf)
    if refused := limits.refusal(unkept, plan.limits) or sandbox.refusal(plan.sandbox, plan.cwd):
        return ExecFailure(errno=errno.ENOTSUP, what=refused)
    return _launch(around, plan, ways, user), (*unkept, *sandbox.unkept(plan.sandbox))


def _make_ways(around: Surroundings, plan: Plan, ways: Ways, owner: Identity | None) -> None:
    around.inherited.drop_rest(around.store, f"{plan.key}/")  # else it would go later, with what is stored now
    ways.folder.prepare()
    around.logs.keep()
    for name in STREAMS if plan.watched is None else ():
        ways.pipes.append(Pipe.make(ways.folder, name))
    ways.notices = _notices(plan, ways.folder.notify)
    if owner is not None:
        ways.folder.give_to(owner.uid, owner.gid, plan.watched.theirs if plan.watched else ())
    ways.is_made, ways.owner = True, owner
    ways.keep(around.store, plan.key)


def _notices(plan: Plan, path: str) -> Notices | None:
    """A socket to hear it; none where its path is too long and nothing depends on it."""
    probes = plan.probes
    if probes is None or not (can_bind(path) or any(map(is_told, (probes.startup, probes.readiness, probes.liveness)))):
        return None
    return Notices.make(path)


def give_up(around: Surroundings, key: InstanceKey, ways: Ways) -> None:
    """No process will have them."""
    ways.close(around.store, key)
    _remove_leaf(ways.tree)


def start_beside(around: Surroundings, plan: Plan, command: str, tree: Tree, output: int) -> Launched | ExecFailure:
    """Start a command in the identical surroundings of an instance, but for its sockets and its voice. Blocking."""
    user = user_of(plan.sandbox)
    if isinstance(user, str):
        return ExecFailure(errno=errno.ENOTSUP, what=user)
    if tree.cgroup is not None:
        leaf = Path(tree.cgroup)
        cgroup.create(leaf.parent, leaf.name)
    silent = replace(plan, command=command, listeners=(), probes=None)
    launch = _launch(around, silent, Ways.of(around, plan.key), user, (output, output))
    mark, _, value = tree.mark.partition("=")
    return spawn(replace(launch, cgroup=tree.cgroup, env={**launch.env, mark: value}))


def _launch(
    around: Surroundings, plan: Plan, ways: Ways, user: User | None, output: tuple[int, int] | None = None
) -> Launch:
    """Without `output` that is the log pipes, or whoever watches it."""
    folder = ways.folder
    stdout, stderr = output or (plan.watched.output if plan.watched else (pipe.writer for pipe in ways.pipes))
    hears = {"NOTIFY_SOCKET": ways.notices.path} if ways.notices else {}
    if plan.probes is not None and (within_ms := watchdog_ms(plan.probes)) is not None:
        hears["WATCHDOG_USEC"] = str(within_ms * 1_000)
    return Launch(
        argv=plan.words or words_of(plan.command, shell=plan.shell, port=plan.port),
        env={
            **environment_of(plan.key, plan.release, {**(user.environment if user else {}), **plan.config}, plan.port),
            **sockets_named(plan.key, len(plan.listeners)),
            "ROLLWAY_DRAIN_FILE": folder.notice,
            "TMPDIR": folder.tmp,
            **hears,
        },
        cwd=plan.cwd,
        stdin=plan.watched.stdin if plan.watched else None,
        stdout=stdout,
        stderr=stderr,
        cgroup=ways.tree.cgroup,
        listen=tuple(listener.socket.fileno() for listener in plan.listeners),
        identity=user.identity if user else None,
        no_new_privs=True,
        rlimits=limits.rlimits(plan.limits, around.rlimits),
        fence=fence_of(plan.sandbox, folder.tmp),
    )


def pidfd_name(key: InstanceKey) -> str:
    """Under which name the FD store has that of its main process."""
    return f"{key}/pidfd"
