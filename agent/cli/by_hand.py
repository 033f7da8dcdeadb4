"""What a person asks of the agent on a host, beside any coordinator: shown, ordered, followed to its end.

Rules: it is always said that this host's agent has answered; with `--json` the answer is JSON alone. Needs no command
line library: `rollway agent VERB` and `rollway VERB` both come here.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

from msgspec import Struct

from agent.cli.moments import ago, read_iso
from agent.cli.output import remark, show, show_json, show_table, words
from agent.cli.records import in_words, printable, read_record
from agent.client.agent import Agent
from agent.errors import FailedError
from agent.linux.clock import now
from agent.model.units import Milliseconds
from agent.wire.control import AgentStatus, Row

COLUMNS: Final = ("HOST", "APP", "ENV", "RELEASE", "INSTANCE", "PID", "STATE", "SINCE", "RESTARTS", "WHY")
NAMED_MAX: Final = 8


WIDE: Final = ("START", "CPU", "CPU TIME", "MEMORY", "THREADS", "FILES")


def show_instances(instances: Sequence[Row], *, as_json: bool, wide: bool = False) -> None:
    """The rows of `ps`, whoever gave them."""
    if as_json:
        show_json(instances)
        return
    now_ms = now().wall_ms
    rows = [
        [
            *(one.host, one.app, one.environment, one.release, one.instance, one.pid, words(one.state)),
            *(ago(read_iso(one.since), now_ms), one.restarts),
            *(_figures(one) if wide else ()),
            one.detail,
        ]
        for one in instances
    ]
    show_table((*COLUMNS[:-1], *(WIDE if wide else ()), COLUMNS[-1]), rows)


def _figures(row: Row) -> Sequence[object]:
    """What is not known is left empty; memory says how it was counted where that is not by its cgroup."""
    start = None if row.start_ms is None else f"{row.start_ms / 1000:.1f} s"
    known = row.figures
    if known is None:
        return (start, *(None for _ in WIDE[1:]))
    cpu = None if known.cpu_percent is None else f"{known.cpu_percent:.1f}%"
    memory = None if known.memory_bytes is None else f"{known.memory_bytes / 2**20:.1f} MiB"
    if memory is not None and known.memory_kind != "cgroup":
        memory += f" {str(known.memory_kind).upper()}"
    return start, cpu, f"{known.cpu_ms / 1000:.1f} s", memory, known.threads, known.open_files


def ps(agent: Agent, app: str | None, environment: str | None, *, as_json: bool, wide: bool) -> None:
    query = {"app": app, "environment": environment, "figures": 1 if wide or as_json else None}
    show_instances(agent.ask("GET", "/v1/instances", list[Row], query), as_json=as_json, wide=wide)
    status = agent.ask("GET", "/v1/status", AgentStatus)
    if status.drained:
        remark("rollway: the host is drained: `rollway agent undrain` starts everything")
    for pin in status.pins:
        remark(f"rollway: {pin.app} {pin.environment} is pinned to {pin.release}: `rollway agent unpin` ends that")
    say_who(agent)


def log_lines(
    agent: Agent, app: str, environment: str | None, process: str | None, slot: int | None, *, lines: int, follow: bool
) -> Iterator[bytes]:
    """Records as they come."""
    query = {"app": app, "environment": environment, "process": process, "slot": slot, "lines": lines}
    return agent.lines("/v1/logs", {**query, "follow": int(follow)})


def in_line(line: bytes, *, as_json: bool) -> str:
    """A record as it is shown."""
    record = None if as_json else read_record(line)
    text = line.decode(errors="replace").rstrip("\n")
    return in_words(record) if record is not None else text if as_json else printable(text)


class Order(Struct, frozen=True, kw_only=True):
    """What is to be done, to which instances."""

    verb: Literal["restart", "stop"]
    app: str
    environment: str | None
    instances: tuple[str, int | None] | None = None
    timeout_ms: Milliseconds | None = None

    @property
    def query(self) -> dict[str, object]:
        process, slot = self.instances or (None, None)
        return {
            "app": self.app,
            "environment": self.environment,
            "process": process,
            "slot": slot,
            "timeout_ms": self.timeout_ms,
        }


def give(agent: Agent, order: Order) -> int:
    """Have it done and tell how far it is, until it is; FailedError where it does not come to its end."""
    told = ""
    for progress in agent.progress(f"/v1/{order.verb}", order.query):
        text = waiting(progress.left)
        if progress.left and text != told:
            told = text
            show(text)
        if progress.failure:
            raise FailedError(
                f"cannot {order.verb}: {progress.failure}", "See `rollway agent ps` and `rollway agent logs`."
            )
    show("restarted" if order.verb == "restart" else "stopped; `rollway restart` starts it again")
    say_who(agent)
    return 0


def waiting(left: Sequence[str]) -> str:
    more = f" and {len(left) - NAMED_MAX} more" if len(left) > NAMED_MAX else ""
    return f"waiting for {len(left)}: {', '.join(left[:NAMED_MAX])}{more}"


def say_who(agent: Agent) -> None:
    remark(f"rollway: answered by this host's agent ({agent.socket}), for this host alone")
