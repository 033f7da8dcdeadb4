"""Asks the agent of this host over its own socket: one request per connection, nothing tried twice.

Rules: an agent that is not there is `AgentGoneError`, which callers act on; one that lets us not in says so in words.
One that hangs is told of while it is waited for: a person who waits in silence does not know for what.
Needs nothing but the standard library: a host has no command line libraries, and a person there has no time.
"""

import errno
import http.client
import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from socket import MSG_PEEK
from socket import socket as Socket  # noqa: N812 - `socket` is a path here
from typing import Final, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from agent.client.refusal import refusal
from agent.errors import FailedError, ForbiddenError, UnreachableError
from agent.linux import unixsocket
from agent.model.roles import AgentSettings
from agent.wire.control import BEAT_S, GROUP, SOCKET, Progress

T = TypeVar("T")

CONNECT_S: Final = 5.0
SILENT_S: Final = 4 * BEAT_S
"""An agent that says nothing for so long, where it would, hangs."""
ANSWER_S: Final = 10.0
"""So does one that cannot even say within this time what it knows."""
QUIET_S: Final = 3.0
"""After so long without an answer it is said that there is none yet."""
_NOBODY: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})


class AgentGoneError(UnreachableError):
    """Nobody listens on the socket: no agent runs, or it ended in the middle of its answer."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("agent")
        self._path = path

    def connect(self) -> None:
        self.sock = unixsocket.connect(self._path, CONNECT_S)
        self.sock.settimeout(SILENT_S)


def _tell_nobody(_: str) -> None:
    """For callers without a person who waits."""


class Agent(Struct, frozen=True):
    """The agent that listens on `socket`, running or not."""

    socket: Path
    on_silence: Callable[[str], None] = _tell_nobody
    """Told in a sentence that there is no answer yet."""

    @classmethod
    def of(cls, settings: AgentSettings, on_silence: Callable[[str], None] = _tell_nobody) -> "Agent":
        return cls(Path(settings.run_dir) / SOCKET, on_silence)

    def ask(self, method: str, path: str, kind: type[T], query: Mapping[str, object] | None = None) -> T:
        """The answer as a `kind`. Raises RollwayError."""
        answer = b"".join(self._lines(method, path, query))
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise FailedError(
                f"cannot read what the agent answered to {method} {path}: {error}",
                "Compare `rollway --version` with that of the agent that runs.",
            ) from error

    def lines(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[bytes]:
        """Give an answer line by line as it comes, for as long as it comes."""
        return self._lines("GET", path, query, patient=True)

    def progress(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[Progress]:
        """Order something and give how far it is, until it is done; AgentGoneError where the agent ends before."""
        last = Progress()
        for line in self._lines("POST", path, query):
            try:
                last = msgspec.json.decode(line, type=Progress)
            except msgspec.DecodeError:
                break  # it was cut off
            yield last
        if not (last.done or last.failure):
            raise self._gone("it ended in the middle of its answer")

    def _lines(
        self, method: str, path: str, query: Mapping[str, object] | None, *, patient: bool = False
    ) -> Iterator[bytes]:
        connection = _Connection(self.socket)
        given = urlencode({key: str(value) for key, value in (query or {}).items() if value is not None})
        try:
            connection.request(method, f"{path}?{given}" if given else path)
            self._await_answer(connection.sock, ANSWER_S if method == "GET" else SILENT_S)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise refusal(response.status, response.read(), "agent")
            if connection.sock is not None:
                connection.sock.settimeout(None if patient else SILENT_S)
            yield from iter(response.readline, b"")
        except (OSError, http.client.HTTPException) as error:
            raise self._explained(error) from error
        finally:
            connection.close()

    def _await_answer(self, sock: Socket, patience_s: float) -> None:
        """Until its first byte; after that `sock` gives up when that long has passed in all. Raises OSError."""
        sock.settimeout(QUIET_S)
        try:
            sock.recv(1, MSG_PEEK)
        except TimeoutError:
            self.on_silence(f"the agent at {self.socket} has not answered yet; waiting up to {patience_s:g} s")
            sock.settimeout(patience_s - QUIET_S)

    def _explained(self, error: OSError | http.client.HTTPException) -> UnreachableError | ForbiddenError:
        if isinstance(error, PermissionError):
            return ForbiddenError(
                f"{_user()} may not speak with the agent at {self.socket}",
                f"Ask as root, or as a member of the group {GROUP} (a new member logs in again first).",
            )
        if isinstance(error, TimeoutError):
            return UnreachableError(
                f"the agent at {self.socket} does not answer, though it runs",
                "See what it does: `systemctl status rollway-agent`. What it has started runs on.",
            )
        if isinstance(error, OSError) and error.errno in _NOBODY:
            return self._gone("nobody listens there")
        return self._gone("it ended in the middle of its answer")

    def _gone(self, why: str) -> AgentGoneError:
        return AgentGoneError(
            f"no agent answers at {self.socket}: {why}",
            "See `rollway agent check` and `systemctl status rollway-agent`.",
        )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
