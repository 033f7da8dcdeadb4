"""A rollout before the eyes of who asked for it: a live view on a terminal, one line per change in a pipe.

Ctrl-C leaves it going and says how to come back. Not handled here: what the words of a rollout mean (model.rollout).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol, Self

import anyio

from agent.cli.output import on_terminal, remark, show
from agent.client.answers import RolloutShown
from agent.errors import FailedError, RolledBackError

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

_AWAY: Final = "the coordinator does not answer; the hosts go on, and this waits"
_COLOURS: Final = {"done": "green", "failed": "red", "unreachable": "red", "waiting": "dim", "swapping": "yellow"}
EXIT_CODES: Final = {"done": 0, "rolled_back": RolledBackError.exit_code, "aborted": RolledBackError.exit_code}


class View(Protocol):
    def update(self, rollout: RolloutShown) -> None: ...
    def away(self) -> None: ...


async def follow(coordinator: "Coordinator", rollout: RolloutShown, *, quiet: bool) -> RolloutShown:
    """Show `rollout` until it is terminal, and give how it ended."""
    try:
        with _view(quiet=quiet) as view:
            async for shown in coordinator.watch(rollout.id):
                if shown is None:
                    view.away()
                else:
                    rollout = shown
                    view.update(shown)
    except anyio.get_cancelled_exc_class():
        remark(f"rollway: the rollout goes on. Come back to it with: rollway rollout watch {rollout.id}")
        raise
    return rollout


def exit_code(rollout: RolloutShown, *, strict: bool) -> int:
    """What the end of a rollout is to a script."""
    if rollout.state == "done" and rollout.stragglers and strict:
        return FailedError.exit_code
    return EXIT_CODES.get(rollout.state, FailedError.exit_code)


def ending(rollout: RolloutShown) -> Iterator[str]:
    """How a rollout ended, in lines."""
    reason = f": {rollout.reason}" if rollout.reason else ""
    match rollout.state:
        case "done" if not rollout.id:
            yield rollout.reason
        case "done":
            yield f"{rollout.app} {rollout.environment} runs {rollout.release}{reason}"
        case "rolled_back" | "aborted":
            back = f"back on {rollout.previous}" if rollout.previous else "nothing runs"
            yield f"{rollout.release} is {rollout.state.replace('_', ' ')}, {back}{reason}"
        case _:
            yield f"the rollout of {rollout.release} is {rollout.state}{reason}"
    if rollout.migration is not None and rollout.migration.state == "failed":
        yield f"the release command on {rollout.migration.host} ended with {rollout.migration.exit_code}:"
        yield from (f"  {line}" for line in rollout.migration.output.splitlines())
    if rollout.stragglers:
        yield f"warning: not reached, they follow when they return: {', '.join(rollout.stragglers)}"


def _view(*, quiet: bool) -> AbstractContextManager[View]:
    if quiet:
        return nullcontext(_Silence())
    return _Live() if on_terminal() else nullcontext(Lines())


class _Silence:
    def update(self, rollout: RolloutShown) -> None:
        pass

    def away(self) -> None:
        pass


class Lines:
    """One line per change."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def update(self, rollout: RolloutShown) -> None:
        for line in self.changes(rollout):
            show(line)

    def away(self) -> None:
        show(_AWAY)

    def changes(self, rollout: RolloutShown) -> Iterator[str]:
        """What differs from the last rollout that was given."""
        now = {f"rollout {rollout.id}": _words(rollout.state, rollout.reason)}
        if rollout.migration is not None:
            now[f"release command on {rollout.migration.host}"] = rollout.migration.state
        now |= {host.host: _words(host.state, host.reason) for host in rollout.hosts}
        for subject, words in now.items():
            if self._seen.get(subject) != words:
                yield f"{subject}: {words}"
        self._seen = now


def _words(state: str, reason: str) -> str:
    return f"{state.replace('_', ' ')} ({reason})" if reason else state.replace("_", " ")


class _Live:
    """A table that is drawn anew at each change."""

    def __init__(self) -> None:
        from rich.live import Live  # noqa: PLC0415 - a pipe need not wait for it

        self._live = Live(auto_refresh=False)
        self._rollout: RolloutShown | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, rollout: RolloutShown) -> None:
        self._rollout = rollout
        self._draw(_words(rollout.state, rollout.reason))

    def away(self) -> None:
        self._draw(_AWAY)

    def _draw(self, words: str) -> None:
        from rich import box, table, text  # noqa: PLC0415

        rollout = self._rollout
        title = f"{rollout.previous or 'nothing'} -> {rollout.release}: {words}" if rollout else words
        drawn = table.Table(title=text.Text(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
        for column in ("HOST", "STATE", "WHY"):
            drawn.add_column(column)
        for host in rollout.hosts if rollout else ():
            style = _COLOURS.get(host.state, "")
            drawn.add_row(text.Text(host.host), text.Text(host.state, style), text.Text(host.reason))
        self._live.update(drawn, refresh=True)
