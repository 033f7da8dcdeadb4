"""The one entry point. Long-lived roles start without the command line's libraries, which a host does not install.

Rules: what the operating system refuses, and nobody below has explained, is told in its own words, without a traceback.
"""

import errno
import os
import signal
import sys

from agent import __version__
from agent.cli.output import show, show_error, wants_json
from agent.cli.role import run_role
from agent.errors import FailedError, RollwayError, UsageError


def main() -> None:
    """Run `rollway` with the words of the process, and exit with its code."""
    _open_closed_streams()
    code = _run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # it was told; what is left in the buffer must not be tried once more, with an exit code of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(words: list[str]) -> int:
    try:
        match words:
            case ["agent" | "coordinator" as role, "run", "--config", file]:
                return run_role(role, file)
            case ["agent", *rest]:
                if rest[:1] != ["run"]:
                    _end_at_sigterm_as_at_ctrl_c()
                return _on_host(rest)
            case _:
                _end_at_sigterm_as_at_ctrl_c()
                return _command_line(words)
    except KeyboardInterrupt:
        return 130
    except (RollwayError, OSError, BaseExceptionGroup) as error:
        told = _for_a_person(error)
        if told is None:
            raise
        return show_error(told, as_json=wants_json(words))


def _for_a_person(error: BaseException) -> RollwayError | None:
    """The one error in whatever task groups it came through, in words; None: it is a bug, and needs its traceback."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename is not None else ""
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        what_to_do = "Free space (`df -h`, `df -i`)." if is_full else "Correct it, or name another place."
        return FailedError(f"the system says: {error.strerror}{where}", what_to_do)
    return error if isinstance(error, RollwayError) else None


def _open_closed_streams() -> None:
    """Put /dev/null in the place of a standard stream that is closed: the next file opened would get its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - standard error is the last of them
        os.set_inheritable(fd, True)  # noqa: FBT003 - the standard library's own order
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _end_at_sigterm_as_at_ctrl_c() -> None:
    """What a command has begun, a build line or a folder, is cleared away; in the background (`&`), too."""

    def end(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, end)


def _on_host(words: list[str]) -> int:
    from agent.cli.agent_main import run  # noqa: PLC0415 - nor does the role itself need a parser

    return run(words)


def _command_line(words: list[str]) -> int:
    try:
        from agent.cli.main import run  # noqa: PLC0415 - a host has neither click nor rich
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("agent"):
            raise
        from agent.cli.agent_main import WITHOUT_LIBRARIES  # noqa: PLC0415

        if words and words[0] in WITHOUT_LIBRARIES:
            return _on_host(words)
        if words[:1] == ["--version"]:
            show(__version__)
            return 0
        here = ", ".join(f"`rollway {verb}`" for verb in sorted(WITHOUT_LIBRARIES))
        raise UsageError(
            f"the command line needs the library {error.name}, which is not installed here",
            f"On a host there are {here} and `rollway agent --help`. Elsewhere: pip install 'rollway[cli]'.",
        ) from error
    return run(words)


if __name__ == "__main__":
    main()
