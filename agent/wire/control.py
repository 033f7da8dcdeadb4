"""The words of the agent's own socket: what it answers to `rollway` on its host, as JSON, one object per line.

Rules: both ends are of one installation, but perhaps not of one age while it is upgraded: fields have defaults, and
what is not known is passed over.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from agent.model.assignment import AppReport, InstanceState
from agent.model.figures import Figures, InstanceFigures
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName, ReleaseName
from agent.model.units import iso

SOCKET: Final = "agent.sock"
"""Its name in the agent's run folder."""
GROUP: Final = "rollway"
"""Whose members may speak with the agent, beside root and the agent's own user."""
BEAT_S: Final = 5.0
"""A `Progress` comes at least so often."""


class Row(Struct, frozen=True, kw_only=True):
    """One instance, as `ps --json` shows it, whoever was asked: a coordinator gives the same."""

    host: HostName
    app: AppName
    environment: EnvironmentName
    release: ReleaseName
    process: ProcessName
    instance: str
    pid: int | None
    state: InstanceState
    since: str
    restarts: int
    detail: str = ""
    start_ms: int | None = None
    figures: Figures | None = None
    """Told where they are asked for and known."""


def rows(host: HostName, told: AppReport, known: Iterable[InstanceFigures] = ()) -> Iterator[Row]:
    """The instances of one app and environment on one host, with what is known of their use."""
    figures = {
        (one.process, one.slot): one.figures
        for one in known
        if (one.app, one.environment) == (told.app, told.environment)
    }
    for one in told.instances:
        yield Row(
            host=host,
            app=told.app,
            environment=told.environment,
            release=one.release,
            process=one.process,
            instance=one.name,
            pid=one.pid,
            state=one.state,
            since=iso(one.since_ms),
            restarts=one.restarts,
            detail=one.detail,
            start_ms=one.start_ms,
            figures=figures.get((one.process, one.slot)) if one.pid is not None else None,
        )


class Link(Struct, frozen=True):
    """Whether the agent is connected to a coordinator, and since when; 0: it never was otherwise."""

    up: bool = False
    since_ms: int = 0
    reason: str = ""
    """Why it is not, as far as it is known."""
    what_to_do: str = ""
    """In the words of a coordinator that refused it."""


class Pin(Struct, frozen=True):
    """An app that stays at a release, whatever is assigned."""

    app: AppName
    environment: EnvironmentName
    release: ReleaseName


class AgentStatus(Struct, frozen=True, kw_only=True):
    """What the agent says of itself."""

    host: HostName
    version: str
    pid: int
    since_ms: int
    drained: bool = False
    linked: bool = False
    link_since_ms: int = 0
    link_reason: str = ""
    link_what_to_do: str = ""
    pins: tuple[Pin, ...] = ()


class WentBack(Struct, frozen=True, kw_only=True):
    """The release to which an app was pinned, or released."""

    environment: EnvironmentName
    release: ReleaseName | None


class Progress(Struct, frozen=True, kw_only=True):
    """How far something is that takes its time; the last one is `done` or has a `failure`."""

    left: tuple[str, ...] = ()
    """What is waited for, by name."""
    done: bool = False
    failure: str = ""
