"""How long one decision takes, by size of the fleet and of the host: the pure cores alone, no I/O.

The unit is the cost of one event in microseconds, and its ratio to the smallest size: what grows faster than the fleet
shows as a ratio above the ratio of sizes.
"""

import time
from collections.abc import Callable

from agent.decisions.rollout import begin
from agent.decisions.rollout import step as rollouts
from agent.decisions.rollout.state import Begin, Reported
from agent.decisions.swap import plan
from agent.decisions.swap.state import InstanceView, Observed, SwapState
from agent.model.assignment import AppReport, Assignment, PreparedReport, ReleaseRef
from agent.model.environment import EnvironmentSettings
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec, ProcessType
from agent.model.release import Order
from agent.model.rollout import HostStep
from agent.model.units import Instant

APP, ENVIRONMENT = AppName("shop"), EnvironmentName("local")
RELEASE = ReleaseRef(name=ReleaseName("v2"), digest=Digest("sha256:" + "2" * 64))
WEB = ProcessName("web")
SPEC = AppSpec(app=APP, processes=(ProcessType(name=WEB, command="web", count=1, listen=("0.0.0.0:8080",)),))
ROUNDS = 200


def microseconds(work: Callable[[], object]) -> float:
    """The best of five rounds: other work on the machine only adds."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(ROUNDS):
            work()
        best = min(best, (time.perf_counter() - begun) / ROUNDS)
    return best * 1e6


def rollout_step(hosts: int) -> float:
    order = Order(
        kind="swap",
        app=APP,
        environment=ENVIRONMENT,
        release=RELEASE.name,
        release_digest=RELEASE.digest,
        replaces=None,
        replaces_digest=None,
        sequence=1,
    )
    steps = tuple(HostStep(host=HostName(f"h{number}")) for number in range(hosts))
    rollout = begin.plan(
        rollout_id=RolloutId("r"),
        order=order,
        envelope="",
        settings=EnvironmentSettings(),
        spec=SPEC,
        hosts=steps,
        first_generation=1,
        asked_by="bench",
        now_ms=0,
    )
    rollout = rollouts.step(rollout, Begin(), Instant("boot", 0, 0)).state
    report = AppReport(
        app=APP,
        environment=ENVIRONMENT,
        generation=1,
        release=None,
        state="done",
        prepared=(PreparedReport(release=RELEASE),),
    )
    return microseconds(
        lambda: rollouts.step(rollout, Reported(host=steps[0].host, report=report), Instant("boot", 1, 1))
    )


def swap_step(instances: int) -> float:
    now = Instant("boot", 0, 0)
    assignment = Assignment(
        app=APP,
        environment=ENVIRONMENT,
        epoch=1,
        generation=1,
        release=RELEASE,
        order="",
        counts={WEB: instances},
        min_ready_ms=1000,
        deadline_ms=30_000,
    )
    views = tuple(
        InstanceView(process=WEB, slot=slot, release=RELEASE.name, state="ready", since=now, launched=now)
        for slot in range(instances)
    )
    state = SwapState(assignment=assignment, spec=SPEC, phase="swapping", armed=now)
    return microseconds(lambda: plan.step(state, Observed(instances=views), now))


def table(title: str, sizes: tuple[int, ...], measure: Callable[[int], float]) -> None:
    print(f"\n{title}")
    smallest = None
    for size in sizes:
        cost = measure(size)
        smallest = smallest or cost
        print(f"  {size:>6}  {cost:>9.1f} µs  {cost / smallest:>6.1f} x")


if __name__ == "__main__":
    table("one report to a rollout of so many hosts", (3, 100, 1_000, 10_000), rollout_step)
    table("one look at a host of so many instances", (2, 20, 200), swap_step)
