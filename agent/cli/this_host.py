"""Where the agent of this host has its folders, as verbs find it that act on the host they are called on."""

import argparse
from pathlib import Path
from typing import Final

from agent.cli.output import remark
from agent.client.agent import Agent
from agent.errors import NotFoundError, SettingsError, UsageError
from agent.model.ids import NAME_EXPECTED, HostName, ProcessName, is_name
from agent.model.roles import AgentSettings
from agent.model.units import Milliseconds, parse_duration
from agent.settings.agentfile import load_agent

AGENT_FILE: Final = "/etc/rollway/agent.toml"
_DEFAULT: Final = AgentSettings.below(HostName("localhost"), ())


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Which agent is asked: the one that settings describe, or that of a socket."""
    add_config(parser)
    parser.add_argument("--host-socket", metavar="PATH", help="The agent's socket, in place of what its settings say.")


def add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app", type=name, metavar="APP")
    parser.add_argument("environment", type=name, nargs="?", metavar="ENV", help="Needed where APP runs in several.")


def chosen_agent(arguments: argparse.Namespace) -> Agent:
    if arguments.host_socket is not None:
        return agent_at(Path(arguments.host_socket))
    return agent_of(settings(arguments.config))


def installed_agent() -> Agent:
    """That of this host, wherever its settings, if they are there and right, put its folder."""
    try:
        return agent_of(settings(None))
    except SettingsError:
        return agent_of(_DEFAULT)


def agent_at(path: Path) -> Agent:
    """The agent that listens there, for a person, who is told when it does not answer."""
    return Agent(path, _say)


def agent_of(chosen: AgentSettings) -> Agent:
    return Agent.of(chosen, _say)


def _say(text: str) -> None:
    remark(f"rollway: {text}")


def name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"expected {NAME_EXPECTED}, found {text!r}")
    return text


def instances(text: str) -> tuple[ProcessName, int | None]:
    """`web` or `web.1`."""
    process, dot, slot = text.partition(".")
    if not is_name(process) or (dot and not (slot.isascii() and slot.isdigit())):
        raise argparse.ArgumentTypeError(f"expected a process type, {NAME_EXPECTED}, or TYPE.N, found {text!r}")
    return ProcessName(process), int(slot) if dot else None


def duration(text: str) -> Milliseconds:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}, found {text!r}") from None


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help=f"The agent's settings (default: {AGENT_FILE}).")


def settings(file: str | None) -> AgentSettings:
    """What `file` says. Without one what is installed says, or the defaults where there is no such file.

    Raises NotFoundError, SettingsError, UsageError.
    """
    return settings_read(file)[0]


def settings_read(file: str | None) -> tuple[AgentSettings, OSError | UnicodeError | None]:
    """The same, and why what is installed could not be read, so that these are the defaults."""
    path = Path(file or AGENT_FILE)
    try:
        return load_agent(path.read_text(), str(path)), None
    except FileNotFoundError as error:
        if file is not None:
            raise NotFoundError(f"there is no file {file}", "Name the agent.toml of the agent on this host.") from None
        return _DEFAULT, error
    except (OSError, UnicodeError) as error:
        if file is not None:
            raise UsageError(f"cannot read {file}: {error}", "Make it readable for this user.") from error
        return _DEFAULT, error
