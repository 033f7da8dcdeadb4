"""A look at something by a short-lived Python of its own: the memory that a library takes goes with it.

Rules: what it reads and writes are files in memory; it has the packages that we have, and nothing else of us. It is
killed at the end of its time. Blocking.
"""

import os
import select
import signal
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from agent.linux import memfd, pidfd
from agent.linux.executable import DEFAULT_PATH, ExecFailure
from agent.linux.spawn import Launch, spawn

WITHIN_S: Final = 30.0
_BEGIN: Final = "import sys; sys.path.insert(0, sys.argv[1])\n"
_ANSWER_BYTES_MAX: Final = 64 * 1024


def look(code: str, package: str, given: bytes) -> bytes:
    """What `code`, which imports `package`, makes of its standard input. Raises OSError."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no package {package}", name=package)
    with ExitStack() as opened:
        stdin, stdout = memfd.create("aside-input"), memfd.create("aside-output")
        opened.callback(os.close, stdin)
        opened.callback(os.close, stdout)
        os.write(stdin, given)
        os.lseek(stdin, 0, os.SEEK_SET)
        launch = Launch(
            argv=(sys.executable, "-I", "-S", "-c", _BEGIN + code, str(Path(spec.origin).parents[1])),
            env={"PATH": DEFAULT_PATH},
            cwd=Path("/"),
            stdin=stdin,
            stdout=stdout,
            stderr=2,
        )
        launched = spawn(launch)
        if isinstance(launched, ExecFailure):
            raise OSError(launched.errno, f"cannot run Python: {launched}")
        opened.callback(os.close, launched.pidfd)
        status = _end_of(launched.pidfd)
        if status is None or status.code != 0:
            raise OSError(None, f"Python did not answer: {status}")
        return os.pread(stdout, _ANSWER_BYTES_MAX, 0)


def _end_of(handle: int) -> pidfd.ExitStatus | None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(WITHIN_S * 1_000):
        pidfd.send_signal(handle, signal.SIGKILL)
        poll.poll()
    return pidfd.collect(handle)
