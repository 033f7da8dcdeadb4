"""Plays scripts of a fleet: `decisions.rollout` without anything around it; the script says what hosts report."""

from collections.abc import Iterator
from typing import get_args

from agent.decisions.rollout import begin, step
from agent.decisions.rollout.state import (
    Abort,
    Begin,
    Ended,
    Give,
    HostsChanged,
    Pause,
    Reachable,
    Reported,
    Restarted,
    Resume,
    RolloutAction,
    RolloutEvent,
    Tick,
    Wake,
)
from agent.model.assignment import AdminReport, AppReport, HostState, PreparedReport, ReleaseRef
from agent.model.environment import EnvironmentSettings, RollbackSettings, RollingSettings, Share
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec, ProcessType, ReleaseCommand
from agent.model.release import Order
from agent.model.rollout import HostStep, OnFailure, Rollout
from agent.model.units import Instant, parse_duration

APP, ENVIRONMENT = AppName("shop"), EnvironmentName("production")
STATES = get_args(HostState)
ASIDE = ("pinned", "drained")


def ref(name: str) -> ReleaseRef | None:
    return None if name == "nothing" else ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}"))


class RolloutScript:
    """One rollout, and what it gave each host last."""

    def __init__(self) -> None:
        self.rollout: Rollout | None = None
        self._now_ms = 0
        self._wake_ms: int | None = None
        self._given: dict[HostName, Give] = {}

    def perform(self, command: tuple[str, ...]) -> list[str]:
        first, _, rest = command[0].partition(" ")
        if first in ("swap", "rollback"):
            return self._plan(command)
        if first == "wait":
            return self._wait(parse_duration(rest))
        words: dict[str, RolloutEvent] = {
            "begin": Begin(),
            "abort": Abort(by="ada"),
            "pause": Pause(by="ada"),
            "resume": Resume(by="ada"),
            "restart the coordinator": Restarted(),
        }
        if command[0] in words:
            return self._step(words[command[0]])
        if first == "hosts":
            return self._step(HostsChanged(hosts=tuple(HostName(name) for name in rest.split())))
        if first == "show":
            return list(self._shown())
        return [line for one in command for line in self._tell(one)]

    # What a script may say

    def _plan(self, command: tuple[str, ...]) -> list[str]:
        """`swap v1 -> v2 on h1 h2 h3`, then options a line: batch=2, on-failure=pause, migration, stop-first."""
        kind, before, _, after, _, *names = command[0].split()
        given = dict(word.partition("=")[::2] for line in command[1:] for word in line.split())
        on_failure: OnFailure = "pause" if given.get("on-failure") == "pause" else "rollback"
        settings = EnvironmentSettings(
            rolling=RollingSettings(
                batch=Share(count=int(given.get("batch", "1"))),
                max_unavailable=Share(count=int(given.get("max-unavailable", "1"))),
                pause_between_ms=parse_duration(given.get("pause", "0ms")),
                on_failure=on_failure,
            ),
            rollback=RollbackSettings(max_unavailable=Share(count=int(given.get("max-unavailable", "1")))),
        )
        process = ProcessType(name=ProcessName("web"), command="bin/web")
        if "stop-first" in given:
            process = ProcessType(name=ProcessName("web"), command="bin/web", swap="stop-first")
        target, replaces = ref(after), ref(before)
        assert target is not None
        order = Order(
            kind="rollback" if kind == "rollback" else "swap",
            app=APP,
            environment=ENVIRONMENT,
            release=target.name,
            release_digest=target.digest,
            replaces=replaces.name if replaces else None,
            replaces_digest=replaces.digest if replaces else None,
            sequence=1,
        )
        away = given.get("away", "").split(",")
        self.rollout = begin.plan(
            rollout_id=RolloutId("r1"),
            order=order,
            envelope="",
            settings=settings,
            spec=AppSpec(
                app=APP,
                processes=(process,),
                release=ReleaseCommand(command="bin/migrate") if "migration" in given else None,
            ),
            hosts=tuple(HostStep(host=HostName(name), reachable=name not in away) for name in names),
            first_generation=1,
            asked_by="ada",
            now_ms=self._now_ms,
        )
        return list(begin.lines(self.rollout))

    def _tell(self, line: str) -> Iterator[str]:
        """`h1 h2 done`, `h3 failed: web.1 keeps crashing`, `h1 away`: of each host in turn."""
        said, _, reason = line.partition(": ")
        names = [word for word in said.split() if word[0] == "h" and word[1:].isdigit()]
        what = said.split(" ", len(names))[-1]
        for name in names:
            host = HostName(name)
            if what in ("away", "back"):
                yield from self._step(Reachable(host=host, reachable=what == "back"))
            else:
                yield from self._step(Reported(host=host, report=self._report(host, what, reason)))

    def _report(self, host: HostName, what: str, reason: str) -> AppReport:
        given = self._given[host]
        state: HostState = next((state for state in STATES if state == what), "done")
        admin = None
        if what.startswith("migrated"):
            code = int(what.removeprefix("migrated with exit code "))
            admin = AdminReport(rollout=RolloutId("r1"), state="failed" if code else "succeeded", exit_code=code)
        prepared = tuple(
            PreparedReport(release=release, failure=reason if what == "cannot fetch" else "")
            for release in given.prepare
        )
        return AppReport(
            app=APP,
            environment=ENVIRONMENT,
            generation=given.generation,
            release=given.release.name if given.release else None,
            state=state,
            reason=reason if state == "failed" else "",
            prepared=() if what in ASIDE else prepared,
            admin=admin,
            aside=what if what in ASIDE else "",
        )

    def _wait(self, duration_ms: int) -> list[str]:
        end_ms, said = self._now_ms + duration_ms, []
        while self._wake_ms is not None and self._wake_ms <= end_ms:
            self._now_ms = self._wake_ms
            said += self._step(Tick())
        self._now_ms = end_ms
        return said

    # The coordinator

    def _step(self, event: RolloutEvent) -> list[str]:
        before = self.rollout
        assert before is not None
        decision = step.step(before, event, Instant("boot", self._now_ms, self._now_ms))
        if decision.refused:
            return [f"refused: {decision.refused}"]
        self.rollout, self._wake_ms = decision.state, None
        said = [line for action in decision.actions for line in self._act(action)]
        if (before.state, before.reason) != (self.rollout.state, self.rollout.reason):
            said.append(f"= {self.rollout.state}" + (f": {self.rollout.reason}" if self.rollout.reason else ""))
        return said

    def _act(self, action: RolloutAction) -> Iterator[str]:
        match action:
            case Give(host=host, release=release, prepare=prepare, admin=admin):
                self._given[host] = action
                name = release.name if release else "nothing"
                extra = [one.name for one in prepare if one != release]
                yield (
                    f"{host}: run {name}"
                    + (f", lay ready {', '.join(extra)}" if extra else "")
                    + (f", run the release command of {admin.release.name}" if admin else "")
                )
            case Ended(state=state, runs=runs, healthy=healthy):
                name = runs.name if runs else "nothing"
                yield f"ended: {state}; the environment runs {name}" + ("" if healthy else ", which is not healthy")
            case Wake(after_ms=after_ms):
                self._wake_ms = self._now_ms + after_ms

    def _shown(self) -> Iterator[str]:
        assert self.rollout is not None
        for host in self.rollout.hosts:
            away, aside = "" if host.reachable else ", away", f", {host.aside}" if host.aside else ""
            yield f"{host.host}: {host.state}{away}{aside}"
