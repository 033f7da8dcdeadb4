"""Starts a long-lived role from its settings file, with nothing imported that the role does not need."""

from pathlib import Path
from typing import Literal

from agent.errors import NotFoundError, UsageError

Role = Literal["agent", "coordinator"]


def run_role(role: Role, file: str) -> int:
    """Be the agent or the coordinator that `file` describes, until a signal ends it."""
    text = _text(role, file)
    try:
        if role == "agent":
            _run_agent(text, file)
        else:
            _run_coordinator(text, file)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("agent"):
            raise
        extra = "rollway[coordinator]" if role == "coordinator" else "rollway"
        raise UsageError(
            f"the {role} needs the library {error.name}, which is not installed here",
            f"Install it: pip install '{extra}'.",
        ) from error
    return 0


def _run_agent(text: str, file: str) -> None:
    from agent.host.main import run  # noqa: PLC0415 - a coordinator does without
    from agent.settings.agentfile import load_agent  # noqa: PLC0415

    run(load_agent(text, file))


def _run_coordinator(text: str, file: str) -> None:
    from agent.coordinator.main import run  # noqa: PLC0415 - needs libraries that a host does without
    from agent.settings.coordinatorfile import load_coordinator  # noqa: PLC0415

    run(load_coordinator(text, file))


def write_context(file: str, folder: Path) -> Path:
    """Write client.toml and ca.pem of the coordinator that `file` describes; gives the former's path."""
    from agent.coordinator.context import write  # noqa: PLC0415 - needs libraries that a host does without
    from agent.settings.coordinatorfile import load_coordinator  # noqa: PLC0415

    return write(load_coordinator(_text("coordinator", file), file), folder)


def _text(role: Role, file: str) -> str:
    try:
        return Path(file).read_text()
    except FileNotFoundError:
        how = "`rollway agent join TOKEN` writes it" if role == "agent" else "Write one, which may be empty"
        raise NotFoundError(f"there is no file {file}", f"{how}; config/{role}.toml has every key.") from None
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {file}: {error}", "Make it a text file that this user can read.") from error
