"""Whom a verb asks that both can answer: the coordinator, for the whole fleet, or the agent of this host.

The rule: `--host-socket` names an agent. Without it, the coordinator that the context names; only where none is known,
and an agent runs here, that agent. A coordinator that does not answer is never replaced by an agent unasked: what one
host knows is not what the fleet does.
"""

import os
from pathlib import Path

import rich_click as click

from agent.cli.this_host import agent_at, installed_agent
from agent.client.agent import Agent
from agent.client.context import find_context
from agent.errors import NotFoundError, RefusedError

host_socket_option = click.option(
    "--host-socket", metavar="PATH", help="Ask the agent of this host by its socket, not the coordinator."
)


def agent_asked(host_socket: str | None) -> Agent | None:
    """The agent that is asked; None: the coordinator is."""
    if host_socket is not None:
        return agent_at(Path(host_socket))
    try:
        find_context(os.environ)
    except NotFoundError:
        agent = installed_agent()
        return agent if agent.socket.exists() else None
    return None


def agent_only(verb: str, host_socket: str | None) -> Agent:
    """The agent, for a verb that no coordinator knows. Raises RefusedError where one is named, NotFoundError."""
    agent = agent_asked(host_socket)
    if agent is None:
        find_context(os.environ)
        raise RefusedError(
            f"cannot {verb} by the coordinator: only the agent of a host does it, for its own instances",
            f"On the host: `rollway {verb} … --host-socket {installed_agent().socket}`.",
        )
    return agent
