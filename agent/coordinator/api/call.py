"""One request as a handler sees it: the server, who asks, names that were checked, a body within its bound."""

from typing import Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from agent.coordinator.server import Server
from agent.coordinator.tokens import Caller
from agent.errors import UsageError
from agent.model import ids
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName, RolloutId
from agent.web.bounds import read_body

BODY_BYTES_MAX: Final = 2 << 20

T = TypeVar("T")


class Call(Struct, frozen=True):
    """Everything read from it raises UsageError when it is not what it should be."""

    server: Server
    request: web.Request
    caller: Caller

    @property
    def app(self) -> AppName:
        return AppName(_name("app", self.request.match_info["app"]))

    @property
    def environment(self) -> EnvironmentName:
        return EnvironmentName(_name("environment", self.request.match_info["environment"]))

    @property
    def digest(self) -> Digest:
        text = self.request.match_info["digest"]
        if not ids.is_digest(text):
            raise UsageError(f"expected a digest sha256:…, found {text[:80]!r}")
        return Digest(text)

    @property
    def release(self) -> ReleaseName:
        text = self.request.match_info["release"]
        if not ids.is_release_name(text):
            raise UsageError(f"expected {ids.RELEASE_EXPECTED}, found {text[:80]!r}")
        return ReleaseName(text)

    @property
    def rollout(self) -> RolloutId:
        return RolloutId(self.request.match_info["rollout"])

    @property
    def where(self) -> tuple[AppName | None, EnvironmentName | None]:
        """What `?app=&environment=` narrow the answer to."""
        app, environment = self.request.query.get("app"), self.request.query.get("environment")
        return (
            AppName(_name("app", app)) if app else None,
            EnvironmentName(_name("environment", environment)) if environment else None,
        )

    @property
    def process(self) -> ProcessName | None:
        text = self.request.query.get("process")
        return ProcessName(_name("process type", text)) if text else None

    def number(self, key: str, default: int | None, largest: int) -> int | None:
        """A number of the query, from 0 to `largest`."""
        text = self.request.query.get(key)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > len(str(largest)) or int(text) > largest:
            raise UsageError(f"{key}: expected a number from 0 to {largest}, found {text[:40]!r}")
        return int(text)

    async def bytes(self, limit_bytes: int = BODY_BYTES_MAX) -> bytes:
        return await read_body(self.request, limit_bytes)

    async def body(self, kind: type[T], limit_bytes: int = BODY_BYTES_MAX) -> T:
        """The JSON body as a `kind`."""
        try:
            return msgspec.json.decode(await self.bytes(limit_bytes), type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise UsageError(f"cannot read the body: {error}") from error


def answer(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def _name(what: str, text: str) -> str:
    if not ids.is_name(text):
        raise UsageError(f"{what}: expected {ids.NAME_EXPECTED}, found {text[:80]!r}")
    return text
