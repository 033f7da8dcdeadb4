"""A release: a build with the config of one environment, named, framed for signing, never modified; and the orders.

`Release`, `Order` and `RunOrder` are payloads of DSSE envelopes; what a host believes is the bytes of those payloads
alone.
"""

from typing import Literal

from msgspec import Struct

from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName
from agent.model.process import AppSpec


class ConfigValue(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`{"plain": …}` or `{"age": …}`, never both: age ciphertext (base64) that only the environment's key opens."""

    plain: str | None = None
    age: str | None = None

    def __post_init__(self) -> None:
        if (self.plain is None) == (self.age is None):
            raise ValueError('a config value is {"plain": …} or {"age": …}')


class Release(Struct, frozen=True, kw_only=True):
    """Everything a host needs to run it: which bytes, which config, which process types."""

    app: AppName
    environment: EnvironmentName
    name: ReleaseName
    build: Digest
    build_manifest: Digest
    """Digest of the build manifest's exact bytes, which lists the digest of each file."""
    version: str
    commit: str
    created_at_s: int
    config_version: int
    config: dict[str, ConfigValue]
    spec: AppSpec


OrderKind = Literal["swap", "rollback"]


class Order(Struct, frozen=True, kw_only=True):
    """What an operator asked for: this release, in this environment, after that release, as number `sequence`."""

    kind: OrderKind
    app: AppName
    environment: EnvironmentName
    release: ReleaseName
    release_digest: Digest
    """Digest of the release envelope's payload bytes."""
    replaces: ReleaseName | None
    replaces_digest: Digest | None
    sequence: int


class RunOrder(Struct, frozen=True, kw_only=True):
    """A command that an operator wants to be run once, on this host, in the identical environment of this release."""

    app: AppName
    environment: EnvironmentName
    host: HostName
    release: ReleaseName
    release_digest: Digest
    words: tuple[str, ...]
    """The command, run without a shell."""
    like: ProcessName | None
    """The process type whose user, limits and sandbox it has; None: the first that the app declares."""
