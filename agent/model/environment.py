"""The settings of one app in one environment: which hosts, how many instances, at what pace a rollout goes.

Every duration is in milliseconds. Defaults here are those of the file; `LOCAL_DEFAULTS` are those of `rollway up`.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agent.model.ids import ProcessName
from agent.model.process import AppSpec
from agent.model.rollout import OnFailure, Pace, Strategy
from agent.model.units import Milliseconds


class Share(Struct, frozen=True, kw_only=True):
    """Some of a fleet: so many hosts (`count`) or so many per cent of them (`percent`); exactly one is set.

    Percentages round as in Kubernetes: a batch up (`of`, like maxSurge), a bound down (`at_most`, like maxUnavailable).
    Neither gives less than 1: a rollout that may touch no host would never end.
    """

    count: int | None = None
    percent: int | None = None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.percent is None):
            raise ValueError("a share is either a count or a percentage")

    def of(self, total: int) -> int:
        """Hosts of `total`, a percentage rounded up; at least 1."""
        return max(1, self.count or -(-total * (self.percent or 0) // 100))

    def at_most(self, total: int) -> int:
        """Hosts of `total`, a percentage rounded down; at least 1."""
        return max(1, self.count or total * (self.percent or 0) // 100)


class RollingSettings(Struct, frozen=True, kw_only=True):
    """How a rolling rollout goes from host to host, and when it gives up."""

    batch: Share = Share(percent=25)
    max_unavailable: Share = Share(count=1)
    """Hosts that may be out at once; those that are down anyway count."""
    min_ready_ms: Milliseconds = 10_000
    """Ready this long without a break before a host counts as done."""
    deadline_ms: Milliseconds = 300_000
    """Per host, armed anew by each instance done."""
    progress_deadline_ms: Milliseconds = 600_000
    """For the rollout, armed anew by each host done."""
    on_failure: OnFailure = "rollback"
    pause_between_ms: Milliseconds = 0


class RollbackSettings(Struct, frozen=True, kw_only=True):
    """How many hosts at a time go back to stable: more than forward, because it is the way out of trouble."""

    batch: Share = Share(percent=100)
    max_unavailable: Share = Share(percent=25)


class EnvironmentSettings(Struct, frozen=True, kw_only=True):
    """What `rollway env set` stores for an app and an environment; without any, these defaults hold."""

    hosts: dict[str, str] | tuple[str, ...] | None = None
    """Labels that a host must all have, or names of hosts; None is every host that serves the environment."""
    strategy: Strategy = "rolling"
    scale: dict[ProcessName, int] = {}
    """Counts per host by process type, over the app's own."""
    listen: dict[ProcessName, tuple[str, ...]] = {}
    """Addresses by process type, over the app's own."""
    rolling: RollingSettings = RollingSettings()
    rollback: RollbackSettings = RollbackSettings()
    linger_ms: Milliseconds | None = None
    """Over the linger of every process type: set for `local` only, no file has it."""

    def includes(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the host `name` with `labels` is one of this environment's hosts, given that it serves it."""
        if self.hosts is None:
            return True
        if isinstance(self.hosts, tuple):
            return name in self.hosts
        return all(labels.get(label) == value for label, value in self.hosts.items())

    def pace(self, hosts: int) -> Pace:
        """The pace forward in a fleet of so many hosts."""
        rolling = self.rolling
        return Pace(
            batch=rolling.batch.of(hosts),
            max_unavailable=rolling.max_unavailable.at_most(hosts),
            min_ready_ms=rolling.min_ready_ms,
            deadline_ms=rolling.deadline_ms,
            progress_deadline_ms=rolling.progress_deadline_ms,
            pause_between_ms=rolling.pause_between_ms,
        )

    def back_pace(self, hosts: int) -> Pace:
        """The pace back to stable: its own shares, the same patience, no pauses."""
        back = self.rollback
        return replace(
            self.pace(hosts),
            batch=back.batch.of(hosts),
            max_unavailable=back.max_unavailable.at_most(hosts),
            pause_between_ms=0,
        )


LOCAL_DEFAULTS: Final = EnvironmentSettings(
    rolling=RollingSettings(min_ready_ms=1_000, deadline_ms=30_000), linger_ms=2_000
)
"""The environment `local` of `rollway up`: one machine, one person waiting."""


def overridden(
    spec: AppSpec,
    counts: Mapping[ProcessName, int],
    listen: Mapping[ProcessName, tuple[str, ...]],
    linger_ms: Milliseconds | None,
) -> AppSpec:
    """`spec` as it runs in one environment: with these counts and addresses, and this linger, over its own."""
    return replace(
        spec,
        processes=tuple(
            replace(
                process,
                count=counts.get(process.name, process.count),
                listen=listen.get(process.name, process.listen),
                stop=process.stop if linger_ms is None else replace(process.stop, linger_ms=linger_ms),
            )
            for process in spec.processes
        ),
    )
