"""The shell around `decisions.process` for one instance: one inbox, one actor that takes, decides, performs.

Rules: the decided state is kept before its actions run; nothing acts but the actor, everybody else sends an event.
The inbox is bounded: probes and watches wait for room, a wish to stop always has room.
"""

import errno
from collections.abc import Mapping
from functools import partial
from typing import Final, Literal

import anyio
from anyio.abc import TaskGroup

from agent.decisions.process.instance import new, step
from agent.decisions.process.restart import comes_back_at_once
from agent.decisions.process.state import (
    AcceptLeft,
    Action,
    Adopted,
    CloseProcess,
    Decision,
    DropNotice,
    Emit,
    Event,
    Exited,
    FollowMain,
    KillTree,
    Launched,
    LaunchFailed,
    LaunchNow,
    LaunchWithheld,
    Level,
    ShowNotice,
    Signal,
    Start,
    StartProbe,
    StopAsked,
    StopProbe,
    Tick,
    Wake,
    WatchConnections,
    durable,
)
from agent.decisions.swap.state import InstanceView
from agent.errors import RollwayError, unreachable
from agent.linux import clock
from agent.linux.executable import ExecFailure
from agent.linux.pidfd import ExitStatus
from agent.model.process import ProbeKind
from agent.model.units import Instant, Milliseconds
from agent.supervisor.admission import why_not
from agent.supervisor.exits import exited
from agent.supervisor.gauge import Measured
from agent.supervisor.hearing import Hearing, Observer
from agent.supervisor.inbox import Inbox
from agent.supervisor.launchable import Launchable
from agent.supervisor.mainprocess import see_off
from agent.supervisor.prober import connections_left
from agent.supervisor.probing import Probing
from agent.supervisor.process import LEAVE_WORDS, UNKEPT, Plan, Process, give_up, start
from agent.supervisor.records import Record, encoded, record_of
from agent.supervisor.resume import resume
from agent.supervisor.surroundings import Surroundings
from agent.supervisor.ways import Ways

WATCH_S: Final = 0.25
RECORD_AGAIN_S: Final = 1.0  # a next agent ends what is on no record
STRANDED: Final = "stranded connections were closed"
"""Told with their number, `connections`; the agent counts them by it."""
KINDS: Final[tuple[ProbeKind, ...]] = ("startup", "readiness", "liveness")
Observed = ProbeKind | Literal["connections", "notices"]


class Instance:
    """`run` is its task, and ends when the instance has stopped."""

    def __init__(
        self,
        around: Surroundings,
        launchable: Launchable,
        left: Record | None = None,
    ) -> None:
        """`left` is what an earlier agent wrote about it: then it is taken up, not started."""
        self.launchable: Final = launchable
        self.taken_up: Final = anyio.Event() if left is not None else None
        """Set once what an earlier agent left of it is in its hands."""
        self._around = around
        self._record = left
        self._on_record: int | None = None
        """A hash of what is on record: to keep all of it takes half a KiB."""
        self._unrecorded = False
        self._unkept: tuple[str, ...] = ()
        kept = left.instance if left else None
        self._machine = kept.machine if kept else new(launchable.terms, clock.now())
        self._inbox = Inbox()
        self._hearing = Hearing(self._inbox.put, self._tell, self._publish)
        self._shown = self._seen()
        self._stop: StopAsked | None = None
        self._wake: Instant | None = None
        self._process: Process | None = None
        self._left: Ways | None = None  # of the process before, for the next one
        self._observers: dict[Observed, Observer] = {}
        self._plan: Plan | None = None  # of the present process; made again where an earlier agent has started it
        self._probing = Probing(
            around,
            launchable,
            plan=self._planned,
            machine=lambda: self._machine,
            send=self._inbox.put,
            offer=self._inbox.offer,
            tell=self._tell,
        )

    @property
    def view(self) -> InstanceView:
        return self._shown

    @property
    def measured(self) -> Measured | None:
        """How what runs of it can be measured; None where nothing does."""
        return Measured(self._process.tree, self._machine.launched) if self._process is not None else None

    def stop(self, linger_ms: Milliseconds | None) -> None:
        """Ask for the drain. Asking again changes nothing."""
        if self._machine.state == "stopped":
            return
        self._stop = StopAsked(linger_ms=self.launchable.linger_ms if linger_ms is None else linger_ms)
        self._inbox.wake()

    async def run(self) -> None:
        async with self._probing.open(), anyio.create_task_group() as tasks:
            try:
                first = await self._first(tasks)
                if self.taken_up is not None:
                    self.taken_up.set()
                await self._take(first, tasks)
                while self._machine.state != "stopped":
                    await self._take(await self._next(), tasks)
            finally:
                self._unobserve()
                if self._process is not None:
                    self._process.let_go()
            tasks.cancel_scope.cancel()
        if self._left is not None:
            await self._around.do(LEAVE_WORDS, give_up, self._around, self.launchable.key, self._left)
        self._publish()

    async def _first(self, tasks: TaskGroup) -> Event:
        left, self._record = self._record, None
        kept = left.instance if left is not None else None
        if left is None or kept is None:
            return Start()
        with anyio.CancelScope(shield=True):
            self._process = await resume(self._around, left, self.launchable.release.name, tasks)
        if self._process is None:
            return Adopted(pid=None)
        self._attend(self._process, tasks)
        return Adopted(pid=self._process.main.pid, signalled=kept.signalled)

    async def _next(self) -> Event:
        waits_s = [RECORD_AGAIN_S] if self._unrecorded else []
        if self._wake is not None:
            waits_s.append(max(0, self._wake.boottime_ms - clock.now().boottime_ms) / 1_000)
        event = await self._inbox.take(min(waits_s, default=None)) if self._stop is None else None
        if event is None and self._stop is not None:
            event, self._stop = self._stop, None
        return event or Tick()

    async def _take(self, event: Event, tasks: TaskGroup) -> None:
        """Whoever cancels an instance, as an agent that goes and leaves it alone does, waits for the step to end."""
        decision, events = self._decided(event), list[Event]()
        if decision is None:
            return
        with anyio.CancelScope(shield=True):
            while decision is not None or events:
                if decision is not None:
                    events.extend(await self._carry_out(decision, tasks))
                decision = self._decided(events.pop(0)) if events else None
            if self._process is not None:  # what it writes comes after what is told of its start
                self._process.read(tasks, self.launchable.release.name)

    def _decided(self, event: Event) -> Decision | None:
        """What to do about it; None where nothing is to be done, shown or recorded: a next agent asks probes again."""
        decision, self._wake = step(self._machine, event, clock.now()), None
        if decision.actions or self._unrecorded or durable(decision.state) != durable(self._machine):
            return decision
        self._machine = decision.state
        return None

    async def _carry_out(self, decision: Decision, tasks: TaskGroup) -> list[Event]:
        """The answers to its actions."""
        answers: list[Event] = []
        self._machine = decision.state
        signals = any(isinstance(action, Signal) for action in decision.actions)
        await self._remember(signalled=not signals)
        # "stopped" is shown when nothing of it is left: its place may then be taken by another.
        if decision.state.state != "stopped":
            self._publish()
        for action in decision.actions:
            answers.extend(await self._perform(action, tasks))
        if signals or any(isinstance(action, FollowMain) for action in decision.actions):
            await self._remember(signalled=True)
        return answers

    async def _remember(self, *, signalled: bool) -> None:
        """Have on record what a next agent goes on from, before anything is done about it."""
        given, process = self.launchable, self._process if self._machine.pid is not None else None
        tree = process.tree if process is not None else self._around.tree(given.key)
        record = record_of(given, tree, self._machine, is_started=process is not None, signalled=signalled)
        data = encoded(record)
        if (mark := hash(data)) == self._on_record:
            return
        if await self._around.do(0, self._around.records.put, given.key, data):
            self._on_record = mark
            if self._unrecorded:
                self._tell("is on record again", {}, "info")
        elif not self._unrecorded:
            self._tell("cannot be recorded: a next agent would not know of it", {}, "warning")
        self._unrecorded = self._on_record != mark

    def _publish(self) -> None:
        if (seen := self._seen()) != self._shown:
            self._shown = seen
            self._around.on_change(self.launchable.key.app, self.launchable.key.environment)

    def _tell(self, text: str, fields: Mapping[str, str | int], level: Level) -> None:
        self._around.on_event(self.launchable.key, text, fields, level)

    def _seen(self) -> InstanceView:
        machine, key = self._machine, self.launchable.key
        return InstanceView(
            process=key.process,
            slot=key.slot,
            release=self.launchable.release.name,
            state=machine.state,
            since=machine.since,
            launched=machine.launched,
            pid=machine.pid,
            restarts=machine.restarts,
            start_ms=machine.start_ms,
            crash_looping=machine.history.crash_looping,
            detail=machine.why(self._hearing.status),
            type=self.launchable.type,
        )

    async def _perform(self, action: Action, tasks: TaskGroup) -> tuple[Event, ...]:
        """Perform; the answer, where there is one at once."""
        match action:
            case LaunchNow():
                return await self._launch(tasks)
            case Signal() | ShowNotice() | KillTree() | CloseProcess():
                await self._end(action)
            case StartProbe() | StopProbe() | WatchConnections():
                self._observe(action, tasks)
            case DropNotice():
                if action.launch == self._machine.launch:
                    self._hearing.dealt_with()
            case FollowMain():
                for before in await self._process.follow(action.pid) if self._process else ():
                    tasks.start_soon(see_off, before)
            case AcceptLeft():
                self._accept_left()
            case Emit():
                self._tell(action.text, action.fields, action.level)
            case Wake():
                self._wake = action.at
        return ()

    async def _launch(self, tasks: TaskGroup) -> tuple[Event, ...]:
        self._plan = None
        try:
            plan = await self._planned()
        except RollwayError as error:
            return (LaunchFailed(errno=errno.EKEYREJECTED, what=str(error), jitter=self._around.jitter()),)
        async with self._around.launches:
            if self._stop is not None:
                stop, self._stop = self._stop, None
                return stop, LaunchWithheld()
            if why := await why_not(self._around, self.launchable):
                return (LaunchFailed(errno=errno.EAGAIN, what=why, jitter=self._around.jitter()),)
            process = await start(self._around, plan, self._left)
            self._left = None
        if isinstance(process, ExecFailure):
            return (LaunchFailed(errno=process.errno, what=str(process), jitter=self._around.jitter()),)
        if process.unkept not in ((), self._unkept):  # told once, not at every start
            self._tell(UNKEPT, {"limits": " ".join(process.unkept)}, "warning")
        self._unkept, self._process = process.unkept, process
        self._attend(process, tasks)
        return (Launched(pid=process.pid),)

    async def _planned(self) -> Plan:
        """Raises RollwayError where the config cannot be opened."""
        if self._plan is None:
            given = self.launchable
            self._plan = Plan(
                key=given.key,
                release=given.release.name,
                command=given.type.command,
                shell=given.type.shell,
                cwd=given.cwd,
                limits=given.type.limits,
                sandbox=given.type.sandbox,
                probes=given.type.probes,
                config=await given.config() if callable(given.config) else given.config,
                listeners=given.listeners,
                port=given.port,
            )
        return self._plan

    async def _end(self, action: Signal | ShowNotice | KillTree | CloseProcess) -> None:
        process = self._process
        if process is None:
            unreachable(action)
        match action:
            case Signal():
                process.main.signal(action.name)
            case ShowNotice():
                await process.show_notice()
            case KillTree():
                await self._stop_asking()  # what a probe starts anew would be looked for, and found, for ever
                if survivors := await process.kill():
                    self._tell("processes survive SIGKILL", {"pids": " ".join(map(str, survivors))}, "warning")
            case CloseProcess():
                self._unobserve()
                self._process = None
                if not await process.close(again=self._machine.state != "stopped"):
                    self._tell("output is lost: nobody took it", {"pid": process.pid}, "warning")
                self._left = process.left

    def _unobserve(self) -> None:
        while self._observers:
            self._observers.popitem()[1].cancel()

    async def _stop_asking(self) -> None:
        """Until nothing is left that asks how the process is."""
        for kind in self._observers.keys() & KINDS:
            self._observers.pop(kind).cancel()
        await self._probing.ended()

    def _observe(self, action: StartProbe | StopProbe | WatchConnections, tasks: TaskGroup) -> None:
        match action:
            case StartProbe(kind=kind):
                if self._process is not None and (asking := self._probing.begin(action, self._process, tasks)):
                    self._observers[kind] = asking
            case StopProbe(kind=kind):
                if kind in self._observers:
                    self._observers.pop(kind).cancel()
            case WatchConnections():
                self._observers["connections"] = scope = anyio.CancelScope()
                tasks.start_soon(self._watch, scope)

    def _accept_left(self) -> None:
        if closed := sum(listener.accept_and_close() for listener in self.launchable.listeners):
            self._tell(STRANDED, {"connections": closed}, "warning")

    # What sends events

    def _attend(self, process: Process, tasks: TaskGroup) -> None:
        """Wait for its end, and hear what it says."""
        self._hearing.status = ""
        process.main.when_over(partial(self._over, process, tasks))
        self._hearing.listen(process, self._machine.launch, self._observers, tasks)

    def _over(self, process: Process, tasks: TaskGroup) -> None:
        """Mostly nothing has to be waited for, and then no task does."""
        try:
            status = process.ended()
        except OSError:  # met again by the task, whose failure somebody hears of
            status = None
        if status is None or not self._inbox.offer(self._exit_of(process, status)):
            tasks.start_soon(self._exited, process)

    async def _exited(self, process: Process) -> None:
        await self._inbox.put(self._exit_of(process, await process.wait()))

    def _exit_of(self, process: Process, status: ExitStatus) -> Exited:
        event = exited(status, process, self._around.jitter())
        if self._plan is not None and comes_back_at_once(self._machine):
            process.fork_ahead(self._plan)
        return event

    async def _watch(self, scope: anyio.CancelScope) -> None:
        if (process := self._process) is None or self.launchable.target is None:
            return
        with scope:
            try:
                while True:
                    await self._inbox.put(await connections_left(self.launchable, process.tree))
                    await anyio.sleep(WATCH_S)
            except OSError as error:
                self._tell("its connections cannot be seen: it has its whole linger", {"reason": str(error)}, "warning")
