"""Where the agent of this host has its folders, as verbs find it that act on the host they are called on."""

import argparse
from pathlib import Path
from typing import Final

from agent.errors import NotFoundError, UsageError
from agent.model.ids import HostName
from agent.model.roles import AgentSettings
from agent.settings.agentfile import load_agent

AGENT_FILE: Final = "/etc/rollway/agent.toml"


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help=f"The agent's settings (default: {AGENT_FILE}).")


def settings(file: str | None) -> AgentSettings:
    """What `file` says. Without one what is installed says, or the defaults where there is no such file.

    Raises NotFoundError, SettingsError, UsageError.
    """
    path = Path(file or AGENT_FILE)
    try:
        return load_agent(path.read_text(), str(path))
    except FileNotFoundError:
        if file is not None:
            raise NotFoundError(f"there is no file {file}", "Name the agent.toml of the agent on this host.") from None
    except (OSError, UnicodeError) as error:
        if file is not None:
            raise UsageError(f"cannot read {file}: {error}", "Make it readable for this user.") from error
    return AgentSettings.below(HostName("localhost"), ())
