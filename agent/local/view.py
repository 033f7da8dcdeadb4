"""What a person sees of the demo: on a terminal the fleet, live; in a pipe one line per event; at the end the table."""

import textwrap
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import anyio
from msgspec import Struct
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.local.load import Tally
from agent.wire.control import Row

_EVENTS_SHOWN: Final = 14
_COLOURS: Final = {"ready": "green", "starting": "yellow", "unready": "red", "draining": "cyan", "backoff": "red"}


class Proof(Struct, frozen=True):
    """One thing that the demo promised, and whether it was so."""

    promise: str
    held: bool
    found: str


class View:
    """Events as they happen, and on a terminal the fleet above them."""

    def __init__(self, *, live: bool, beside: bool) -> None:
        """`beside`: everything goes to stderr, because stdout has something else to carry."""
        self._console = Console(markup=False, highlight=False, soft_wrap=True, stderr=beside)
        self._live = Live(console=self._console, auto_refresh=False) if live else None
        self._began_s = anyio.current_time()
        self._events: deque[str] = deque(maxlen=_EVENTS_SHOWN)
        self._instances: Sequence[Row] = ()
        self._tally = Tally()
        self._away = False

    @property
    def is_live(self) -> bool:
        return self._live is not None

    def open(self) -> AbstractContextManager[object]:
        return self._live or nullcontext()

    def event(self, words: str) -> None:
        line = f"{anyio.current_time() - self._began_s:6.1f} s  {words}"
        self._events.append(line)
        if self._live is None:
            self._write(line)
        else:
            self._draw()

    def fleet(self, instances: Sequence[Row], tally: Tally) -> None:
        self._instances, self._tally, self._away = instances, tally, False
        self._draw()

    def away(self, tally: Tally) -> None:
        """The coordinator does not answer: the fleet is as it was last seen."""
        self._tally, self._away = tally, True
        self._draw()

    def end(self, figures: Sequence[tuple[str, str]], proofs: Sequence[Proof]) -> None:
        """Write the figures and the proofs, below everything else."""
        self._write("")
        width = max(len(name) for name, _ in figures)
        for name, value in figures:
            self._write(f"  {name:<{width}}  {value}", indent=width + 4)
        self._write("")
        for proof in proofs:
            self._write(f"  {'held  ' if proof.held else 'BROKEN'}  {proof.promise}: {proof.found}", indent=10)

    def _write(self, line: str, indent: int = 0) -> None:
        """A line; on a terminal it is broken between words, and goes on at `indent`."""
        parts = textwrap.wrap(line, self._console.width, subsequent_indent=" " * indent) if self._live else [line]
        for part in parts or [""]:
            self._console.print(Text(part))
        self._console.file.flush()

    def _draw(self) -> None:
        if self._live is None:
            return
        self._live.update(self.drawn(), refresh=True)

    def drawn(self) -> Group:
        """The whole picture: the coordinator, the fleet, the load, the newest events."""
        tally = self._tally
        coordinator = "coordinator: down; the fleet as it was last seen" if self._away else "coordinator: up"
        load = f"{tally.fresh + tally.kept} requests, {tally.orders} orders, {tally.failed} failed or wrong"
        lines = (Text(load), Text(""), *(Text(event, no_wrap=False, overflow="fold") for event in self._events))
        return Group(Text(coordinator, "red" if self._away else ""), self._fleet(), *lines)

    def _fleet(self) -> Table | Text:
        if not self._instances:
            return Text("no instance yet", "dim")
        fleet = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        hosts = sorted({instance.host for instance in self._instances})
        fleet.add_column("")
        for host in hosts:
            fleet.add_column(host)
        for name in sorted({instance.instance for instance in self._instances}):
            fleet.add_row(name, *(self._cell(host, name) for host in hosts))
        return fleet

    def _cell(self, host: str, name: str) -> Text:
        """The releases and states of one instance's place on one host: two while one drains."""
        cell = Text()
        for instance in self._instances:
            if (instance.host, instance.instance) == (host, name):
                cell.append(
                    f"{instance.release} {instance.state.replace('_', ' ')}  ", _COLOURS.get(instance.state, "")
                )
        return cell
