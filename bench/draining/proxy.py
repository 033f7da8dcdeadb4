"""HAProxy in front of one server, with a pool of kept connections; one of its two ways in tries again."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

PROGRAM: Final = "haproxy"
_CONFIG: Final = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
listen plain
  bind 127.0.0.1:{plain}
  server one {address}:{port} pool-purge-delay 60s
listen again
  bind 127.0.0.1:{again}
  retries 3
  retry-on conn-failure empty-response
  server one {address}:{port} pool-purge-delay 60s
"""


class Doors(NamedTuple):
    """Its two ports; 0 where there is no HAProxy."""

    plain: int = 0
    again: int = 0


@contextmanager
def in_front_of(address: str, port: int, folder: Path, doors: Doors) -> Iterator[Doors]:
    """HAProxy, as long as the block lasts; nothing where it is not installed."""
    if shutil.which(PROGRAM) is None:
        yield Doors()
        return
    config = folder / f"haproxy-{port}.cfg"
    config.write_text(_CONFIG.format(address=address, port=port, plain=doors.plain, again=doors.again))
    with subprocess.Popen([PROGRAM, "-db", "-q", "-f", config]) as process:
        try:
            yield doors
        finally:
            process.terminate()


def version() -> str:
    if shutil.which(PROGRAM) is None:
        return ""
    said = subprocess.run([PROGRAM, "-v"], capture_output=True, text=True, check=True).stdout
    return said.split()[2]
