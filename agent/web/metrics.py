"""`/metrics` of a role, as Prometheus reads it (text format).

Rules: what the metrics are made of is read on the loop, whose own it is; the text is made in a thread, one scrape at a
time, for it takes milliseconds. Whoever collects bounds the number of series.
"""

from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import web
from anyio import CapacityLimiter, to_thread
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

Collect = Callable[[], Iterable[Metric]]


class Exposition:
    """Metrics of one role: those that `collect` gives, and those that the kernel keeps of its process."""

    def __init__(self, collect: Collect) -> None:
        self._collect: Final = collect
        self._process: Final = ProcessCollector(registry=None)
        self._one_at_a_time: Final = CapacityLimiter(1)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/metrics", self._metrics)

    async def _metrics(self, _request: web.Request) -> web.Response:
        taken = _Taken((*self._collect(),), self._process)
        text = await to_thread.run_sync(generate_latest, taken, limiter=self._one_at_a_time)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Taken(Collector):
    """What was collected on the loop, and what any thread may look up."""

    def __init__(self, metrics: tuple[Metric, ...], process: Collector) -> None:
        self._metrics = metrics
        self._process = process

    def collect(self) -> Iterable[Metric]:
        return (*self._metrics, *self._process.collect())
