"""Carries the caller's terminal or pipes to a command on a host and back, and their signals, until it has ended.

Rules: every byte as it came, both outputs apart, the last of them before the end; what is slow slows the other end.
On a terminal every key is the command's, but for `~.`; the terminal is as before whichever way this ends. Without one
signals are the command's, and the third of a kind, or a hang-up, leaves. Whoever leaves ends the command.
"""

import errno
import signal
from collections import Counter
from typing import Final, get_args

import anyio
from anyio.abc import TaskGroup, TaskStatus

from agent.cli.escape import Escape
from agent.cli.output import remark
from agent.client.refusal import error_of
from agent.errors import FailedError, RollwayError, UnreachableError
from agent.link.conversation import Conversation
from agent.link.runs import Line
from agent.linux import stdio, terminal
from agent.linux.terminal import Raw
from agent.wire.runs import (
    CHUNK_BYTES,
    NOT_FOUND,
    NOT_RUN,
    SIDE_MAX,
    STDERR,
    STDIN,
    STDOUT,
    Ask,
    Ended,
    FromHost,
    Refused,
    Resized,
    Signalled,
    SignalName,
    Size,
    Stream,
    from_host,
)

SIGNALLED: Final = 128
"""Exit codes above it say by which signal."""
TIMES: Final = 3
_PASSED: Final = {signal.Signals[name]: name for name in get_args(SignalName)}
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
_NOBODY_READS: Final = {errno.EPIPE, errno.ECONNRESET, errno.EIO}


class _NotFoundThereError(FailedError):
    exit_code = NOT_FOUND


class _NotRunThereError(FailedError):
    exit_code = NOT_RUN


def window() -> Size:
    """Of the caller's terminal."""
    rows, columns = terminal.size()
    return Size(min(rows, SIDE_MAX), min(columns, SIDE_MAX))


class Carrier:
    """One command, over `line`; `raw` is the caller's terminal, where its keys are the command's."""

    def __init__(self, line: Line, ask: Ask, raw: Raw | None) -> None:
        self._ask, self._raw = ask, raw
        self._said: Final = Conversation[FromHost](line, from_host)
        self._listening = anyio.CancelScope()
        self._last: Ended | Refused | None = None
        self._left: int | None = None
        self._got = Counter[signal.Signals]()

    async def run(self) -> int:
        """Its exit code. Raises RollwayError where it has none."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._pass_signals, tasks)
            await self._said.say(self._ask)
            if self._ask.stdin:
                tasks.start_soon(self._feed, tasks)
            async with anyio.create_task_group() as outputs:
                for stream in (STDOUT, STDERR):
                    outputs.start_soon(self._show, stream, tasks)
                with self._listening:
                    await self._said.listen(self._hear)
            tasks.cancel_scope.cancel()
        return self._left if self._left is not None else _exit_code(self._last)

    def _hear(self, word: FromHost) -> None:
        if isinstance(word, Ended | Refused):
            self._last = word
            self._listening.cancel()  # all that it wrote has come before

    def _leave(self, code: int, tasks: TaskGroup) -> None:
        self._left = code
        tasks.cancel_scope.cancel()

    async def _show(self, stream: Stream, tasks: TaskGroup) -> None:
        with stdio.out(stream) as out:
            while data := await self._said.read(stream):
                try:
                    await out.write(data)
                except OSError as error:
                    if error.errno not in _NOBODY_READS:
                        raise
                    self._leave(SIGNALLED + signal.SIGPIPE, tasks)
                    return
                await self._said.took(stream)

    async def _feed(self, tasks: TaskGroup) -> None:
        escape = Escape() if self._raw is not None else None
        while data := await _typed():
            passed = escape.pass_on(data) if escape is not None else data
            if passed and not await self._said.write(STDIN, passed):
                return
            if escape is not None and escape.left:
                self._leave(SIGNALLED + signal.SIGHUP, tasks)
                return
        await self._said.write(STDIN, b"")

    async def _pass_signals(
        self, tasks: TaskGroup, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        wanted = {*_PASSED, signal.SIGHUP, signal.SIGCONT, signal.SIGWINCH}
        heeded = [number for number in wanted if signal.getsignal(number) != signal.SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as received:
            task_status.started()
            async for number in received:
                self._got_signal(number, tasks)

    def _got_signal(self, number: signal.Signals, tasks: TaskGroup) -> None:
        if number in (signal.SIGCONT, signal.SIGWINCH):
            if self._raw is not None and number == signal.SIGCONT:
                self._raw.set()
            if self._ask.size is not None:
                tasks.start_soon(self._said.say, Resized(size=window()))
            return
        self._got[number] += 1
        is_ending = number in _ENDING and (self._raw is not None or self._got[number] == TIMES)
        if number == signal.SIGHUP or is_ending:
            self._leave(SIGNALLED + number, tasks)
            return
        tasks.start_soon(self._said.say, Signalled(signal=_PASSED[number]))  # the next may be one that leaves
        if number in _ENDING and self._got[number] == TIMES - 1:
            remark("rollway: once more ends it")


async def _typed() -> bytes:
    """What has come in on standard input; nothing at its end, or where its terminal is gone."""
    try:
        return await stdio.read(STDIN, CHUNK_BYTES)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def _exit_code(last: Ended | Refused | None) -> int:
    match last:
        case None:
            raise UnreachableError(
                "the connection to the coordinator was lost: the command is ended on its host",
                "See `rollway status`, and `rollway ps` there.",
            )
        case Refused(error=error, what_to_do=what_to_do, code=code):
            raise _refusal(code, error, what_to_do)
        case Ended(reason=str(reason)) if reason:
            raise FailedError(f"the command was ended: {reason}")
        case Ended(code=int(code)):
            return code
        case Ended(signal=int(number)):
            return SIGNALLED + number
        case Ended():
            raise FailedError("nobody can tell how the command ended")


def _refusal(code: int, error: str, what_to_do: str) -> RollwayError:
    not_begun = {NOT_FOUND: _NotFoundThereError, NOT_RUN: _NotRunThereError}.get(code)
    return not_begun(error, what_to_do) if not_begun is not None else error_of(code, error, what_to_do)
