"""HTTP to one coordinator: a session with TLS and token, and what went wrong as a `RollwayError`.

Rules: an answer that is not what was expected is a FailedError, never a traceback; no answer is an UnreachableError.
Nothing is tried twice here. Not handled here: which routes there are (`client.coordinator`).
"""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Self, TypeVar

import aiohttp
import msgspec

from agent.client.context import Context
from agent.client.refusal import refusal
from agent.errors import FailedError, UnreachableError
from agent.link.channel import HEARTBEAT_S
from agent.link.runs import Line
from agent.link.tls import cli_context
from agent.wire.runs import FRAME_BYTES_MAX

T = TypeVar("T")

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=90)
_STREAM_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5)


class Session:
    """Requests to the coordinator that `context` names, as the holder of its token."""

    def __init__(self, context: Context) -> None:
        self._url = context.coordinator
        self._context = context

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=cli_context(self._context.ca)),
            headers={"Authorization": f"Bearer {self._context.token}"},
            timeout=_TIMEOUT,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(
        self, method: str, path: str, kind: type[T], *, query: Mapping[str, str] | None = None, body: object = None
    ) -> T:
        """The answer as a `kind`. `body` is sent as it is when it is bytes or a file, else as JSON."""
        answer = await self.read(method, path, query=query, body=body)
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise FailedError(
                f"cannot read what {self._url} answered to {method} {path}: {error}",
                "Compare the versions of this Rollway and of the coordinator.",
            ) from error

    async def read(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: object = None
    ) -> bytes:
        """The answer as it came."""
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "read"):
            body = msgspec.json.encode(body)
        try:
            async with self._send(method, path, query, body, _TIMEOUT) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if not response.ok:
            raise refusal(response.status, answer, "coordinator")
        return answer

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Give the answer line by line as it comes, for as long as it comes."""
        rest = b""
        try:
            async with self._send("GET", path, query, None, _STREAM_TIMEOUT) as response:
                if not response.ok:
                    raise refusal(response.status, await response.read(), "coordinator")
                async for chunk in response.content.iter_any():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    @asynccontextmanager
    async def connected(self, path: str) -> AsyncIterator[Line]:
        """A WebSocket for one command."""
        try:
            socket = await self._session.ws_connect(
                self._url + path, heartbeat=HEARTBEAT_S, compress=0, max_msg_size=FRAME_BYTES_MAX
            )
        except aiohttp.WSServerHandshakeError as error:
            raise FailedError(
                f"{self._url} answered {error.status} {error.message} to a command",
                "Compare the versions of this Rollway and of the coordinator.",
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        line = Line(socket)
        try:
            yield line
        finally:
            await line.close()

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: object, timeout: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.request(method, self._url + path, params=query, data=body, timeout=timeout)

    def _unreachable(self, error: Exception) -> UnreachableError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            return UnreachableError(
                f"cannot trust {self._url}: {_reason(error)}",
                "Name the CA of this coordinator: `ca` in client.toml, or ROLLWAY_CA.",
            )
        return UnreachableError(
            f"cannot reach {self._url}: {_reason(error)}",
            "Look whether it runs, and whether this is its address. The hosts go on without it.",
        )


def _reason(error: Exception) -> str:
    """What went wrong, without the words of the library that noticed it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause: Exception = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
    else:
        cause = error
    match cause:
        case ssl.SSLCertVerificationError():
            return cause.verify_message
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "it closed the connection"
        case TimeoutError():
            return "no answer in time"
        case socket.gaierror():
            return (cause.strerror or "its name is not known").lower()
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case _:
            return str(cause) or type(cause).__name__
