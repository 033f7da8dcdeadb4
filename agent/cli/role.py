"""Starts a long-lived role from its settings file, with nothing imported that the role does not need.

Wrong settings end it, and its unit does not start it again (RestartPreventExitStatus=): a person has to correct them.
Not so where systemd keeps descriptors for it, which it would drop with the unit's failure: an agent that has run here,
and perhaps has instances that run on, is tried again and again, slowly.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from agent.cli.output import show_error
from agent.errors import NotFoundError, UsageError

AGAIN_S: Final = 10.0
"""Between two tries of an agent whose settings are wrong, beside what the unit waits."""
_AGAIN: Final = 1
"""An exit code after which the unit starts it again."""
Role = Literal["agent", "coordinator"]


def run_role(role: Role, file: str) -> int:
    """Be the agent or the coordinator that `file` describes, until a signal ends it."""
    is_kept = _keeps_descriptors(os.environ)  # looked at first, for the agent takes them out
    try:
        return _run(role, file)
    except (UsageError, NotFoundError) as error:
        if not is_kept:
            raise
        show_error(error, as_json=False)
        time.sleep(AGAIN_S)
        return _AGAIN


def _keeps_descriptors(environ: Mapping[str, str]) -> bool:
    """Whether systemd, and not a `rollway up`, has given back what it kept for an earlier process of this unit."""
    if "INVOCATION_ID" not in environ or environ.get("LISTEN_PID") != str(os.getpid()):
        return False
    from agent.linux.service import LIFELINE  # noqa: PLC0415 - nor do other verbs need what it needs

    return LIFELINE not in environ.get("LISTEN_FDNAMES", "").split(":")


def _run(role: Role, file: str) -> int:
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
    from agent.host import lean  # noqa: PLC0415 - a coordinator does without

    with lean.imports(http=False):
        from agent.host.main import run  # noqa: PLC0415
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
