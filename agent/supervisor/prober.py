"""Asks an instance how it is, over its own slot, and what it still has in hand; answers are findings, never errors.

Rules: every question is bounded by the probe's timeout, and its answer in bytes. HTTP as the kubelet does it: no
keep-alive, no proxy, any certificate will do, redirects followed on the same host only. On a slot a connection counts
only once a process has taken it (`knock`). That we have no descriptor to ask with is no finding: no app is ended for
what its agent lacks.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final

import aiohttp
import anyio
from anyio import to_thread
from yarl import URL

from agent.decisions.process.state import ConnectionsLeft
from agent.errors import unreachable
from agent.linux import inetdiag, procfs, sockets
from agent.linux.killtree import Tree, members
from agent.model.address import Address
from agent.model.process import ExecCheck, HttpCheck, NotifyCheck, Probe, TcpCheck
from agent.model.units import Milliseconds
from agent.supervisor.finding import Finding
from agent.supervisor.knock import (
    FIRST_LOOK_S,
    LOOK_AGAIN_S,
    Knock,
    Told,
    cannot_connect,
    connecting,
    is_taken,
    knock,
    made,
    no_answer,
)
from agent.supervisor.launchable import Launchable, Target

USER_AGENT: Final = "rollway-probe/1"
REDIRECTS_MAX: Final = 10
BODY_BYTES_MAX: Final = 10 * 1024
PLACES_MAX: Final = 4
LOOPBACK: Final = "127.0.0.1"
Check = HttpCheck | TcpCheck | ExecCheck | NotifyCheck
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class _Question:
    """That is being asked."""

    def __init__(self) -> None:
        self.over: Final = anyio.Event()
        self.is_answered = False
        self.finding: Finding | None = None


class Prober:
    """For one instance: opened with it and closed with it."""

    def __init__(self, launchable: Launchable) -> None:
        self._launchable: Final = launchable
        self._session: aiohttp.ClientSession | None = None
        self._asked: dict[tuple[Check, Milliseconds], _Question] = {}
        self._knocks: dict[Milliseconds, Knock] = {}

    async def __aenter__(self) -> None:
        """Nothing is opened before it is needed."""

    def _http(self, target: Target) -> aiohttp.ClientSession:
        """Made for the first question by HTTP: many instances are never asked any."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    local_addr=(target.source, 0) if target.source else None,
                    socket_factory=None if target.mark is None else lambda _: made(target),
                    force_close=True,
                    limit=0,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def knock(self, probe: Probe, told: Told) -> Callable[[], None] | None:
        """Ask without a task, where that can be done, and tell; what takes it back, or None where it is to `check`.

        One answer is for all who ask the same meanwhile.
        """
        target = self._launchable.target
        if not isinstance(probe.check, TcpCheck) or probe.check.port is not None:
            return None
        if target is None or not self._launchable.listeners:
            return None
        within_ms = probe.timeout_ms
        if (knocked := self._knocks.get(within_ms)) is None:
            if (knocked := knock(target, within_ms, partial(self._knocks.__delitem__, within_ms))) is None:
                return None
            self._knocks[within_ms] = knocked
        return knocked.tell(told)

    async def check(self, probe: Probe) -> Finding | None:
        """How it is; None where nobody could ask. One answer is for all who ask the same meanwhile."""
        what = probe.check, probe.timeout_ms
        while (asked := self._asked.get(what)) is not None:
            await asked.over.wait()
            if asked.is_answered:
                return asked.finding
        asked = self._asked[what] = _Question()
        try:
            asked.finding = await self._answer(probe)
            asked.is_answered = True
        finally:
            del self._asked[what]
            asked.over.set()
        return asked.finding

    async def _answer(self, probe: Probe) -> Finding | None:
        try:
            with anyio.fail_after(probe.timeout_ms / 1_000):
                return await self._ask(probe.check)
        except TimeoutError:
            return no_answer(probe.timeout_ms)
        except aiohttp.ClientConnectorError as error:
            return _cannot_connect(error.os_error)
        except (aiohttp.ClientError, ValueError) as error:
            return Finding(ok=False, detail=f"no answer that can be read: {error!r}")
        except OSError as error:
            return _cannot_connect(error)

    async def _ask(self, check: Check) -> Finding:
        target = self._launchable.target
        if isinstance(check, TcpCheck) and check.port is not None:
            return await _connect(Target(target.host if target else LOOPBACK, check.port))
        if target is None:
            return Finding(ok=False, detail="it listens nowhere")
        if isinstance(check, HttpCheck):
            return await _get(self._http(target), check, target)
        if isinstance(check, NotifyCheck | ExecCheck):
            unreachable(check)
        return await self._accepts(target)

    async def _accepts(self, target: Target) -> Finding:
        """Whether somebody takes a connection from the slot, or listens on the port that is the instance's own."""
        if not self._launchable.listeners:
            return await _connect(target)
        with connecting(target) as ours:
            await _connected(ours, target)
            pause_s = FIRST_LOOK_S
            while True:
                await anyio.sleep(pause_s)
                if is_taken(ours):
                    return Finding(ok=True)
                pause_s = LOOK_AGAIN_S


def _cannot_connect(error: OSError) -> Finding | None:
    if isinstance(error, ssl.SSLError):
        return Finding(ok=False, detail=f"no answer over TLS: {(error.reason or 'it ends').replace('_', ' ').lower()}")
    return cannot_connect(error)


async def _connected(ours: socket.socket, target: Target) -> None:
    code = ours.connect_ex((target.host, target.port))  # how far the first one came
    if code == errno.EALREADY:
        await asyncio.get_running_loop().sock_connect(ours, (target.host, target.port))
    elif code not in (0, errno.EISCONN):
        raise OSError(code, os.strerror(code))


async def _connect(target: Target) -> Finding:
    _, writer = await asyncio.open_connection(target.host, target.port)
    writer.close()
    return Finding(ok=True)


async def _get(session: aiohttp.ClientSession, check: HttpCheck, target: Target) -> Finding:
    url = URL.build(scheme="https" if check.tls else "http", host=target.host, port=target.port).join(URL(check.path))
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", **dict(check.headers)}
    name = None
    if check.host is not None:
        headers["Host"] = check.host
        name = URL.build(scheme="https", authority=check.host).host if check.tls else None
    status = 0
    for _ in range(REDIRECTS_MAX + 1):
        asked = session.get(url, headers=headers, allow_redirects=False, ssl=False, server_hostname=name)
        async with asked as response:
            await _read_some(response.content)
            status, location = response.status, response.headers.get("Location")
        onward = url.join(URL(location)) if status in _REDIRECTS and location else None
        # A redirect to elsewhere is an answer like any other: nobody else is asked how this instance is.
        if onward is None or onward.origin() != url.origin():
            break
        url = onward
    ok = check.status_from <= status <= check.status_to
    remark = f"{check.path} answered {status}: a redirect that is not followed" if ok and status in _REDIRECTS else ""
    return Finding(ok=ok, detail=f"{check.path} answered {status}", remark=remark)


async def _read_some(body: aiohttp.StreamReader) -> None:
    left = BODY_BYTES_MAX
    while left > 0 and (chunk := await body.read(left)):
        left -= len(chunk)


async def connections_left(launchable: Launchable, tree: Tree) -> ConnectionsLeft:
    """What the instance still has in hand, and what waits for it."""
    port = launchable.target.port if launchable.target else 0
    found = await to_thread.run_sync(lambda: inetdiag.connections(port, procfs.socket_inodes(_pids(tree))))
    return ConnectionsLeft(
        queued=sum(listener.queue_length() for listener in launchable.listeners),
        established=found.established,
        syn_received=found.syn_received,
    )


async def whereabouts(launchable: Launchable, tree: Tree) -> str:
    """Why nobody answers on the slot, where that can be seen: nobody accepts, and where the process listens instead."""
    if not any(listener.queue_length() for listener in launchable.listeners):
        return ""
    own = {sockets.inode(listener.socket) for listener in launchable.listeners}
    elsewhere: list[str] = []
    with contextlib.suppress(OSError):  # where it listens instead is a hint: the finding stands without
        elsewhere = await to_thread.run_sync(_listens_elsewhere, tree, own)
    return "; ".join([f"nobody accepts on slot {launchable.key.name}", *elsewhere])


def _listens_elsewhere(tree: Tree, own: set[int]) -> list[str]:
    held = {inode: pid for pid in _pids(tree) for inode in procfs.socket_inodes([pid])}
    listening = inetdiag.dump(inetdiag.ANY_PORT, (inetdiag.LISTEN,))
    rows = [row for row in listening if row.inode in held and row.inode not in own]
    return [f"pid {held[row.inode]} listens on {Address(row.host, row.port)}" for row in rows[:PLACES_MAX]]


def _pids(tree: Tree) -> list[int]:
    return [process.pid for process in members(tree)]
