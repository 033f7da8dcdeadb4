"""A rollout on a terminal: drawn anew at each change and, for its clock, a few times a second, over the whole width."""

from typing import Final, Self

from rich import live, table
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from agent.cli.changes import AWAY, with_reason
from agent.cli.moments import read_iso
from agent.client.answers import RolloutShown
from agent.linux.clock import now
from agent.model.rollout import TERMINAL

_COLOURS: Final = {"done": "green", "failed": "red", "unreachable": "red", "waiting": "dim", "swapping": "yellow"}
_DRAWS_PER_SECOND: Final = 4


class Live:
    """`changes.View` of a terminal."""

    def __init__(self) -> None:
        self._live = live.Live(self, refresh_per_second=_DRAWS_PER_SECOND)
        self._rollout: RolloutShown | None = None
        self._away = False

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, rollout: RolloutShown) -> None:
        self._rollout, self._away = rollout, False
        self._live.refresh()

    def away(self) -> None:
        self._away = True
        self._live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich asks for this at each drawing."""
        if self._rollout is not None:
            yield Text(head(self._rollout, now().wall_ms), "bold")
            yield Text(with_reason(self._rollout.state, self._rollout.reason))
        if self._away:
            yield Text(AWAY, "yellow")
        if self._rollout is not None:
            yield hosts(self._rollout)


def head(rollout: RolloutShown, now_ms: int) -> str:
    """What goes where, and for how long: a rollout that has ended counts no further."""
    ends_ms = rollout.changed_ms if rollout.state in TERMINAL else now_ms
    seconds = max(0, ends_ms - (read_iso(rollout.created) or ends_ms)) // 1000
    way = f"{rollout.previous or 'nothing'} -> {rollout.release}"
    return f"{rollout.app} {rollout.environment} {way}, rollout {rollout.id}, {seconds} s"


def hosts(rollout: RolloutShown) -> table.Table:
    """A row a host; what does not fit is wrapped at the terminal's width, in the reason's column alone."""
    drawn = table.Table(box=None, pad_edge=False, expand=True)
    drawn.add_column("HOST", no_wrap=True)
    drawn.add_column("STATE", no_wrap=True)
    drawn.add_column("RELEASE", no_wrap=True)
    drawn.add_column("WHY", ratio=1, overflow="fold")
    for host in rollout.hosts:
        style = _COLOURS.get(host.state, "")
        drawn.add_row(Text(host.host), Text(host.state, style), Text(host.release or "-"), Text(host.reason))
    return drawn
