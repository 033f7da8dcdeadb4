"""The build lines of an app: each in `/bin/sh`, in a stated environment, followed live, ended with all that it started.

Rules: of the caller's variables only PATH, HOME and those pass that say *where* packages are fetched from (a mirror, a
proxy, its certificates), never those that say *what*; time, hash seed, locale, zone and umask are fixed.
"""

import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.errors import FailedError

OnLine = Callable[[str], None]
"""Gets each line of output as it comes, without its end; what it raises ends the build."""

_FETCH_VARIABLES: Final = frozenset(
    {
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *(
            "PIP_INDEX_URL",
            "PIP_EXTRA_INDEX_URL",
            "PIP_FIND_LINKS",
            "PIP_NO_INDEX",
            "PIP_TRUSTED_HOST",
            "PIP_CONFIG_FILE",
        ),
        *("PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES", "PIP_CACHE_DIR"),
        *("PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK", "PIP_ROOT_USER_ACTION"),
        *(
            "NPM_CONFIG_REGISTRY",
            "NPM_CONFIG_CAFILE",
            "NPM_CONFIG_PROXY",
            "NPM_CONFIG_HTTPS_PROXY",
            "NPM_CONFIG_NOPROXY",
        ),
        *("NPM_CONFIG_USERCONFIG", "NPM_CONFIG_CACHE"),
    }
)
"""Of the caller's environment, in either case: where from, never what."""

_LINE_MAX: Final = 64 * 1024
_LAST_LINES: Final = 20


def build_environment(caller: Mapping[str, str], committed_at_s: int, scratch: Path) -> dict[str, str]:
    """The environment of every build line."""
    kept = {
        name: value for name, value in caller.items() if name in {"PATH", "HOME"} or name.upper() in _FETCH_VARIABLES
    }
    return {
        **kept,
        "SOURCE_DATE_EPOCH": str(committed_at_s),
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": str(scratch),
    }


def run_line(line: str, folder: Path, environment: Mapping[str, str], on_line: OnLine) -> None:
    """Run one line in `/bin/sh`, its output to `on_line`; raises FailedError. Whatever it started ends with it."""
    last: deque[str] = deque(maxlen=_LAST_LINES)

    def keep(text: str) -> None:
        last.append(text)
        on_line(text)

    process = subprocess.Popen(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=0o022,
    )
    try:
        _follow(process, keep)
    finally:
        _end(process)
    if process.returncode != 0:
        raise FailedError(
            f"cannot build: `{line}` ended with {_status(process.returncode)}; its last output:\n  "
            + "\n  ".join(last),
            "Correct it, commit, and build the new commit",
        )


def _follow(process: subprocess.Popen[bytes], on_line: OnLine) -> None:
    """Pass on the output until the process ends: not until EOF, which something in the background could hold up."""
    if process.stdout is None:
        raise FailedError("cannot build: the line has no pipe")
    pipe, pidfd, rest = process.stdout.fileno(), os.pidfd_open(process.pid), b""
    os.set_blocking(pipe, False)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            selector.register(pipe, selectors.EVENT_READ)
            has_ended = False
            while not has_ended:
                ready = {key.fd for key, _ in selector.select()}
                has_ended = pidfd in ready
                if pipe in ready:
                    chunk = os.read(pipe, 1 << 20)
                    if not chunk:
                        selector.unregister(pipe)
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > _LINE_MAX:
                        lines, rest = [*lines, rest], b""
                    for text in lines:
                        on_line(text.decode(errors="replace").rstrip("\r"))
        if rest:
            on_line(rest.decode(errors="replace"))
    finally:
        os.close(pidfd)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the line's session, while its process still holds the number, and collect it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _status(returncode: int) -> str:
    return f"exit status {returncode}" if returncode >= 0 else signal.Signals(-returncode).name
