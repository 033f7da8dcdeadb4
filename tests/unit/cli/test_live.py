"""The live view of a rollout, drawn as on terminals of both usual widths."""

import io

import pytest
from rich.console import Console

from agent.cli.live import Live, head, hosts
from agent.cli.moments import read_iso
from agent.client.answers import RolloutHost, RolloutShown
from agent.model.ids import AppName, EnvironmentName, HostName, ReleaseName, RolloutId

REASON = "web.1 is not ready within 10s: GET /healthz answered 503, and it has been asked forty times by now, in vain"
CREATED = "2026-11-23T12:50:33.000+00:00"
SHOWN = RolloutShown(
    id=RolloutId("r-0123456789"),
    app=AppName("shop"),
    environment=EnvironmentName("local"),
    release=ReleaseName("v2"),
    previous=ReleaseName("v1"),
    strategy="rolling",
    state="running",
    created=CREATED,
    hosts=(
        RolloutHost(HostName("h1"), "swapping", REASON, ReleaseName("v2")),
        RolloutHost(HostName("h2"), "waiting"),
    ),
)


def drawn(width: int, what: object) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get().splitlines()


def test_the_head_line_says_what_goes_where_and_for_how_long() -> None:
    """App, environment, way, id and seconds on one line; a rollout that has ended counts no further."""
    began_ms = read_iso(CREATED)
    assert began_ms is not None
    assert head(SHOWN, began_ms + 12_400) == "shop local v1 -> v2, rollout r-0123456789, 12 s"
    ended = RolloutShown(
        id=SHOWN.id,
        app=SHOWN.app,
        environment=SHOWN.environment,
        release=SHOWN.release,
        strategy="rolling",
        state="done",
        created=CREATED,
        changed_ms=began_ms + 3_000,
    )
    assert head(ended, began_ms + 60_000) == "shop local nothing -> v2, rollout r-0123456789, 3 s"


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_reason_is_wrapped_in_its_own_column(width: int) -> None:
    """No line is wider than the terminal, no word of the reason is lost, and hosts and states stay whole."""
    lines = drawn(width, hosts(SHOWN))
    assert all(len(line) <= width for line in lines)
    assert max(len(line.rstrip()) for line in lines) > width - 20, "the whole width is used"
    column = lines[0].index("WHY")
    assert " ".join(line[column:].strip() for line in lines[1:]).split() == REASON.split()
    assert lines[1].startswith("h1    swapping  v2")


def test_a_coordinator_that_is_away_is_said_above_the_hosts() -> None:
    """What was seen last stays, with the remark that it may be old."""
    live = Live()
    live.update(SHOWN)
    live.away()
    text = "\n".join(drawn(120, live))
    assert text.index("does not answer") < text.index("h1")
    live.update(SHOWN)
    assert "does not answer" not in "\n".join(drawn(120, live))
