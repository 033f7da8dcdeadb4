"""What an agent counts, as Prometheus text (exposition format 0.0.4): about itself, and about what it runs.

Rules: names begin with `rollway_`, units come last; a series exists for what is there now, so their number is bounded
by what the host runs. What changes often is counted where it happens; what can be looked at is looked at when somebody
asks (`Seen`). Making the text costs milliseconds: call `text` in a thread.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import prometheus_client as prometheus
from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.model.assignment import AppReport

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LAG_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_PLACE: Final = ("app", "environment")


class Seen(Struct, frozen=True, kw_only=True):
    """What there was to see when somebody asked."""

    version: str = ""
    apps: tuple[AppReport, ...] = ()
    connected: bool = False
    unsent_bytes: int = 0
    """Records that nobody has taken from the agent yet."""
    sent_bytes: int = 0
    lost_records: int = 0


class Metrics:
    """One agent's. The methods that count are for the loop, `text` is for a thread."""

    def __init__(self) -> None:
        self._registry: Final = prometheus.CollectorRegistry()
        self._seen = _Seen()
        self._registry.register(self._seen)
        prometheus.ProcessCollector(registry=self._registry)
        self._lag: Final = prometheus.Histogram(
            "rollway_loop_lag_seconds",
            "How much later than asked for the event loop came back.",
            buckets=_LAG_BUCKETS_S,
            registry=self._registry,
        )
        self._stranded: Final = prometheus.Counter(
            "rollway_stranded_connections",
            "Connections that waited on a slot whose process was gone for good, and were closed.",
            _PLACE,
            registry=self._registry,
        )

    def lagged(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def stranded(self, app: str, environment: str, connections: int) -> None:
        self._stranded.labels(app, environment).inc(connections)

    def text(self, seen: Seen) -> bytes:
        self._seen.now = seen
        return prometheus.generate_latest(self._registry)


class _Seen(Collector):
    def __init__(self) -> None:
        self.now = Seen()

    def collect(self) -> Iterator[Metric]:
        seen = self.now
        info = GaugeMetricFamily("rollway_agent_info", "Which agent this is.", labels=["version"])
        info.add_metric([seen.version], 1)
        yield info
        yield GaugeMetricFamily("rollway_link_connected", "Whether a coordinator is connected.", int(seen.connected))
        yield GaugeMetricFamily("rollway_output_unsent_bytes", "Records that wait for a reader.", seen.unsent_bytes)
        yield CounterMetricFamily("rollway_output_sent_bytes", "Bytes of records that were sent.", seen.sent_bytes)
        yield CounterMetricFamily("rollway_output_lost_records", "Records that nobody read.", seen.lost_records)
        yield from _instances(seen.apps)


def _instances(apps: tuple[AppReport, ...]) -> Iterator[Metric]:
    states: Counter[tuple[str, str, str, str, str]] = Counter()
    labels = [*_PLACE, "process"]
    # By slot, for a sum falls when an instance is replaced: each series alone begins anew at 0, as a counter may.
    restarts = CounterMetricFamily("rollway_instance_restarts", "Restarts of an instance.", labels=[*labels, "slot"])
    for app in apps:
        for one in app.instances:
            states[app.app, app.environment, one.process, one.release, one.state] += 1
            restarts.add_metric([app.app, app.environment, one.process, str(one.slot)], one.restarts)
    by_state = GaugeMetricFamily("rollway_instances", "Instances by state.", labels=[*labels, "release", "state"])
    for names, count in states.items():
        by_state.add_metric(names, count)
    yield by_state
    yield restarts
