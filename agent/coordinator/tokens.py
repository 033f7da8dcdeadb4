"""Who may call the API: holders of tokens, by role.

Rules: a token is known to its holder alone; stored is its SHA-256, compared in constant time with every one there is.
A role may do what the roles below it may.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from agent.coordinator.db import fleet
from agent.coordinator.db.engine import Database
from agent.coordinator.db.fleet import TokenRow
from agent.errors import ForbiddenError, UnauthorizedError
from agent.linux import atomic, clock

Role = Literal["viewer", "operator", "admin"]

_RANK: Final[dict[str, int]] = {"viewer": 1, "operator": 2, "admin": 3}
_BEARER: Final = "Bearer "


class Caller(Struct, frozen=True):
    name: str
    role: str


class Tokens:
    """The tokens there are, in memory."""

    def __init__(self, rows: Iterable[TokenRow]) -> None:
        self._rows = tuple(rows)

    @classmethod
    async def load(cls, database: Database, bootstrap: Path) -> "Tokens":
        """Those of the database, and, as an admin's, the one in the file `bootstrap`, made where there is none at all.

        The file is how the first operator gets in, who can read it on this machine; once it is removed it stays away.
        """
        now_ms = clock.now().wall_ms
        if not await database.run(fleet.list_tokens):
            with suppress(FileExistsError):
                atomic.create_exclusive(bootstrap, f"{secrets.token_urlsafe(32)}\n".encode())
        try:
            first = TokenRow(hash=_hash(atomic.read(bootstrap).decode().strip()), name="bootstrap", role="admin")
        except FileNotFoundError:
            first = None
        if first is not None:
            await database.run(lambda connection: fleet.store_token(connection, first, now_ms))
        return cls(await database.run(fleet.list_tokens))

    def admit(self, authorization: str, role: Role) -> Caller:
        """Who shows this `Authorization` header, if they may do what `role` may."""
        if not authorization.startswith(_BEARER):
            raise UnauthorizedError(
                "no token was shown",
                "Set ROLLWAY_TOKEN, or use the client.toml that `rollway up` or an admin gave you.",
            )
        shown = _hash(authorization.removeprefix(_BEARER).strip())
        found = [row for row in self._rows if hmac.compare_digest(row.hash, shown)]
        if not found:
            raise UnauthorizedError("the token is not known here", "Ask an admin of this coordinator for a token.")
        if _RANK[found[0].role] < _RANK[role]:
            raise ForbiddenError(
                f"{found[0].name} is {found[0].role}, and this needs the role {role}",
                f"Ask an admin for a token of the role {role}.",
            )
        return Caller(found[0].name, found[0].role)


def _hash(token: str) -> str:
    # aiohttp gives what is no UTF-8 in a header as surrogates.
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
