"""`…/run`: a command on a host of an environment, over a WebSocket of the caller's and one of the host's."""

import contextlib
import socket
from typing import Final

import anyio
from aiohttp import ClientConnectionResetError, web

from agent.artifacts import sign
from agent.coordinator.api.call import Call, answer
from agent.coordinator.api.hosts import host_name
from agent.errors import NotFoundError, RollwayError, UsageError, VerificationError, first
from agent.link.channel import CLOSE_S, HEARTBEAT_S
from agent.link.peers import peer_of
from agent.link.runs import Line
from agent.linux import clock
from agent.model.release import RunOrder
from agent.wire.runs import FRAME_BYTES_MAX, Ask, Frame, Refused, encode, from_caller

ASKED_WITHIN_S: Final = 10.0
_ALIVE: Final = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""That a caller's machine is gone the kernel notices; one who was only stopped, by Ctrl-Z, has theirs answer."""


async def get_target(call: Call) -> web.StreamResponse:
    host = call.request.query.get("host")
    named = host_name(host) if host is not None else None
    return answer(await call.server.runs.target(call.app, call.environment, named))


async def run(call: Call) -> web.StreamResponse:
    """The caller's end."""
    await call.server.environments.check(call.app, call.environment)
    response = _socket(call.request, heartbeat=None)
    if (connection := call.request.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _ALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    line = await _opened(call, response)
    if line is None:
        return response
    try:
        ask, order = await _asked(call, line)
        await call.server.runs.carry(line, ask, order, call.caller.name)
    except* RollwayError as errors:
        await line.send(encode(Refused.of(first(errors))))
    finally:
        await line.close()
    return response


async def dialled(call: Call) -> web.StreamResponse:
    """The host's end."""
    peer = peer_of(call.request)
    if peer is None:
        raise UsageError("a command's connection is for agents, which show a certificate")
    response = _socket(call.request, heartbeat=HEARTBEAT_S)
    line = await _opened(call, response)
    if line is None:
        return response
    with contextlib.suppress(NotFoundError), anyio.move_on_after(peer.not_after_s - clock.now().wall_ms / 1000):
        await call.server.runs.dialled(call.request.match_info["run"], peer.name, line)
    await line.close()  # not where the connection is gone: what had come is still to be read
    return response


def _socket(request: web.Request, heartbeat: float | None) -> web.WebSocketResponse:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise UsageError("this takes a WebSocket", "Use `rollway run`.")
    return web.WebSocketResponse(heartbeat=heartbeat, compress=False, max_msg_size=FRAME_BYTES_MAX, timeout=CLOSE_S)


async def _opened(call: Call, response: web.WebSocketResponse) -> Line | None:
    """None for who gave up between the handshake and here."""
    try:
        await response.prepare(call.request)
    except ClientConnectionResetError:
        return None
    return Line(response)


async def _asked(call: Call, line: Line) -> tuple[Frame, RunOrder]:
    """What the caller wants: their first word."""
    frame: Frame | None = None
    with anyio.move_on_after(ASKED_WITHIN_S):
        frame = await line.receive()
    ask = from_caller(frame) if frame is not None else None
    if frame is None or not isinstance(ask, Ask):
        raise VerificationError("nothing was asked for")
    order = sign.verify_run(ask.order.encode())
    if (order.app, order.environment) != (call.app, call.environment):
        raise VerificationError(f"the command is for {order.app} in {order.environment}", "Send it there.")
    return frame, order
