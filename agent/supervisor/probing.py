"""The probes of one instance: each asks what its kind of check asks, and what was found is an event.

Rules: a remark is told once, not at each period. Not handled here: what findings mean (`decisions.process.health`).
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from anyio.abc import TaskGroup
from msgspec import Struct

from agent.decisions.process.probe import rhythm
from agent.decisions.process.state import Event, InstanceMachine, Probed, StartProbe
from agent.errors import RollwayError
from agent.model.process import ExecCheck, Probe, ProbeKind
from agent.supervisor.asking import Asking
from agent.supervisor.commands import Commands
from agent.supervisor.finding import Finding
from agent.supervisor.hearing import Tell
from agent.supervisor.knock import Told
from agent.supervisor.launchable import Launchable
from agent.supervisor.prober import Prober, whereabouts
from agent.supervisor.process import Plan, Process
from agent.supervisor.surroundings import Surroundings


class Question(Struct, frozen=True):
    """What is asked of one process, the `launch`-th of its instance."""

    kind: ProbeKind
    probe: Probe
    process: Process
    launch: int


class Probing:
    """`plan` is as `Commands` has it, `machine` gives the state of the instance by then; `offer` does not wait."""

    __slots__ = (
        "_around",
        "_commands",
        "_launchable",
        "_machine",
        "_offer",
        "_plan",
        "_prober",
        "_remarks",
        "_send",
        "_tell",
    )

    def __init__(
        self,
        around: Surroundings,
        launchable: Launchable,
        *,
        plan: Callable[[], Awaitable[Plan]],
        machine: Callable[[], InstanceMachine],
        send: Callable[[Event], Awaitable[None]],
        offer: Callable[[Event], bool],
        tell: Tell,
    ) -> None:
        self._around, self._launchable = around, launchable
        self._machine, self._send, self._offer, self._tell = machine, send, offer, tell
        self._prober, self._plan = Prober(launchable), plan
        self._commands: Commands | None = None
        self._remarks: dict[ProbeKind, str] = {}

    def open(self) -> AbstractAsyncContextManager[None]:
        """What probes have open while it lasts."""
        return self._prober

    async def ended(self) -> None:
        """Wait until no command of a probe lives, once nobody asks any more."""
        if self._commands is not None:
            await self._commands.ended()

    def begin(self, begin: StartProbe, process: Process, tasks: TaskGroup) -> Asking[Question] | None:
        """Ask until it is cancelled; None where nothing is to be asked."""
        kind, machine = begin.kind, self._machine()
        declared: Probe | None = getattr(machine.terms.probes, kind)
        if declared is None:
            return None
        when = rhythm(begin, declared.period_ms, self._around.jitter())
        return Asking(self, Question(kind, declared, process, machine.launch), declared.period_ms, when, tasks)

    async def ask(self, question: Question) -> Finding | None:
        probe = question.probe
        if isinstance(probe.check, ExecCheck):
            self._commands = self._commands or Commands(self._around, self._plan)
            return await self._commands.ask(question.kind, probe.check.command, probe.timeout_ms)
        return await self._prober.check(probe)

    def knock(self, question: Question, told: Told) -> Callable[[], None] | None:
        return self._prober.knock(question.probe, told)

    def heard(self, question: Question, found: Finding, *, early: bool) -> bool:
        if found.remark or (found.silent and self._machine().state == "starting"):
            return False
        return self._offer(_probed(question, found.detail, found, early=early))

    async def found(self, question: Question, found: Finding | RollwayError, *, early: bool) -> None:
        kind = question.kind
        if isinstance(found, RollwayError):  # what an earlier agent has started, without a config to run commands with
            self._tell(f"its {kind} probe cannot be run", {"reason": str(found)}, "warning")
            return
        detail = found.detail
        if found.silent and self._machine().state == "starting":
            detail = await whereabouts(self._launchable, question.process.tree) or detail
        if found.remark not in ("", self._remarks.get(kind)):
            self._remarks[kind] = found.remark
            self._tell(f"its {kind} probe passes by a redirect", {"reason": found.remark}, "warning")
        await self._send(_probed(question, detail, found, early=early))


def _probed(question: Question, detail: str, found: Finding, *, early: bool) -> Probed:
    return Probed(kind=question.kind, launch=question.launch, ok=found.ok, detail=detail, early=early)
