"""What Rollway is to reach beside its peers: at most so many times what they take, measured in the same run."""

from typing import Final, Literal

from msgspec import Struct

Measure = Literal[
    "start_one_s",
    "start_some_s",
    "start_many_s",
    "memory_one",
    "memory_some",
    "memory_many",
    "idle_many",
    "restart_p50_ms",
    "restart_p99_ms",
    "crash_ms",
    "stopped_ms",
    "gone_ms",
    "left",
]
BEST: Final = "best peer"
ANY: Final = "rollway"
PLAIN: Final = "rollway-plain"


class Goal(Struct, frozen=True, kw_only=True):
    measure: Measure
    of: str
    """A peer, or the one of them that takes least."""
    most: float
    stretch: bool = False
    who: str = ANY
    """Where a peer does nothing of what costs Rollway something, only that which does as little is compared."""


GOALS: Final = (
    Goal(measure="start_one_s", of="supervisord", most=0.5),
    Goal(measure="start_one_s", of="pm2", most=2.0),
    Goal(measure="start_some_s", of="pm2", most=1.0),
    Goal(measure="start_some_s", of="s6", most=2.5),
    Goal(measure="start_many_s", of=BEST, most=1.0),
    Goal(measure="start_many_s", of=BEST, most=0.6, stretch=True),
    Goal(measure="memory_one", of="supervisord", most=2.0),
    Goal(measure="memory_one", of="pm2", most=0.8),
    Goal(measure="memory_some", of="supervisord", most=2.0),
    Goal(measure="memory_some", of="pm2", most=0.6),
    Goal(measure="memory_many", of="runit", most=1.0),
    Goal(measure="memory_many", of="runit+svlogd", most=0.5),
    Goal(measure="memory_many", of="supervisord", most=2.0),
    Goal(measure="idle_many", of="supervisord", most=0.2, who=PLAIN),
    Goal(measure="restart_p50_ms", of="runit", most=1.0),
    Goal(measure="restart_p50_ms", of="pm2", most=0.7),
    Goal(measure="restart_p50_ms", of="runit", most=0.6, stretch=True),
    Goal(measure="restart_p99_ms", of="runit", most=1.5),
    Goal(measure="crash_ms", of="runit", most=0.7),
    Goal(measure="crash_ms", of="runit", most=0.5, stretch=True),
    Goal(measure="stopped_ms", of="s6", most=1.0),
)
