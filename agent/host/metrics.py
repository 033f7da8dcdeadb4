"""What the agent tells Prometheus, and the service manager in one line, about itself and what it runs.

Rules: no series per instance, slot, release or pid, which come and go without end, but one per process type and state,
of at most `TYPES_MAX` types; how many are left out is told. Counters begin at 0 with each agent, as Prometheus expects.
Not handled here: the loop's lag (telemetry.pulse), and what the kernel knows of the process (web.metrics).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Final, NamedTuple, get_args

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from agent.model.assignment import InstanceState
from agent.model.ids import AppName, EnvironmentName, ProcessName
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.supervisor import Supervisor
from agent.telemetry.output import Stdout

TYPES_MAX: Final = 500
_STATES: Final[tuple[InstanceState, ...]] = get_args(InstanceState)
_LABELS: Final = ("app", "environment", "process")


class Kind(NamedTuple):
    """A process type on this host."""

    app: AppName
    environment: EnvironmentName
    process: ProcessName


class Metrics:
    """`heard` is told every event of every instance; `collect` reads the rest where it is."""

    def __init__(self, supervisor: Supervisor, stdout: Stdout, is_linked: Callable[[], bool]) -> None:
        self._supervisor: Final = supervisor
        self._stdout: Final = stdout
        self._is_linked: Final = is_linked
        self._restarts: Counter[Kind] = Counter()
        self._stranded: Counter[Kind] = Counter()

    def heard(self, key: InstanceKey, event: str, details: Mapping[str, str | int]) -> None:
        kind = Kind(key.app, key.environment, key.process)
        if event == "started" and int(details["launch"]) > 1:
            self._restarts[kind] += 1
        elif event == "stranded connections were closed":
            self._stranded[kind] += int(details["connections"])

    def status(self) -> str:
        """The agent in one line."""
        states = Counter(view.state for _, view in self._supervisor.every_view())
        told = ", ".join(f"{states[state]} {state.replace('_', ' ')}" for state in _STATES if states[state])
        return f"instances: {told or 'none'}; {'linked to' if self._is_linked() else 'without'} a coordinator"

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("rollway_build", "The agent.", value={"version": version("rollway")})
        states: dict[Kind, Counter[str]] = {}
        for key, view in self._supervisor.every_view():
            states.setdefault(Kind(key.app, key.environment, key.process), Counter())[view.state] += 1
        yield _instances(states)
        restarts = CounterMetricFamily("rollway_restarts", "Starts of an instance after its first.", labels=_LABELS)
        yield _with(restarts, self._restarts)
        stranded = CounterMetricFamily(
            "rollway_stranded_connections", "Connections that nobody took and that were closed.", labels=_LABELS
        )
        yield _with(stranded, self._stranded)
        left_out = sum(max(0, len(kinds) - TYPES_MAX) for kinds in (states, self._restarts, self._stranded))
        yield GaugeMetricFamily("rollway_types_left_out", "Process types beyond the bound.", value=left_out)
        yield GaugeMetricFamily("rollway_link_up", "1 while a coordinator is connected.", value=self._is_linked())
        yield from self._logs()

    def _logs(self) -> Iterator[Metric]:
        totals = self._supervisor.log_totals
        lost = totals.dropped + self._stdout.lost_total
        yield CounterMetricFamily("rollway_log_records", "Records made of what instances wrote.", value=totals.records)
        yield CounterMetricFamily("rollway_log_bytes", "Bytes of these records.", value=totals.size_bytes)
        yield CounterMetricFamily("rollway_log_records_lost", "Records without room or reader.", value=lost)


def _instances(states: Mapping[Kind, Mapping[str, int]]) -> Metric:
    """Every state of a type that is here, so that none goes stale when the last instance leaves it."""
    family = GaugeMetricFamily("rollway_instances", "Instances by state.", labels=(*_LABELS, "state"))
    for kind in sorted(states)[:TYPES_MAX]:
        for state in _STATES:
            family.add_metric((*kind, state), states[kind][state])
    return family


def _with(family: CounterMetricFamily, counted: Counter[Kind]) -> Metric:
    for kind in sorted(counted)[:TYPES_MAX]:
        family.add_metric(kind, counted[kind])
    return family
