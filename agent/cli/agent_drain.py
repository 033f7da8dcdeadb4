"""`rollway agent drain`: stop every app of this host in order, by its agent or, where that is dead, in its place.

The host stays drained, whatever agent is started, until `rollway agent undrain` or the next boot.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from agent.cli.output import remark, show
from agent.cli.this_host import add_config, agent_of, duration, settings
from agent.client.agent import Agent, AgentGoneError
from agent.errors import FailedError, RefusedError, SettingsError, UnreachableError
from agent.host import drained, orphans
from agent.linux import service
from agent.model.ids import HostName
from agent.model.roles import AgentSettings
from agent.model.units import Milliseconds
from agent.wire.control import BEAT_S
from agent.wire.sdnotify import Notice

SUMMARY: Final = "Stop every app of this host, in order; it stays drained until undrain or the next boot."
EXTEND_US: Final = 30_000_000
"""How much more time systemd is asked for, at each beat."""
STARTING_S: Final = 15.0
"""How long an agent that holds its state folder may take to answer: it starts, or is about to end."""
AGAIN_S: Final = 0.5
NAMED_MAX: Final = 8
STILL_THERE: Final = (
    "See what it does; asking again goes on with it. `systemctl kill rollway-apps -s SIGKILL` ends all."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--timeout", type=duration, metavar="DURATION", help="Wait no longer (default: as long as the stop policies)."
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 when nothing is left; 1 when something is."""
    chosen = _settings(arguments.config)
    state_dir, run_dir = Path(chosen.state_dir).resolve(), Path(chosen.run_dir).resolve()
    agent, waited_s = agent_of(chosen), 0.0
    while True:
        try:
            return _by_agent(agent, arguments.timeout)
        except AgentGoneError as gone:
            if not state_dir.exists():
                show(f"nothing to drain: no agent was ever in {state_dir}")
                return 0
            _mark(run_dir)  # first, so that an agent which starts meanwhile starts nothing
            lock = _lock(state_dir)
            if lock is not None:
                with os.fdopen(lock):
                    return anyio.run(_by_records, run_dir, arguments.timeout)
            if waited_s >= STARTING_S:
                what_to_do = "An agent holds its state folder: see what it does, `journalctl -u rollway-agent`."
                raise UnreachableError(gone.error, what_to_do) from gone
        _tell_manager("waiting for the agent")
        time.sleep(AGAIN_S)
        waited_s += AGAIN_S


def _by_agent(agent: Agent, timeout_ms: Milliseconds | None) -> int:
    told: tuple[str, ...] = ()
    for progress in agent.progress("/v1/drain", {"timeout_ms": timeout_ms}):
        _tell_manager(_waiting(progress.left))
        if progress.left and progress.left != told:
            told = progress.left
            show(_waiting(told))
        if progress.failure:
            raise FailedError(f"{progress.failure}: {', '.join(progress.left)}", STILL_THERE)
    show("drained by the agent")
    return 0


async def _by_records(run_dir: Path, timeout_ms: Milliseconds | None) -> int:
    """In the place of a dead agent, whose lock is held."""
    remark("rollway: no agent runs; draining by its records")
    found = await to_thread.run_sync(orphans.find, run_dir)
    left = tuple(orphan.name for orphan in found)

    def tell(names: tuple[str, ...]) -> None:
        nonlocal left
        left = names
        if names:
            show(_waiting(names))

    async def beat() -> None:
        while True:
            _tell_manager(_waiting(left))
            await anyio.sleep(BEAT_S)

    survived: tuple[str, ...] = ()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        with anyio.move_on_after(None if timeout_ms is None else timeout_ms / 1000):
            survived = await orphans.drain(found, run_dir, tell)
        tasks.cancel_scope.cancel()
    if left or survived:
        raise FailedError(f"not drained: {', '.join((*left, *survived))}", STILL_THERE)
    show("drained by the records")
    return 0


def _mark(run_dir: Path) -> None:
    """A disk that takes nothing keeps no host from being drained: it may be about to go down."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
        drained.put(run_dir)
    except OSError as error:
        remark(f"rollway: the next agent will not know that this host is drained: {error.strerror}: {error.filename}")


def _lock(state_dir: Path) -> int | None:
    """The lock of the state folder, where no agent holds it."""
    try:
        return service.hold(state_dir, "a drain")
    except RefusedError:
        return None


def _settings(file: str | None) -> AgentSettings:
    """A host that shuts down is drained though its settings are wrong: then where an agent is by default."""
    try:
        return settings(file)
    except SettingsError as error:
        if file is not None:
            raise
        remark(f"rollway: {error.error}; taking the default folders")
        return AgentSettings.below(HostName("localhost"), ())


def _tell_manager(status: str) -> None:
    service.notify(Notice(extend_timeout_us=EXTEND_US, status=status))


def _waiting(left: Sequence[str]) -> str:
    more = f" and {len(left) - NAMED_MAX} more" if len(left) > NAMED_MAX else ""
    return f"draining {len(left)}: {', '.join(left[:NAMED_MAX])}{more}" if left else "drained"
