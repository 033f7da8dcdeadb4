"""`rollway agent balancer`: does a load balancer do what a rollout relies on? Tried with a server that you name.

The server is added to the backend, gets users for a moment, is drained twice and removed: name one that serves the app.
"""

import argparse
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio

from agent.cli.output import show, show_json
from agent.errors import UsageError
from agent.model.address import Address, parse_address
from agent.model.ids import HostName

if TYPE_CHECKING:
    from agent.traffic.conformance import Tried
    from agent.traffic.driver import Driver

SUMMARY: Final = "Try whether a load balancer does what a rollout relies on."
NOBODY: Final = HostName("_try")
"""No host can have this name: what the trial adds is nobody's, and what hosts have there is not touched by it."""
DRAIN_MS: Final = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--socket", action="append", metavar="PATH|HOST:PORT", help="HAProxy's stats socket.")
    parser.add_argument("--backend", help="HAProxy's backend that the server is tried in.")
    parser.add_argument("--exec", dest="command", metavar="COMMAND", help="A hook of yours, in the place of HAProxy.")
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="Where the app can be reached.")
    parser.add_argument("--option", action="append", metavar="WORD", help="A word for the server; else its defaults.")
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, for scripts.")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: it does; 1: a step failed; 2: the words are wrong."""
    try:
        address = parse_address(arguments.server)
    except ValueError as error:
        raise UsageError(f"not a server: {arguments.server!r}", f"Give {error}.") from None
    tried = anyio.run(_tried, arguments, address)
    if arguments.as_json:
        show_json(tried)
    return int(not all(one.well for one in tried))


def _driver(arguments: argparse.Namespace, on_change: Callable[[], None]) -> "Driver":
    from agent.traffic.haproxy import OPTIONS, Haproxy  # noqa: PLC0415 - what the trial needs comes with the trial
    from agent.traffic.hooks import Hooks  # noqa: PLC0415 - what the trial needs comes with the trial

    haproxy = arguments.socket is not None and arguments.backend is not None
    if arguments.command is not None and arguments.socket is None and arguments.backend is None:
        words = tuple(shlex.split(arguments.command))
        if not words:
            raise UsageError("an empty command", "Give the hook and its words: --exec '/usr/local/bin/hook shop'.")
        return Hooks(NOBODY, words, on_change=on_change)
    if not haproxy or arguments.command is not None:
        raise UsageError("no load balancer is named, or two", "Give --socket and --backend, or --exec alone.")
    options = arguments.option or OPTIONS
    return Haproxy(NOBODY, arguments.socket, arguments.backend, options=options, on_change=on_change)


async def _tried(arguments: argparse.Namespace, address: Address) -> "list[Tried]":
    from agent.model.balancer import Wanted, owned_prefix  # noqa: PLC0415 - what the trial needs comes with the trial
    from agent.telemetry import events  # noqa: PLC0415 - what the trial needs comes with the trial
    from agent.traffic.conformance import Changes, trial  # noqa: PLC0415 - what the trial needs comes with the trial

    events.configure(lambda _line: None)  # every change is told by a step
    changes = Changes()
    driver = _driver(arguments, changes.tell)
    tried: list[Tried] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run)
        async for one in trial(driver, changes, Wanted(name=f"{owned_prefix(NOBODY)}1", address=address), DRAIN_MS):
            tried.append(one)
            if not arguments.as_json:
                show(f"[{'+' if one.well else '-'}] {one.step}: {one.found} ({one.took_ms} ms)")
        tasks.cancel_scope.cancel()
    return tried
