"""Everything that a request may use, put together once."""

from pathlib import Path
from typing import Self

import anyio
from msgspec import Struct

from agent.coordinator import identity
from agent.coordinator.builds import Builds
from agent.coordinator.configs import Configs
from agent.coordinator.db import environments, fleet, members
from agent.coordinator.db.engine import Database
from agent.coordinator.enrolment import Enrolment
from agent.coordinator.environments import Environments
from agent.coordinator.hosts import Hosts
from agent.coordinator.keys import CoordinatorKey
from agent.coordinator.leases import Leases
from agent.coordinator.orders import Orders
from agent.coordinator.releases import Releases
from agent.coordinator.rollouts import Rollouts
from agent.coordinator.scaling import Scaling
from agent.coordinator.tokens import Tokens
from agent.errors import FailedError
from agent.model.roles import CoordinatorSettings
from agent.stores.directory import DirectoryStore
from agent.stores.store import Store

IDENTITY = "identity.age"
BOOTSTRAP = "bootstrap_token"


class Server(Struct, frozen=True, kw_only=True):
    database: Database
    store: Store
    tokens: Tokens
    environments: Environments
    builds: Builds
    configs: Configs
    releases: Releases
    hosts: Hosts
    leases: Leases
    rollouts: Rollouts
    orders: Orders
    scaling: Scaling
    enrolment: Enrolment

    @classmethod
    async def open(cls, settings: CoordinatorSettings, database: Database) -> Self:
        """Over what is stored, in a new epoch."""
        state_dir = Path(settings.state_dir)
        store_dir = Path(settings.store.removeprefix("file://"))
        incoming = store_dir / "incoming"
        try:
            key = CoordinatorKey.of(state_dir / IDENTITY)
            store = DirectoryStore(store_dir)
            await anyio.to_thread.run_sync(_clean, store, incoming)
        except OSError as error:
            raise FailedError(
                f"cannot open {error.filename}: {error.strerror}", "Give the coordinator folders that it may write to."
            ) from error
        epoch = await database.run(fleet.next_epoch)
        known, decided = await database.run(fleet.list_hosts), await database.run(members.every)
        leases = await Leases.load(database)
        hosts = Hosts(database, key, epoch, known, decided, leases=leases, lease_ms=settings.lease_ms)
        kept = Environments(database, key, hosts.served)
        builds, releases = Builds(database, store, incoming), Releases(database, store, kept)
        rollouts = Rollouts(database, hosts, epoch)
        hosts.follower = rollouts
        return cls(
            database=database,
            store=store,
            tokens=await Tokens.load(database, state_dir / BOOTSTRAP),
            environments=kept,
            builds=builds,
            configs=Configs(database, kept),
            releases=releases,
            hosts=hosts,
            leases=leases,
            rollouts=rollouts,
            orders=Orders(database, releases, kept, hosts),
            scaling=Scaling(database, kept, builds, releases, hosts),
            enrolment=Enrolment(database, hosts, Path(settings.tls.ca).parent, identity.urls(settings)),
        )

    async def converge_all(self) -> None:
        """Give every host in no rollout what its environments run: a rollout may have ended just before a kill."""
        for row in await self.database.run(environments.every):
            await self.rollouts.converge(row.app, row.environment)


def _clean(store: DirectoryStore, incoming: Path) -> None:
    """Remove what an upload left that a kill cut off."""
    incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
    store.sweep()
    for folder in incoming.iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
