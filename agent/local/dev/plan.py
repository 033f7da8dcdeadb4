"""What `rollway dev` decides: what is run, in which order it starts and ends, who gets connections. Pure.

Rules: only what was asked for runs; `after` counts among that. A type begins once all instances of those it comes after
have been ready, and is stopped only when none that comes after it is left. A type that has begun is the supervisor's.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.process.instance import WAIT_ON_SLOT_MS
from agent.decisions.swap.state import InstanceView, Route
from agent.errors import UsageError
from agent.model.address import Address, parse_address
from agent.model.ids import ProcessName
from agent.model.process import AppSpec, HttpCheck, ProcessType
from agent.model.units import Instant, elapsed_ms

RESTART_MS_MAX: Final = 10_000
"""A person who corrects the code does not wait five minutes for the next try."""
_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - the same
_COUNT_MAX: Final = 64


class Asked(Struct, frozen=True, kw_only=True):
    """The words of the command."""

    types: tuple[str, ...] = ()
    """Empty: all."""
    counts: Mapping[str, int] = {}
    every: bool = False
    """As many of each type as its `count` says, in the place of one."""
    port: int | None = None
    host: str = "127.0.0.1"
    """In the place of a wildcard address."""


def chosen(spec: AppSpec, asked: Asked) -> tuple[ProcessType, ...]:
    """The process types to run, as they are to run here. Raises UsageError."""
    known = [process.name for process in spec.processes]
    for name in (*asked.types, *asked.counts):
        if name not in known:
            raise UsageError(f"{spec.app} has no process type {name!r}", f"It has {', '.join(known)}.")
    left_out = [name for name in asked.counts if asked.types and name not in asked.types]
    if left_out:
        raise UsageError(f"{left_out[0]} has a count and is not among the types to run", "Name it, or leave it out.")
    wanted = [process for process in spec.processes if not asked.types or process.name in asked.types]
    counted = [replace(process, count=_count(process, asked)) for process in wanted]
    running = [process for process in counted if process.count > 0]
    if not running:
        raise UsageError("nothing is to be run: every count is 0", "Give a type a count of 1 or more.")
    return tuple(_here(process, running) for process in _with_port(running, asked.port))


def _count(process: ProcessType, asked: Asked) -> int:
    count = asked.counts.get(process.name, process.count if asked.every else 1)
    if not 0 <= count <= _COUNT_MAX:
        raise UsageError(f"cannot run {count} of {process.name}", f"Give 0 to {_COUNT_MAX}.")
    if count > 1 and process.bind == "port":
        raise UsageError(
            f"cannot run {count} of {process.name}: it binds its port itself, and a port has one owner",
            'Give it sockets: `listen`, without bind = "port", in rollway.toml.',
        )
    return count


def _with_port(processes: Sequence[ProcessType], port: int | None) -> Iterator[ProcessType]:
    """The first address of the first type that listens gets `port`."""
    first = next((process.name for process in processes if process.listen), None)
    if port is not None and first is None:
        raise UsageError(f"nobody can listen on port {port}: no process type that runs has `listen`", "Leave it out.")
    for process in processes:
        if port is not None and process.name == first:
            moved = Address(parse_address(process.listen[0]).host, port)
            yield replace(process, listen=(str(moved), *process.listen[1:]))
        else:
            yield process


def _here(process: ProcessType, running: Sequence[ProcessType]) -> ProcessType:
    names = {other.name for other in running}
    restart = process.restart
    slowest = min(restart.max_delay_ms, RESTART_MS_MAX)
    restart = replace(restart, base_delay_ms=min(restart.base_delay_ms, slowest), max_delay_ms=slowest)
    after = tuple(name for name in process.after if name in names)
    # Here is no environment of several hosts, in which one could be the only one.
    return replace(process, restart=restart, after=after, singleton=False, total=0)


def addresses(process: ProcessType, host: str) -> tuple[Address, ...]:
    """Where its sockets listen: a wildcard is `host`, but for a type that binds its port itself, wherever it wants."""
    found = (parse_address(text) for text in process.listen)
    if process.bind == "port":
        return tuple(found)
    return tuple(Address(host, address.port) if address.host in _ANYWHERE else address for address in found)


def url(process: ProcessType, address: Address) -> str:
    """Where a person finds it."""
    speaks_http = process.name == "web" or any(
        probe is not None and isinstance(probe.check, HttpCheck)
        for probe in (process.probes.startup, process.probes.readiness, process.probes.liveness)
    )
    shown = f"{_LOOPBACK[address.host]}:{address.port}" if address.host in _LOOPBACK else str(address)
    return f"http://{shown}" if speaks_http else shown


# While it runs


def beginning(
    processes: Sequence[ProcessType], begun: Collection[ProcessName], was_ready: Collection[tuple[ProcessName, int]]
) -> tuple[ProcessType, ...]:
    """The types that may begin now."""
    complete = {
        process.name for process in processes if all((process.name, slot) in was_ready for slot in slots(process))
    }
    return tuple(one for one in processes if one.name not in begun and complete.issuperset(one.after))


def ending(processes: Sequence[ProcessType], views: Sequence[InstanceView]) -> tuple[InstanceView, ...]:
    """The instances that may be stopped now, of those that live."""
    living = {view.process for view in views if view.state != "stopped"}
    held = {name for process in processes if process.name in living for name in process.after}
    return tuple(view for view in views if view.process in living - held and view.state != "stopped")


def slots(process: ProcessType) -> range:
    return range(1, process.count + 1)


def route(process: ProcessType, views: Sequence[InstanceView], now: Instant) -> Route:
    """Who gets the connections of a type: who is ready; while nobody is, they wait a while for who may be soon."""
    own = [view for view in views if view.process == process.name]
    ready = tuple(view.slot for view in own if view.state == "ready")
    soon = tuple(
        view.slot
        for view in own
        if view.state in ("starting", "backoff") and elapsed_ms(view.since, now) < WAIT_ON_SLOT_MS
    )
    waits = not ready and process.when_none_ready == "wait"
    return Route(process=process.name, admitted=ready, waiting=soon if waits else ())
