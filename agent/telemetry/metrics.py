"""What an agent counts: about itself, and about what it runs.

Rules: what changes often is counted where it happens; what can be looked at is looked at when somebody asks (`Seen`).
Making the text costs milliseconds: call `text` in a thread. Not handled here: names, and how it is written
(`telemetry.exposition`).
"""

from bisect import bisect_left
from typing import Final

from msgspec import Struct

from agent.linux import clock
from agent.model.assignment import AppReport

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LAG_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


class Seen(Struct, frozen=True, kw_only=True):
    """What there was to see when somebody asked."""

    version: str = ""
    apps: tuple[AppReport, ...] = ()
    connected: bool = False
    unsent_bytes: int = 0
    """Records that nobody has taken from the agent yet."""
    sent_bytes: int = 0
    lost_records: int = 0


class Count(Struct):
    """What only grows, and since when it is counted (seconds since 1970)."""

    since_s: float
    value: float = 0


class Metrics:
    """One agent's. The methods that count are for the loop, `text` is for a thread."""

    def __init__(self) -> None:
        self.lags: Final = [0] * (len(LAG_BUCKETS_S) + 1)
        """How often the loop was so late, by bucket; the last is for what is later than all of them."""
        self.lag_s: Final = Count(_now_s())
        self.stranded_by_place: Final[dict[tuple[str, str], Count]] = {}

    def lagged(self, seconds: float) -> None:
        self.lags[bisect_left(LAG_BUCKETS_S, seconds)] += 1
        self.lag_s.value += seconds

    def stranded(self, app: str, environment: str, connections: int) -> None:
        self.stranded_by_place.setdefault((app, environment), Count(_now_s())).value += connections

    def text(self, seen: Seen) -> bytes:
        """All of it as Prometheus text."""
        # The library is loaded for whoever has an agent scraped: it has a web server and more beside it, 1.3 MiB.
        from agent.telemetry.exposition import exposition  # noqa: PLC0415

        return exposition(self, seen)


def _now_s() -> float:
    return clock.now().wall_ms / 1000
