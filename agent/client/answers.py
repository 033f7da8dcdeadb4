"""What the coordinator answers, as structs: only the fields that the command line reads, more may come."""

from typing import Any, Literal

from msgspec import Struct

from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.model.release import ConfigValue
from agent.model.rollout import RolloutState


class BuildEntry(Struct, frozen=True):
    id: Digest
    app: AppName
    version: str
    commit: str
    committed_at_s: int = 0
    size_bytes: int = 0


class BuildMade(Struct, frozen=True):
    """The shape of `rollway build --json`."""

    id: Digest
    app: AppName
    version: str
    commit: str


class Settings(Struct, frozen=True):
    file: str
    settings: dict[str, Any]


class Config(Struct, frozen=True):
    version: int
    values: dict[str, ConfigValue]
    secrets: tuple[str, ...]
    recipient: str


class ConfigSaved(Struct, frozen=True):
    version: int


class ReleaseMade(Struct, frozen=True):
    """The shape of `rollway release create --json`."""

    app: AppName
    environment: EnvironmentName
    release: ReleaseName
    build: Digest


class ReleaseEntry(Struct, frozen=True):
    app: AppName
    environment: EnvironmentName
    release: ReleaseName
    build: Digest
    version: str
    commit: str
    created_at_s: int
    digest: Digest
    state: str = ""


class ReleaseShown(Struct, frozen=True):
    envelope: str
    digest: Digest


class State(Struct, frozen=True):
    """What an environment runs, what it can go back to (newest last), and the number of its last order."""

    runs: ReleaseRef | None
    stable: tuple[ReleaseRef, ...]
    sequence: int
    rollout: RolloutId | None = None


class RolloutHost(Struct, frozen=True):
    host: HostName
    state: str
    reason: str = ""
    release: ReleaseName | None = None
    """What the rollout last told it to run."""
    slow_starts_ms: dict[str, int] = {}
    """By name the instances that took long to become ready, and how long."""


class RolloutMigration(Struct, frozen=True):
    host: HostName
    state: str
    exit_code: int | None = None
    output: str = ""


class RolloutShown(Struct, frozen=True, kw_only=True, rename={"previous": "from"}):
    """The shape of `rollway swap|rollback|rollout show --json`."""

    id: RolloutId
    app: AppName
    environment: EnvironmentName
    release: ReleaseName
    previous: ReleaseName | None = None
    strategy: str
    state: RolloutState
    reason: str = ""
    asked_by: str = ""
    created: str = ""
    """ISO 8601, as every time in an answer."""
    changed: str = ""
    changed_ms: int = 0
    """To ask for what comes after it."""
    hosts: tuple[RolloutHost, ...] = ()
    migration: RolloutMigration | None = None
    stragglers: tuple[HostName, ...] = ()


class HostScaled(Struct, frozen=True, kw_only=True):
    host: HostName
    state: str
    reason: str = ""
    ready: dict[ProcessName, int] = {}
    wanted: dict[ProcessName, int] = {}


class ScaleShown(Struct, frozen=True, kw_only=True):
    """The shape of `rollway scale --json`."""

    app: AppName
    environment: EnvironmentName
    release: ReleaseName | None
    state: Literal["scaling", "done", "failed"]
    counts: dict[ProcessName, int]
    hosts: tuple[HostScaled, ...] = ()
    stragglers: tuple[HostName, ...] = ()
    rollout: RolloutId | None = None
    """One that is under way and brings its counts along."""
    version: str = ""
    """To ask for what comes after it."""
    changed: bool = False


class Planned(Struct, frozen=True):
    """What a rollout would do, in lines for a person."""

    plan: tuple[str, ...]


class AppStatus(Struct, frozen=True):
    app: AppName
    environment: EnvironmentName
    release: ReleaseName | None
    state: str
    ready: int
    wanted: int
    to: ReleaseName | None = None
    """What is being rolled out, with how many hosts have arrived of how many; all None when nothing is."""
    hosts_done: int | None = None
    hosts: int | None = None
    aside: dict[HostName, str] = {}
    """Hosts that take part in no rollout of it, each with why: a person `pinned` a release or `drained` the host."""
    unknown: tuple[HostName, ...] = ()
    """Hosts that are to run it and are not connected: `ready` and `wanted` leave them out."""


class HostStatus(Struct, frozen=True):
    host: HostName
    address: str
    connected: bool
    labels: dict[str, str] = {}
    environments: tuple[EnvironmentName, ...] = ()
    since: str = ""
    """Since when it is connected, or gone, as far as the coordinator knows."""
    version: str = ""
    """Of its agent; empty as long as it never connected."""


class HostTokenMade(Struct, frozen=True):
    """The shape of `rollway host token --json`."""

    token: str
    name: HostName | None
    environments: tuple[EnvironmentName, ...]
    labels: dict[str, str]
    expires: str


class HostMember(Struct, frozen=True):
    """The shape of `rollway host label|remove --json`."""

    host: HostName
    environments: tuple[EnvironmentName, ...]
    labels: dict[str, str]


class Status(Struct, frozen=True):
    apps: tuple[AppStatus, ...]
    hosts: tuple[HostStatus, ...]


class LeaseReleased(Struct, frozen=True):
    """The shape of `rollway lease release --json`."""

    app: AppName
    environment: EnvironmentName
    process: ProcessName
    host: HostName


class LeaseShown(Struct, frozen=True):
    """The shape of `rollway lease list --json`; `left_ms` is None where it has no end."""

    app: AppName
    environment: EnvironmentName
    process: ProcessName
    host: HostName
    connected: bool
    left_ms: int | None = None
