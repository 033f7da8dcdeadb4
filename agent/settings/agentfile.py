"""`agent.toml`: one host's agent."""

from typing import Final

from agent.model.ids import EnvironmentName, HostName
from agent.model.roles import AGENT_STATE_DIR, AgentSettings
from agent.settings.kinds import (
    ADDRESS,
    COORDINATOR_URL,
    FILE_PATH,
    HOST_NAME,
    IP,
    NAME,
    POSITIVE,
    RING,
    VALUE,
    list_of,
    one_of,
)
from agent.settings.tables import Schema, read_toml
from agent.settings.tls import tls_files

SCHEMA: Final = Schema(
    known={
        "": "name environments coordinators state_dir run_dir address",
        "labels": "*",
        "http": "listen",
        "tls": "ca certificate key",
        "identity": "age_key",
        "logs": "on_full ring",
        "limits": "launches",
        "drivers": "haproxy",
        "drivers.haproxy": "agent_check",
    },
    planned={"limits": "downloads"},
)


def load_agent(text: str, file: str) -> AgentSettings:
    """The agent that `text` sets up. Raises SettingsError."""
    root = read_toml(text, file, SCHEMA)
    name, coordinators = HostName(root.need("name", HOST_NAME)), root.need("coordinators", list_of(COORDINATOR_URL, 1))
    default = AgentSettings.below(name, coordinators, root.get("state_dir", FILE_PATH, AGENT_STATE_DIR))
    return AgentSettings(
        name=name,
        coordinators=coordinators,
        labels=dict(root.table("labels").items(NAME, VALUE)),
        environments=tuple(EnvironmentName(one) for one in root.get("environments", list_of(NAME), ())),
        state_dir=default.state_dir,
        run_dir=root.get("run_dir", FILE_PATH, default.run_dir),
        address=root.find("address", IP),
        http_listen=root.table("http").get("listen", list_of(ADDRESS), default.http_listen),
        agent_check=root.table("drivers").table("haproxy").get("agent_check", list_of(ADDRESS), ()),
        tls=tls_files(root.table("tls"), default.tls),
        age_key=root.table("identity").get("age_key", FILE_PATH, default.age_key),
        logs_on_full=root.table("logs").get("on_full", one_of("block", "drop"), default.logs_on_full),
        launches=root.table("limits").find("launches", POSITIVE),
        ring_bytes=root.table("logs").get("ring", RING, default.ring_bytes),
    )
