"""Commands that operators run on this host and watch: each by a connection of its own, with which it begins and ends.

Rules: what is run was ordered for this host, in a release that lies here, verified, for what the host runs; it gets
that release's folder and config, and the user, limits and sandbox of one of its process types. When who watches it
leaves, or the host is drained, it is ended. Not handled here: how a command is started and ended (supervisor.attended).
"""

import errno
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from agent.artifacts import sign
from agent.decisions.swap import plan
from agent.decisions.swap.hand import aim
from agent.errors import (
    FailedError,
    NotFoundError,
    RefusedError,
    RollwayError,
    UnreachableError,
    VerificationError,
    first,
)
from agent.host.assignments import AppKey
from agent.host.converge import Actor
from agent.host.launch import watched_command
from agent.host.services import Services
from agent.link.conversation import Carrier, Conversation
from agent.linux.executable import ExecFailure
from agent.linux.pidfd import ExitStatus
from agent.model.assignment import ReleaseRef
from agent.model.ids import HostName
from agent.supervisor.attended import Attended
from agent.supervisor.launchable import WatchedCommand
from agent.wire.runs import (
    NOT_FOUND,
    NOT_RUN,
    STDERR,
    STDIN,
    STDOUT,
    Ask,
    Ended,
    FromCaller,
    Refused,
    Resized,
    Signalled,
    Started,
    from_caller,
)

RUNS_MAX: Final = 32
ASKED_WITHIN_S: Final = 10.0
TOLD_WITHIN_S: Final = 1.0
TAKEN_WITHIN_S: Final = 5.0
"""So long the last words of a command that we have ended wait for who watches it."""
DRAINED: Final = "the host is drained"
LEFT: Final = "who watched it has left"

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Dial = Callable[[], AbstractAsyncContextManager[Carrier]]


class _Run:
    """What one caller has said, and what runs for them."""

    def __init__(self) -> None:
        self.ask: Ask | None = None
        self.asked = anyio.Event()
        self.attended: Attended | None = None

    def hear(self, word: FromCaller) -> None:
        match word:
            case Ask() if self.ask is None:
                self.ask = word
                self.asked.set()
            case Resized(size=size) if self.attended is not None:
                self.attended.streams.resize(size.rows, size.columns)
            case Signalled(signal=name) if self.attended is not None:
                self.attended.signal(signal.Signals[name])


class Runs:
    """`tasks` is set by its owner before anything is begun; `changed` is called when something has ended."""

    tasks: TaskGroup

    def __init__(
        self, host: HostName, actors: Mapping[AppKey, Actor], services: Services, changed: Callable[[], None]
    ) -> None:
        self._host, self._actors, self._services, self._changed = host, actors, services, changed
        self._runs: set[_Run] = set()
        self.closed = ""
        """Why nothing is run, if so."""

    def begin(self, dial: Dial) -> None:
        """Somebody wants to have something run: what it is they say over the connection."""
        self.tasks.start_soon(self._serve, dial)

    def living(self) -> Iterator[Attended]:
        return (run.attended for run in self._runs if run.attended is not None and not run.attended.ended)

    def end(self, reason: str) -> None:
        """End all, and run none from now on."""
        self.closed = reason
        for attended in self.living():
            self.tasks.start_soon(attended.end, reason)

    async def _serve(self, dial: Dial) -> None:
        run = _Run()
        self._runs.add(run)
        try:
            async with dial() as line, anyio.create_task_group() as tasks:
                conversation = Conversation[FromCaller](line, from_caller)
                tasks.start_soon(conversation.listen, run.hear)
                await self._answer(conversation, run)
                tasks.cancel_scope.cancel()
        except* RollwayError as errors:
            log.warning("a command's connection failed", reason=str(first(errors)))
        finally:
            self._runs.discard(run)
            self._changed()

    async def _answer(self, conversation: Conversation[FromCaller], run: _Run) -> None:
        last: Ended | Refused | None = None
        try:
            last = await self._run(conversation, run)
        except* RollwayError as errors:
            last = Refused.of(first(errors))
        except* OSError as errors:
            last = Refused.of(FailedError(f"{self._host} cannot run it: {first(errors)}", "Take another host."))
        finally:
            if last is None:  # we are to end
                ended = UnreachableError(f"the agent of {self._host} ended, and the command with it", "Ask again.")
                with anyio.move_on_after(TOLD_WITHIN_S, shield=True):
                    await conversation.say(Refused.of(ended))
        await conversation.say(last)

    async def _run(self, conversation: Conversation[FromCaller], run: _Run) -> Ended | Refused:
        with anyio.move_on_after(ASKED_WITHIN_S):
            await run.asked.wait()
        if run.ask is None:
            raise VerificationError("nothing was asked for")
        command = await self._command(run.ask)
        async with self._services.supervisor.watching(command) as attended:
            if isinstance(attended, ExecFailure):
                code = NOT_FOUND if attended.errno == errno.ENOENT else NOT_RUN
                return Refused(error=f"cannot run it on {self._host}: {attended}", code=code)
            run.attended = attended
            told = log.bind(app=command.app, env=command.environment, instance=attended.key.name)
            told.info("command begins", release=command.release, program=command.words[0], pid=attended.pid)
            if attended.unkept:
                told.warning("a command runs without limits", limits=" ".join(attended.unkept))
            await conversation.say(Started(instance=attended.key.name, pid=attended.pid, release=command.release))
            status = await self._watch(conversation, attended)
            told.info("command ended", code=status.code, signal=status.signal, reason=attended.reason)
            return Ended(code=status.code, signal=status.signal, reason=attended.reason)

    async def _watch(self, conversation: Conversation[FromCaller], attended: Attended) -> ExitStatus:
        """Carry its streams until it has ended and all that it wrote was taken."""

        async def end_when_left() -> None:
            await conversation.gone()
            await attended.end(LEFT)

        async with anyio.create_task_group() as beside:
            beside.start_soon(end_when_left)
            beside.start_soon(_feed, conversation, attended)
            if self.closed:
                beside.start_soon(attended.end, self.closed)
            async with anyio.create_task_group() as outputs:
                for number in attended.streams.outputs:
                    outputs.start_soon(_show, conversation, attended, number)
                status = await attended.wait()
                if attended.reason:
                    outputs.cancel_scope.deadline = anyio.current_time() + TAKEN_WITHIN_S
            beside.cancel_scope.cancel()
        return status

    async def _command(self, ask: Ask) -> WatchedCommand:
        """What is to be run, once it is known that it may be. Raises RollwayError."""
        order = sign.verify_run(ask.order.encode())
        if order.host != self._host:
            raise VerificationError(f"cannot run it on {self._host}: it was ordered for {order.host}")
        if self.closed or len(self._runs) > RUNS_MAX:
            why = self.closed or f"{RUNS_MAX} commands run there already"
            raise RefusedError(f"cannot run it on {self._host}: {why}", "Take another host, or wait.")
        key = AppKey(order.app, order.environment)
        actor = self._actors.get(key)
        assignment = aim(actor.state) if actor is not None else None
        ref = ReleaseRef(name=order.release, digest=order.release_digest)
        if assignment is None or ref not in plan.releases(assignment):
            raise RefusedError(
                f"cannot run it on {self._host}: {ref.name} of {key.app} in {key.environment} is not what runs there",
                "It was swapped meanwhile, perhaps: ask again.",
            )
        runnable = await self._services.releases.runnable(key, ref)
        types = runnable.release.spec.processes
        like = types[0] if order.like is None else runnable.release.spec.process(order.like)
        if like is None:
            known = ", ".join(process.name for process in types)
            raise NotFoundError(f"{ref.name} has no process type {order.like}", f"It has {known}.")
        config = self._services.key.open_config(runnable.release.config, assignment.environment_key)
        return watched_command(order, ask, runnable, like, config)


async def _show(conversation: Conversation[FromCaller], attended: Attended, number: int) -> None:
    """What it writes to one output, to its end, though nobody may be there any more to see it."""
    data = b"."
    while data:
        data = await attended.streams.read(number)
        await conversation.write(STDERR if number else STDOUT, data)


async def _feed(conversation: Conversation[FromCaller], attended: Attended) -> None:
    """What it is to read; no more is asked for once it does not read any more."""
    while data := await conversation.read(STDIN):
        if not await attended.streams.write(data):
            return
        await conversation.took(STDIN)
    if not conversation.over:
        attended.streams.end_input()
