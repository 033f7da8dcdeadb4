"""What an agent has counted and seen as Prometheus text (exposition format 0.0.4).

Rules: names begin with `rollway_`, units come last; a series exists for what is there now, so their number is bounded
by what the host runs. Imported when somebody asks, and in a thread: by then nothing waits for it.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from agent.model.assignment import AppReport
from agent.telemetry.metrics import LAG_BUCKETS_S, Metrics, Seen

_PLACE: Final = ("app", "environment")


def exposition(counted: Metrics, seen: Seen) -> bytes:
    registry = prometheus.CollectorRegistry()
    registry.register(_All(counted, seen))
    prometheus.ProcessCollector(registry=registry)
    return prometheus.generate_latest(registry)


class _All(Collector):
    def __init__(self, counted: Metrics, seen: Seen) -> None:
        self._counted, self._seen = counted, seen

    def collect(self) -> Iterator[Metric]:
        seen = self._seen
        info = GaugeMetricFamily("rollway_agent_info", "Which agent this is.", labels=["version"])
        info.add_metric([seen.version], 1)
        yield info
        yield GaugeMetricFamily("rollway_link_connected", "Whether a coordinator is connected.", int(seen.connected))
        yield GaugeMetricFamily("rollway_output_unsent_bytes", "Records that wait for a reader.", seen.unsent_bytes)
        yield CounterMetricFamily("rollway_output_sent_bytes", "Bytes of records that were sent.", seen.sent_bytes)
        yield CounterMetricFamily("rollway_output_lost_records", "Records that nobody read.", seen.lost_records)
        yield from _instances(seen.apps)
        yield from _counted(self._counted)


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


def _counted(counted: Metrics) -> Iterator[Metric]:
    lag = HistogramMetricFamily("rollway_loop_lag_seconds", "How much later than asked for the event loop came back.")
    bounds = [*map(floatToGoString, LAG_BUCKETS_S), "+Inf"]
    lag.add_metric([], list(zip(bounds, accumulate(counted.lags), strict=True)), counted.lag_s.value)
    lag.add_sample(f"{lag.name}_created", {}, counted.lag_s.since_s)
    yield lag
    stranded = CounterMetricFamily(
        "rollway_stranded_connections",
        "Connections that waited on a slot whose process was gone for good, and were closed.",
        labels=_PLACE,
    )
    for place, count in list(counted.stranded_by_place.items()):  # the loop goes on counting
        stranded.add_metric(place, count.value, created=count.since_s)
    yield stranded
