"""A rollout before the eyes of who asked for it: a live view on a terminal, one line per change in a pipe.

Ctrl-C leaves it going and says how to come back. Not handled here: what the words of a rollout mean (model.rollout).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

import anyio

from agent.cli.changes import Lines, View
from agent.cli.output import on_terminal, remark, words
from agent.cli.records import printable
from agent.client.answers import RolloutShown
from agent.errors import FailedError, RolledBackError

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

EXIT_CODES: Final = {"done": 0, "rolled_back": RolledBackError.exit_code, "aborted": RolledBackError.exit_code}


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
            runs = f"{rollout.previous} runs" if rollout.previous else "nothing runs"
            yield f"{rollout.app} {rollout.environment}: {rollout.release} {words(rollout.state)}, {runs}{reason}"
        case _:
            yield f"{rollout.app} {rollout.environment}: {rollout.release} {words(rollout.state)}{reason}"
    if rollout.migration is not None and rollout.migration.state == "failed":
        code, output = rollout.migration.exit_code, rollout.migration.output
        how = f"ended with exit code {code}" if code is not None else "failed"
        yield f"the release command on {rollout.migration.host} {how}{':' if output else ''}"
        yield from (f"  {printable(line)}" for line in output.splitlines())
    if rollout.stragglers:
        yield f"warning: not reached or set aside, they follow when they return: {', '.join(rollout.stragglers)}"


class _Silence:
    def update(self, rollout: RolloutShown) -> None:
        pass

    def away(self) -> None:
        pass


def _view(*, quiet: bool) -> AbstractContextManager[View]:
    if quiet:
        return nullcontext(_Silence())
    if not on_terminal():
        return nullcontext(Lines())
    from agent.cli.live import Live  # noqa: PLC0415 - a pipe need not wait for its library

    return Live()
