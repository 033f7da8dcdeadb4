"""A start that took long is a warning where people look: at a rollout, and at a host."""

from agent.cli.rollout import slow_starts
from agent.client.answers import RolloutHost, RolloutShown
from agent.host import checks
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.wire.control import Row


def test_a_rollout_names_who_took_long() -> None:
    """Which instance, on which host, how long."""
    rollout = RolloutShown(
        id=RolloutId("r-1"),
        app=AppName("shop"),
        environment=EnvironmentName("local"),
        release=ReleaseName("v2"),
        strategy="rolling",
        state="done",
        hosts=(
            RolloutHost(host=HostName("h1"), state="done"),
            RolloutHost(host=HostName("h2"), state="done", slow_starts_ms={"web.2": 90_000, "web.1": 41_900}),
        ),
    )
    assert list(slow_starts(rollout)) == [
        "warning: web.1 on h2 took 41 s to become ready",
        "warning: web.2 on h2 took 90 s to become ready",
    ]


def test_a_hosts_check_names_who_took_long() -> None:
    """What took half a minute is well still, what took longer is not, and what is not ready yet says nothing."""
    rows = [
        Row(
            host=HostName("h2"),
            app=AppName("shop"),
            environment=EnvironmentName("local"),
            release=ReleaseName("v2"),
            process=ProcessName("web"),
            instance=f"web.{slot}",
            pid=7,
            state="ready",
            since="",
            restarts=0,
            start_ms=start_ms,
        )
        for slot, start_ms in enumerate((30_000, None, 41_000), start=1)
    ]
    (found,) = checks.starts(rows)
    assert found.found == "web.3 of shop local took 41 s to become ready"
    assert not found.well
