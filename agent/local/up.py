"""`rollway up`: a coordinator and N agents on this machine, as child processes, until Ctrl-C.

Rules: refused before anything starts: a folder or a block of addresses that another `up` holds, an address that is
taken. The agents that an `up` that was killed has left here are ended and followed by others, which take up what runs;
if none comes in time they drain by themselves, and that is waited for. At the end agents drain first,
then the coordinator ends, then whatever they could not end is killed: no process is left behind, and nobody who does
not read our output can hold that up. Not handled here: what the children do.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Struct

from agent.client.context import Context, read_context
from agent.client.coordinator import Coordinator
from agent.errors import FailedError, RefusedError, RollwayError, UsageError
from agent.linux import procfs, service
from agent.linux.sockets import port_in_use
from agent.local import layout, leftovers, net
from agent.local.children import Child
from agent.model.address import Address
from agent.telemetry.output import Stdout

HOSTS_DEFAULT: Final = 3
_CONNECTED_S: Final = 20
_LOOK_S: Final = 0.05
_STOP_MAX_S: Final = 180
"""An agent bounds its drain by itself; this is for one that hangs."""
_STOP_COORDINATOR_S: Final = 15
_FLUSH_S: Final = 2
_CHUNK_BYTES: Final = 1 << 16


class Ready(Struct, frozen=True, kw_only=True):
    """The fleet, once it can be used."""

    hosts: list[layout.Host]
    coordinator: str
    config: str
    """The client.toml for ROLLWAY_CONFIG."""


def run(folder: Path, hosts: int | None, asked: str | None, announce: Callable[[Ready], None]) -> None:
    """Be `up` until a signal ends it. Raises RollwayError when it cannot start."""
    if hosts is not None and not 1 <= hosts <= net.HOSTS_MAX:
        raise UsageError(f"cannot have {hosts} hosts", f"Give 1 to {net.HOSTS_MAX}.")
    block = net.parse_block(asked) if asked is not None else None
    place = layout.Layout(folder.absolute())
    folder_lock = layout.hold(place.folder)
    lock = net.lock_block(block, place.last_block(), runs_here=_runs_here(place))
    try:
        _await_earlier(place)
        fleet = layout.prepare(place, lock.block, hosts or place.known_hosts() or HOSTS_DEFAULT)
        refuse_taken(lock.block, fleet)
        anyio.run(_Up(place, fleet, announce).run)
    finally:
        lock.socket.close()
        os.close(folder_lock)


def _runs_here(place: layout.Layout) -> bool:
    """Whether an `up` that was killed has left a coordinator, agents or instances."""
    return any(map(service.is_held, place.state_folders())) or bool(procfs.marks(leftovers.mark(place.hosts_folder)))


def _await_earlier(place: layout.Layout) -> None:
    """End what an `up` that was killed has left, agents and coordinator alone: what runs waits for their successors."""
    until_s = time.monotonic() + _STOP_MAX_S
    left = [pid for folder in place.state_folders() if (pid := service.holder(folder)) is not None]
    if left:
        _say("an earlier one was killed here; taking over what its hosts run")
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    while held := next(filter(service.is_held, place.state_folders()), None):
        if time.monotonic() > until_s:
            raise RefusedError(f"{held} is still in use by an earlier `rollway up`", "End what holds it: `fuser -v`.")
        time.sleep(_LOOK_S)


def refuse_taken(block: net.Block, fleet: list[layout.Host]) -> None:
    """Raise RefusedError when somebody else listens where a child is to listen."""
    wanted = [Address(block.coordinator, layout.COORDINATOR_PORT)]
    wanted += [Address(host.address, layout.HTTP_PORT) for host in fleet]
    for address in wanted:
        used = port_in_use(address)
        if used is not None:
            who = f"pid {used.pid} ({used.command})" if used.pid else "another process"
            raise RefusedError(f"{address} is in use by {who}", "End it, or give another --net.")


class _Up:
    """One run of `up`."""

    def __init__(self, place: layout.Layout, fleet: list[layout.Host], announce: Callable[[Ready], None]) -> None:
        self._place = place
        self._fleet = fleet
        self._announce = announce
        self._lifeline, self._our_end = os.pipe()
        self._announced = anyio.Event()
        self._coordinator = self._child("coordinator", ["coordinator", "run", "--config", str(place.coordinator_file)])
        self._agents = [
            self._child(host.name, ["agent", "run", "--config", str(place.agent_file(host.name))]) for host in fleet
        ]

    def _child(self, name: str, words: list[str]) -> Child:
        return Child(name, words, self._place.folder, lifeline=self._lifeline, say=_say)

    async def run(self) -> None:
        failure: RollwayError | None = None
        async with anyio.create_task_group() as relay:
            relay.start_soon(self._relay)
            try:
                async with anyio.create_task_group() as children:
                    try:
                        with anyio.CancelScope() as serving:
                            await children.start(self._end_at_signal, serving)
                            await self._serve(children)
                    except RollwayError as error:
                        failure = error
                    finally:
                        with anyio.CancelScope(shield=True):
                            await self._stop()
                    children.cancel_scope.cancel()
            finally:
                self._announced.set()
                relay.cancel_scope.deadline = anyio.current_time() + _FLUSH_S
        for fd in (self._lifeline, self._our_end):
            os.close(fd)
        if failure is not None:
            raise failure

    async def _serve(self, children: TaskGroup) -> None:
        children.start_soon(self._coordinator.run)
        await _until_ready(self._coordinator)
        for child in self._agents:
            children.start_soon(child.run)
        for child in self._agents:
            await _until_ready(child)
        context = read_context(self._place.client_file.read_text(), str(self._place.client_file))
        await self._until_connected(context)
        self._announce(Ready(hosts=self._fleet, coordinator=context.coordinator, config=str(self._place.client_file)))
        self._announced.set()
        await anyio.sleep_forever()

    async def _relay(self) -> None:
        """Let the children's output through, after the line that says that they are ready."""
        await self._announced.wait()
        stdout = Stdout()
        async with anyio.create_task_group() as tasks:
            await tasks.start(stdout.run)
            async with anyio.create_task_group() as readers:
                readers.start_soon(_pass_on, self._coordinator, stdout, None)
                for child in self._agents:
                    readers.start_soon(_pass_on, child, stdout, child.name)
            await stdout.flush()
            tasks.cancel_scope.cancel()

    async def _until_connected(self, context: Context) -> None:
        """Wait until the coordinator has a link from every host."""
        names = {host.name for host in self._fleet}
        async with Coordinator(context) as coordinator:
            with anyio.move_on_after(_CONNECTED_S):
                while names:
                    status = await coordinator.status()
                    names -= {host.host for host in status.hosts if host.connected}
                    await anyio.sleep(_LOOK_S if names else 0)
        if names:
            raise FailedError(
                f"{', '.join(sorted(names))} did not connect to the coordinator in {_CONNECTED_S} s",
                "Look at what the agents write, above.",
            )

    async def _end_at_signal(
        self, serving: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if serving.cancel_called:
                    _say("killing what still runs")
                    for child in (*self._agents, self._coordinator):
                        child.stop(signal.SIGKILL)
                else:
                    _say("draining; once more to kill")
                    serving.cancel()

    async def _stop(self) -> None:
        """End agents, then the coordinator, then what is left."""
        self._announced.set()
        for child in (*self._agents, self._coordinator):
            child.close()
        await _end(self._agents, _STOP_MAX_S, signal.SIGINT)
        await _end([self._coordinator], _STOP_COORDINATOR_S, signal.SIGTERM)
        killed = await anyio.to_thread.run_sync(leftovers.end, self._place.hosts_folder)
        if killed:
            _say(f"killed what an agent left behind: {', '.join(map(str, killed))}")


async def _pass_on(child: Child, stdout: Stdout, host: str | None) -> None:
    """Whole lines only: those of several children share one output. What an agent writes is marked with its host."""
    rest = b""
    await anyio.wait_readable(child.output)
    while chunk := os.read(child.output, _CHUNK_BYTES):
        lines, newline, rest = (rest + chunk).rpartition(b"\n")
        await stdout.write(marked(lines + newline, host))
        await anyio.wait_readable(child.output)
    await stdout.write(marked(rest, host))
    os.close(child.output)


def marked(lines: bytes, host: str | None) -> bytes:
    """`lines` with the host's name in front in each JSON object, as journald adds it on a real host."""
    if host is None:
        return lines
    return (b"\n" + lines).replace(b'\n{"', b'\n{"host":"%b","' % host.encode())[1:]


async def _until_ready(child: Child) -> None:
    if not await child.is_ready():
        raise FailedError(f"the {child.name} {child.ending} before it was ready", "Look at what it wrote, above.")


async def _end(children: list[Child], seconds: float, number: signal.Signals) -> None:
    """Ask `children` to end and wait until they have; kill those that have not in time."""
    started = [child for child in children if child.started]
    for child in started:
        child.stop(number)
    with anyio.move_on_after(seconds):
        for child in started:
            await child.ended.wait()
    for child in started:
        if not child.ended.is_set():
            _say(f"{child.name} does not end: killing it")
            child.stop(signal.SIGKILL)
            await child.ended.wait()


def _say(line: str) -> None:
    """Tell the person, if there still is one."""
    with suppress(OSError):
        sys.stderr.write(f"rollway up: {line}\n")
        sys.stderr.flush()
