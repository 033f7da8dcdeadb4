"""The agent's own socket on this host: there for one agent alone, and from its start on.

Whoever connects before it is answered waits. Not handled here: what may be asked, and by whom (`host.byhand`).
"""

from pathlib import Path
from socket import socket
from typing import Final

from agent.errors import FailedError, RefusedError
from agent.linux import unixsocket
from agent.wire.control import SOCKET

ANSWERS_WITHIN_S: Final = 2.0


class Control:
    """Bound when this is made; raises RollwayError."""

    def __init__(self, run_dir: Path, group: int | None) -> None:
        self.group: Final = group
        self._path = run_dir / SOCKET
        if _answers(self._path):
            raise RefusedError(
                f"cannot listen on {self._path}: another agent answers there", "Give each agent a run_dir of its own."
            )
        try:
            self.socket: Final[socket] = unixsocket.listen(self._path, group)
        except OSError as error:
            raise FailedError(
                f"cannot listen on {self._path}: {error.strerror}", "Give the agent a run_dir that it may write to."
            ) from error

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self.socket.close()


def _answers(path: Path) -> bool:
    try:
        unixsocket.connect(path, ANSWERS_WITHIN_S).close()
    except OSError:
        return False
    return True
