"""A rollout as it is planned, and its plan in words."""

from agent.decisions.rollout.begin import lines, plan
from agent.model.environment import EnvironmentSettings, RollbackSettings, RollingSettings, Share
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec, ProcessType, ReleaseCommand
from agent.model.release import Order, OrderKind
from agent.model.rollout import HostStep, Rollout

WEB = ProcessType(name=ProcessName("web"), command="bin/web")
CLOCK = ProcessType(name=ProcessName("clock"), command="bin/clock", swap="stop-first")
SETTINGS = EnvironmentSettings(
    rolling=RollingSettings(batch=Share(percent=50), max_unavailable=Share(percent=50), pause_between_ms=60_000),
    rollback=RollbackSettings(batch=Share(percent=100), max_unavailable=Share(count=1)),
)


def planned(kind: OrderKind = "swap", *processes: ProcessType, first: bool = False, hosts: int = 5) -> Rollout:
    order = Order(
        kind=kind,
        app=AppName("shop"),
        environment=EnvironmentName("production"),
        release=ReleaseName("v2"),
        release_digest=Digest("sha256:2"),
        replaces=None if first else ReleaseName("v1"),
        replaces_digest=None if first else Digest("sha256:1"),
        sequence=3,
    )
    return plan(
        rollout_id=RolloutId("r3"),
        order=order,
        envelope="sealed",
        settings=SETTINGS,
        spec=AppSpec(app=AppName("shop"), processes=processes or (WEB,), release=ReleaseCommand(command="bin/migrate")),
        hosts=tuple(HostStep(host=HostName(f"h{number}")) for number in range(1, hosts + 1)),
        first_generation=12,
        asked_by="ada",
        now_ms=1_000,
    )


def test_shares_become_numbers_of_hosts() -> None:
    """A batch rounds up, what may be away rounds down, and neither is nothing."""
    pace = planned().pace
    assert (pace.batch, pace.max_unavailable) == (3, 2)
    assert (planned(hosts=1).pace.batch, planned(hosts=1).pace.max_unavailable) == (1, 1)


def test_a_rollback_goes_at_its_own_pace_without_release_command() -> None:
    """The way back has its own bounds, no pauses, and migrates nothing."""
    rollback = planned("rollback")
    assert (rollback.pace.batch, rollback.pace.pause_between_ms, rollback.needs_migration) == (5, 0, False)
    assert planned().needs_migration


def test_one_stop_first_type_makes_gaps() -> None:
    """A host that moves stays available only when every process type is start-first."""
    assert (planned().gapless, planned("swap", WEB, CLOCK).gapless) == (True, False)


def test_it_begins_from_what_was_ordered() -> None:
    """Nothing is decided yet: which release, from which, with which generation next."""
    rollout = planned()
    assert rollout.previous is not None
    assert (rollout.state, rollout.release.name, rollout.previous.name) == ("planned", "v2", "v1")
    assert (rollout.next_generation, rollout.clock_ms, rollout.order) == (12, 1_000, "sealed")
    assert planned(first=True).previous is None


def test_the_plan_reads_as_a_list() -> None:
    """`--plan` shows every step, in order."""
    assert lines(planned("swap", WEB, CLOCK)) == (
        "swap shop in production: v1 -> v2",
        "fetch and verify v2 on h1, h2, h3, h4, h5; nothing moves before it lies on all",
        "run the release command once, on one host; its failure swaps nothing",
        "swap h1, h2; ready for 10 s each",
        "wait 60 s",
        "swap h3, h4; ready for 10 s each",
        "wait 60 s",
        "swap h5; ready for 10 s each",
        "a host that is not ready within 5 min: bring v1 back on all that moved",
    )
