"""Plays scripts of one host: `decisions.swap` without anything around it; the script says what instances do."""

from collections.abc import Iterator

from msgspec.structs import replace

from agent.decisions.swap import plan
from agent.decisions.swap.hand import way_back
from agent.decisions.swap.lease import asks
from agent.decisions.swap.report import report
from agent.decisions.swap.state import (
    AdminEnded,
    Assigned,
    Drain,
    Forget,
    InstanceView,
    Launch,
    Lease,
    Leased,
    Observed,
    PinAsked,
    Prepare,
    Prepared,
    RestartAsked,
    Restarted,
    Route,
    RunAdmin,
    Stop,
    StopAsked,
    SwapAction,
    SwapEvent,
    SwapState,
    Tick,
    Undrain,
    UnpinAsked,
    Wake,
)
from agent.model.assignment import AdminReport, AdminRun, Assignment, InstanceState, ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec, ProcessType
from agent.model.release import Order
from agent.model.units import Instant, parse_duration

APP, ENVIRONMENT = AppName("shop"), EnvironmentName("production")
LEASE_MS = 10_000
Slot = tuple[ProcessName, int]
ORDERS: dict[str, SwapEvent] = {"drain the host": Drain(), "undrain the host": Undrain(), "unpin": UnpinAsked()}


def ref(name: str) -> ReleaseRef:
    return ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}"))


class SwapScript:
    """One host. Each command is a method, `-` for `_`; it gives what was decided, one line each."""

    def __init__(self) -> None:
        self.state = SwapState()
        self._specs: dict[str, AppSpec] = {}
        self._views: dict[Slot, InstanceView] = {}
        self._routes: dict[ProcessName, str] = {}
        self._now_ms = 0
        self._wake_ms: int | None = None
        self._generation = 0

    def perform(self, command: tuple[str, ...]) -> list[str]:
        verb, _, rest = command[0].partition(" ")
        if verb == "release":
            return self._release(rest, command[1:])
        if verb == "run":
            return self._run(rest)
        if verb == "wait":
            return self._wait(parse_duration(rest))
        if verb in ("fetched", "broken"):
            name, _, failure = rest.partition(": ")
            return self._step(Prepared(release=ref(name), spec=self._specs.get(name), failure=failure))
        if verb == "migrated":
            code = int(rest.removeprefix("with exit code "))
            rollout = RolloutId(f"r{self.state.sequence}")
            ended = AdminReport(rollout=rollout, state="failed" if code else "succeeded", exit_code=code)
            return [*self._step(AdminEnded(report=ended)), f"the release command {ended.state}"]
        if verb in ("lease", "asks"):
            return self._lease(rest) if verb == "lease" else self._asked()
        if command[0] in ORDERS:
            return self._step(ORDERS[command[0]])
        if command[0] == "go back":
            return self._go_back()
        if verb in ("restart", "stop") and rest != "the agent":
            return self._step(self._by_hand(verb, rest))
        if command[0] == "restart the agent":
            self._views.clear()
            self._routes.clear()
            self.state = replace(self.state, draining=False)
            return self._step(Restarted())
        if command[0] == "show":
            return list(self._shown())
        return self._happen(command)

    # What a script may say

    def _release(self, name: str, lines: tuple[str, ...]) -> list[str]:
        """`release v2`, then a line per process type: `web count=2 swap=stop-first after=db`."""
        processes = []
        for line in lines:
            kind, *words = line.split()
            given = dict(word.split("=") for word in words)
            after = tuple(ProcessName(one) for one in given.get("after", "").split(",") if one)
            process = ProcessType(
                name=ProcessName(kind), command=f"bin/{kind}", count=int(given.get("count", "1")), after=after
            )
            if given.get("swap") == "stop-first":
                process = replace(process, swap="stop-first")
            process = replace(process, total=int(given.get("total", "0")))
            if given.get("swap") == "singleton":
                stop = replace(process.stop, grace_ms=2_000)
                process = replace(process, swap="stop-first", singleton=True, stop=stop)
            if given.get("restart") == "never":
                process = replace(process, restart=replace(process.restart, policy="never"))
            processes.append(process)
        self._specs[name] = AppSpec(app=APP, processes=tuple(processes))
        return ["declared"]

    def _run(self, words: str) -> list[str]:
        """`run v2 by swap v1 -> v2 [count.web=1] [migrate] [generation=7]`: the newest assignment."""
        wanted, _, rest = words.partition(" by ")
        kind, before, _, after, *options = rest.split()
        given = dict(option.partition("=")[::2] for option in options)
        self._generation = int(given.get("generation", self._generation + 1))
        sequence = int(given.get("order", self.state.sequence + (f"{before}->{after}" != self._ordered())))
        order = Order(
            kind="rollback" if kind == "rollback" else "swap",
            app=APP,
            environment=ENVIRONMENT,
            release=ref(after).name,
            release_digest=ref(after).digest,
            replaces=ref(before).name if before != "nothing" else None,
            replaces_digest=ref(before).digest if before != "nothing" else None,
            sequence=sequence,
        )
        ready = (
            (after, before) if wanted == after or "migrate" in given else (wanted,)
        )  # the way back needs only itself
        prepare = tuple(ref(name) for name in ready if name != "nothing")
        counts = {ProcessName(k.removeprefix("count.")): int(v) for k, v in given.items() if k.startswith("count.")}
        admin = AdminRun(rollout=RolloutId(f"r{sequence}"), release=ref(after)) if "migrate" in given else None
        assignment = Assignment(
            app=APP,
            environment=ENVIRONMENT,
            epoch=1,
            generation=self._generation,
            release=None if wanted == "nothing" else ref(wanted),
            order="",
            prepare=prepare,
            admin=admin,
            counts=counts,
            min_ready_ms=10_000,
            deadline_ms=60_000,
        )
        return self._step(Assigned(assignment=assignment, order=order))

    def _by_hand(self, verb: str, what: str) -> RestartAsked | StopAsked:
        """`restart web`, `stop web.2`, `restart everything`: what a person asks for."""
        kind, _, slot = what.partition(".")
        process = None if kind == "everything" else ProcessName(kind)
        event = RestartAsked if verb == "restart" else StopAsked
        return event(process=process, slot=int(slot) if slot else None)

    def _lease(self, words: str) -> list[str]:
        """`lease clock for 12s`, `lease clock is h2's`, `lease clock none: the coordinator is away`: what is known.

        `lease worker share 2`: so many of a total.
        """
        process, _, rest = words.partition(" ")
        if rest.startswith("share "):
            share = int(rest.removeprefix("share "))
            return self._step(Leased(leases=self.state.leases, shares={ProcessName(process): share}))
        said, _, why = rest.partition(": ")
        before = {lease.process: lease for lease in self.state.leases}
        lease = Lease(process=ProcessName(process), why=why)
        if said.startswith("for "):
            lease = replace(lease, until=self._now().after(parse_duration(said.removeprefix("for "))))
        if said.startswith("is "):
            lease = replace(lease, holder=said.removeprefix("is ").removesuffix("'s"))
        if said == "still":
            lease = replace(lease, until=before[lease.process].until)
        before[lease.process] = lease
        return self._step(Leased(leases=tuple(before.values())))

    def _asked(self) -> list[str]:
        untils = {lease.process: lease.until for lease in self.state.leases if lease.until is not None}
        return [
            (f"a share of {ask.total} {ask.name.process}" if ask.total else f"{ask.name.process} for {ask.hold_ms} ms")
            + (f", it may live for {ask.bound_ms} ms" if ask.bound_ms else "")
            + ("" if ask.wants else ", not to be had anew")
            for ask in asks(self.state, self._views.values(), untils, LEASE_MS, self._now())
        ]

    def _go_back(self) -> list[str]:
        """`rollway agent rollback`: to where the host itself knows the way."""
        target = way_back(self.state)
        if target is None:
            return ["no way back is known"]
        return [f"pin {target.name}", *self._step(PinAsked(release=target, spec=self._specs[target.name]))]

    def _ordered(self) -> str:
        order = self.state.order
        return f"{order.replaces or 'nothing'}->{order.release}" if order else ""

    def _wait(self, duration_ms: int) -> list[str]:
        """Time passes; the host looks at the moments that it asked for."""
        end_ms, said = self._now_ms + duration_ms, []
        while self._wake_ms is not None and self._wake_ms <= end_ms:
            self._now_ms = self._wake_ms
            said += self._step(Tick())
        self._now_ms = end_ms
        return said

    def _happen(self, lines: tuple[str, ...]) -> list[str]:
        """`web.1 web.2 ready`, `web.3 backoff: exited with code 1`: what the supervisor sees next."""
        for line in lines:
            said, _, detail = line.partition(": ")
            *names, state = said.split()
            for name in names:
                kind, _, number = name.partition(".")
                slot = (ProcessName(kind), int(number))
                if state == "crash-looping":
                    self._see(slot, "backoff", detail)
                    self._views[slot] = replace(self._views[slot], crash_looping=True, restarts=5)
                else:
                    states: dict[str, InstanceState] = {
                        "ready": "ready", "unready": "unready", "starting": "starting", "gone": "stopped",
                        "cannot-start": "exec_failed", "backoff": "backoff",
                    }  # fmt: skip
                    self._see(slot, states[state], detail)
        return self._step(Observed(instances=()))

    def _see(self, slot: Slot, state: InstanceState, detail: str) -> None:
        self._views[slot] = replace(self._views[slot], state=state, since=self._now(), detail=detail)

    # The host

    def _now(self) -> Instant:
        return Instant("boot", self._now_ms, self._now_ms)

    def _step(self, event: SwapEvent) -> list[str]:
        if isinstance(event, Observed):
            event = Observed(instances=tuple(self._views.values()))
        before = self.state
        decision = plan.step(before, event, self._now())
        if decision.refused:
            return [f"refused: {decision.refused}"]
        self.state, self._wake_ms = decision.state, None
        said = [line for action in decision.actions for line in self._act(action)]
        if self.state.renewal and (before.renewal is None or before.renewal.failure != self.state.renewal.failure):
            said += [f"! {self.state.renewal.failure}"] if self.state.renewal.failure else []
        if (before.phase, before.reason) != (self.state.phase, self.state.reason):
            said.append(f"= {self.state.phase}" + (f": {self.state.reason}" if self.state.reason else ""))
        return said

    def _act(self, action: SwapAction) -> Iterator[str]:
        match action:
            case Prepare(release=release):
                yield f"fetch {release.name}"
            case RunAdmin(release=release):
                yield f"run the release command of {release.name}"
            case Launch(process=process, slot=slot, release=release):
                self._views[process, slot] = InstanceView(
                    process=process,
                    slot=slot,
                    release=release.name,
                    state="starting",
                    since=self._now(),
                    launched=self._now(),
                    type=self._specs[release.name].process(process),
                )
                yield f"launch {process}.{slot} of {release.name}"
            case Route(process=process, admitted=admitted, waiting=waiting):
                to = ", ".join(f"{process}.{slot}" for slot in admitted)
                wait = ", ".join(f"{process}.{slot}" for slot in waiting)
                line = f"route {process} to " + (to or (f"whoever is ready first: {wait}" if wait else "nobody"))
                if self._routes.get(process) != line:
                    self._routes[process] = line
                    yield line
            case Stop(process=process, slot=slot):
                self._see((process, slot), "draining", "")
                yield f"stop {process}.{slot}"
            case Forget(process=process, slot=slot):
                del self._views[process, slot]
                yield f"free {process}.{slot}"
            case Wake(at=at):
                self._wake_ms = at.boottime_ms

    def _shown(self) -> Iterator[str]:
        yield f"{self.state.phase}{': ' if self.state.reason else ''}{self.state.reason}"
        told = report(self.state)
        if told.aside:
            yield f"{told.aside}: takes part in no rollout"
        for view in sorted(told.instances, key=lambda view: (view.process, view.slot)):
            by_hand = f", {view.detail}" if view.state == "stopped" else ""
            yield f"{view.name} of {view.release}: {view.state}{by_hand}"
