"""One run of a command of the operator's: words in, words out, bounded in time, size and processes.

Rules: what it reads and what it writes are files in memory, so nobody waits for anybody and the kernel holds the bound:
who writes more is ended by SIGXFSZ. It is ended as a tree when it ends, at the end of its time, or with its caller. Not
handled here: what the words mean.
"""

import itertools
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from msgspec import Struct

from agent.linux import memfd, pidfd
from agent.linux.executable import DEFAULT_PATH, ExecFailure
from agent.linux.killtree import Tree, end_command
from agent.linux.pidfd import ExitStatus
from agent.linux.spawn import Launch, Launched, spawn

MARK: Final = "ROLLWAY_HOOK"
_numbers: Final = itertools.count(1)


class Ran(Struct, frozen=True, kw_only=True):
    """How it ended (None: not in its time), and what it wrote."""

    status: ExitStatus | None
    output: bytes
    errors: bytes


async def run(
    argv: tuple[str, ...], given: bytes, *, within_s: float, output_bytes_max: int, env: Mapping[str, str]
) -> Ran | ExecFailure:
    """Run it in `/` with `env` alone. Raises OSError where we lack what it takes."""
    opened: list[int] = []
    try:
        opened.extend(map(memfd.create, ("hook-input", "hook-output", "hook-errors")))
        stdin, stdout, stderr = opened
        os.write(stdin, given)
        os.lseek(stdin, 0, os.SEEK_SET)
        value = f"{os.getpid()}.{next(_numbers)}"
        launch = Launch(
            argv=argv,
            env={"PATH": DEFAULT_PATH, **env, MARK: value},
            cwd=Path("/"),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            rlimits={resource.RLIMIT_FSIZE: (output_bytes_max, output_bytes_max)},
        )
        with anyio.CancelScope(shield=True):
            launched = await to_thread.run_sync(spawn, launch)
        if isinstance(launched, ExecFailure):
            return launched
        status = await _ended(launched, f"{MARK}={value}", within_s)
        return Ran(status=status, output=_written(stdout, output_bytes_max), errors=_written(stderr, output_bytes_max))
    finally:
        for descriptor in opened:
            os.close(descriptor)


async def _ended(launched: Launched, mark: str, within_s: float) -> ExitStatus | None:
    try:
        with anyio.move_on_after(within_s):
            return await pidfd.wait_exit(launched.pidfd)
        return None
    finally:
        with anyio.CancelScope(shield=True):
            await end_command(launched.pidfd, Tree(pid=launched.pid, start_time=launched.start_time, mark=mark))


def _written(descriptor: int, bytes_max: int) -> bytes:
    return os.pread(descriptor, bytes_max, 0)
