"""A rollout in a pipe: one line per change, and the words that the live view has in common with it."""

from collections.abc import Iterator
from typing import Final, Protocol

from agent.cli.moments import in_day
from agent.cli.output import show, words
from agent.client.answers import RolloutShown
from agent.linux.clock import now

AWAY: Final = "the coordinator does not answer; the hosts go on, and this waits"


class View(Protocol):
    def update(self, rollout: RolloutShown) -> None: ...
    def away(self) -> None: ...


class Lines:
    """One line per change."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def update(self, rollout: RolloutShown) -> None:
        for line in self.changes(rollout):
            _show_timed(line)

    def away(self) -> None:
        _show_timed(AWAY)

    def changes(self, rollout: RolloutShown) -> Iterator[str]:
        """What differs from the last rollout that was given."""
        levels = {f"rollout {rollout.id}": with_reason(rollout.state, rollout.reason)}
        if rollout.migration is not None:
            levels[f"release command on {rollout.migration.host}"] = rollout.migration.state
        levels |= {host.host: with_reason(host.state, host.reason) for host in rollout.hosts}
        for subject, said in levels.items():
            if self._seen.get(subject) != said:
                yield f"{subject}: {said}"
        self._seen = levels


def with_reason(state: str, reason: str) -> str:
    return f"{words(state)} ({reason})" if reason else words(state)


def _show_timed(line: str) -> None:
    show(f"{in_day(now().wall_ms)} {line}")
