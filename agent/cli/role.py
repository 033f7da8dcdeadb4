"""Starts a long-lived role from its settings file, with nothing imported that the role does not need."""

from pathlib import Path
from typing import Literal

from agent.errors import NotFoundError, UsageError

Role = Literal["agent", "coordinator"]


def run_role(role: Role, file: str) -> int:
    """Be the agent or the coordinator that `file` describes, until a signal ends it."""
    try:
        text = Path(file).read_text()
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no file {file}", f"Write one; config/{role}.toml is a complete example."
        ) from None
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {file}: {error}", "Make it a text file that this user can read.") from error
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
