"""The one entry point. Long-lived roles start without the command line's libraries, which a host does not install."""

import sys

from agent.cli.output import show_error
from agent.cli.role import run_role
from agent.errors import RollwayError, UsageError


def main() -> None:
    """Run `rollway` with the words of the process, and exit with its code."""
    sys.exit(_run(sys.argv[1:]))


def _run(words: list[str]) -> int:
    try:
        match words:
            case ["agent" | "coordinator" as role, "run", "--config", file]:
                return run_role(role, file)
            case _:
                return _command_line(words)
    except RollwayError as error:
        return show_error(error, as_json="--json" in words)
    except KeyboardInterrupt:
        return 130


def _command_line(words: list[str]) -> int:
    try:
        from agent.cli.main import run  # noqa: PLC0415 - a host has neither click nor rich
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("agent"):
            raise
        raise UsageError(
            f"the command line needs the library {error.name}, which is not installed here",
            "Install it: pip install 'rollway[cli]'.",
        ) from error
    return run(words)


if __name__ == "__main__":
    main()
