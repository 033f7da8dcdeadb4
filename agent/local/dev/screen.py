"""The one output of `rollway dev`: lines of all instances, and its own, each behind its margin; whole, and in turn.

Rules: everything goes through one writer, which waits for who reads it, and so do the instances then. What libraries of
ours log is one of our own lines. Colours are given by type, in the order of the file.
"""

import itertools
from collections.abc import Sequence
from typing import Final

from structlog.typing import EventDict

from agent.local.dev import words
from agent.local.dev.plan import slots
from agent.model.process import ProcessType
from agent.supervisor.logs import Lines
from agent.telemetry import events
from agent.telemetry.output import Stdout
from agent.wire.logline import Source
from agent.wire.plainline import SIGNS, Margin, PlainLines

OURS: Final = "rollway"
_COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Cyan, yellow, green, magenta, blue, and the same again, bright. Red would say that something is wrong."""
_BOLD: Final = 1


class Screen:
    """Made within the event loop; `stdout.run` is its owner's task."""

    def __init__(self, processes: Sequence[ProcessType], *, coloured: bool, besides: Sequence[str] = ()) -> None:
        """`besides` are instances of no process type."""
        self.stdout: Final = Stdout()
        instances = (f"{process.name}.{slot}" for process in processes for slot in slots(process))
        self._width = max(map(len, (OURS, *besides, *instances)))
        self._coloured = coloured
        names = [process.name for process in processes]
        self._colours: dict[str, int] = dict(zip(names, itertools.cycle(_COLOURS), strict=False))
        self._ours = self._margin(OURS, _BOLD)
        events.configure(self.stdout.put, self._event)

    def lines(self, source: Source, inside: bool) -> Lines:  # noqa: FBT001 - as `supervisor.logs.LinesOf` says
        """What makes lines of the output of an instance."""
        margin = self._margin(source.instance, self._colours.get(source.process, _BOLD))
        return PlainLines(margin, source.stream, inside=inside)

    def say(self, line: str) -> None:
        """A line of our own; never waits."""
        self.stdout.put(self._line(line))

    def _event(self, event: EventDict) -> bytes:
        told = {key: value for key, value in event.items() if key not in ("ts", "level", "event")}
        return self._line(words.with_fields(str(event["event"]), told))

    def _line(self, line: str) -> bytes:
        shown = "".join(c if c.isprintable() else " " for c in line)
        return self._ours.line(SIGNS["stdout"], shown.encode(errors="replace"))

    def _margin(self, name: str, colour: int) -> Margin:
        return Margin(name=name, width=self._width, colour=colour if self._coloured else None)
