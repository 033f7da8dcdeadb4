"""Users of the sample app, as a process of its own: they ask without a pause and count every failed or wrong answer.

Half of them open a connection per request, half keep theirs; one more orders, with an id of its own, again and again
until it is confirmed. Rules: no request is tried again behind the count; a kept connection that the other end has
closed is replaced before the next request, as any client does. A request that was under way to a process in the moment
it was killed cannot be saved by anybody: it is counted apart, and only when it began before `killed` was said.

Spoken to by lines on stdin: `expect VERSION…`, `phase NAME`, `kill ADDRESS`, `killed`, `tally`, `end`; each is
answered by the tally as a line of JSON. The end of stdin ends it too.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

FRESH_PER_HOST: Final = 4
KEPT_PER_HOST: Final = 4
_TIMEOUT_S: Final = 10.0
_REASONS_MAX: Final = 10
_FAILURES: Final = (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, ValueError, KeyError)

T = TypeVar("T")


class Latency(Struct, frozen=True):
    """Milliseconds under which half, 95 % and 99 % of the answers came."""

    p50: float
    p95: float
    p99: float


class Tally(Struct, kw_only=True):
    fresh: int = 0
    """Requests answered on a connection of their own."""
    kept: int = 0
    failed: int = 0
    cut: int = 0
    """Under way to a process in the moment it was killed."""
    orders: int = 0
    """Confirmed."""
    reasons: list[str] = []
    """The first failures, in words."""
    latency: dict[str, Latency] = {}
    """By phase."""


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, address: str, port: int) -> "_Connection":
        return cls(*await asyncio.open_connection(address, port))

    @property
    def is_open(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()

    async def ask(self, request: bytes) -> tuple[int, dict[str, object]]:
        """Status and body of the answer; closes when the answer says so."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await self._reader.readexactly(int(fields["content-length"]))
        if fields.get("connection", "").lower() == "close":
            self.close()
        return int(head[0].split()[1]), msgspec.json.decode(body, type=dict[str, object])


class Load:
    """All users together."""

    def __init__(self, addresses: Sequence[str], port: int, *, pause_s: float, orders: bool) -> None:
        self._addresses = addresses
        self._port = port
        self._pause_s = pause_s
        self._orders_wanted = orders
        self._tally = Tally()
        self._allowed: frozenset[object] = frozenset()
        self._phase = "quiet"
        self._samples: dict[str, list[float]] = {}
        self._killed_host = ""
        self._killed_s: float | None = None

    async def run(self) -> None:
        """Do what is said; nobody asks for anything before it is known which answers are right."""
        async with anyio.create_task_group() as users:
            while (words := (await anyio.to_thread.run_sync(sys.stdin.readline)).split()) not in ([], ["end"]):
                begins = not self._allowed and words[0] == "expect"
                _answer(self.obey(*words))
                if begins:
                    users.start_soon(self._live)
            users.cancel_scope.cancel()
        _answer(self.obey("tally"))

    async def _live(self) -> None:
        async with anyio.create_task_group() as users:
            for address in self._addresses:
                for keeps in (False,) * FRESH_PER_HOST + (True,) * KEPT_PER_HOST:
                    users.start_soon(self._visit, address, keeps)
            if self._orders_wanted:
                users.start_soon(self._order)

    def obey(self, word: str, *values: str) -> Tally:
        match word:
            case "expect":
                self._allowed = frozenset(values)
            case "phase":
                self._phase = values[0]
            case "kill":
                self._killed_host, self._killed_s = values[0], None
            case "killed":
                self._killed_s = time.perf_counter()
            case _:
                self._tally.latency = {phase: percentiles(samples) for phase, samples in self._samples.items()}
        return self._tally

    async def _visit(self, address: str, keeps: bool) -> None:  # noqa: FBT001 - the same
        request = _request("GET", address, keeps=keeps)
        connection: _Connection | None = None
        while True:
            connection = await self._ask(address, connection if keeps else None, request)
            if connection is not None:
                if keeps:
                    self._tally.kept += 1
                else:
                    connection.close()
                    self._tally.fresh += 1
            await anyio.sleep(self._pause_s)

    async def _order(self) -> None:
        number = 0
        while True:
            number += 1
            body = json.dumps({"id": f"demo-{number}", "item": "tea"}).encode()
            confirmed: _Connection | None = None
            while confirmed is None:
                address = self._addresses[number % len(self._addresses)]
                request = _request("POST", address, keeps=False, body=body)
                confirmed = await self._ask(address, None, request, expected=201)
                await anyio.sleep(self._pause_s)
            confirmed.close()
            self._tally.orders += 1

    async def _ask(
        self, address: str, connection: _Connection | None, request: bytes, expected: int = 200
    ) -> _Connection | None:
        """Ask once; the connection after a right answer, None after a failure, which is counted."""
        began_s, phase, allowed = time.perf_counter(), self._phase, self._allowed
        if connection is not None and not connection.is_open:
            connection = None
        try:
            with anyio.fail_after(_TIMEOUT_S):
                connection = connection or await _Connection.to(address, self._port)
                status, answer = await connection.ask(request)
        except _FAILURES as error:
            if connection is not None:
                connection.close()
            self._count_failure(address, began_s, f"{type(error).__name__} {error}")
            return None
        self._samples.setdefault(phase, []).append((time.perf_counter() - began_s) * 1000)
        if status != expected or answer.get("version") not in allowed | self._allowed:
            connection.close()
            self._count_failure(address, None, f"status {status}, version {answer.get('version')}")
            return None
        return connection

    def _count_failure(self, address: str, began_s: float | None, reason: str) -> None:
        """`began_s` is None for a wrong answer, which no kill excuses."""
        was_killing = self._killed_s is None or (began_s is not None and began_s < self._killed_s)
        if began_s is not None and address == self._killed_host and was_killing:
            self._tally.cut += 1
            return
        self._tally.failed += 1
        if len(self._tally.reasons) < _REASONS_MAX:
            self._tally.reasons = [*self._tally.reasons, f"{self._phase}, {address}: {reason}"]


def _answer(tally: Tally) -> None:
    sys.stdout.write(f"{msgspec.json.encode(tally).decode()}\n")
    sys.stdout.flush()


def percentiles(samples: Sequence[float]) -> Latency:
    """The value that so many per cent of `samples`, at least one, do not exceed."""
    ordered = sorted(samples)
    return Latency(*(round(ordered[min(len(ordered) * per // 100, len(ordered) - 1)], 1) for per in (50, 95, 99)))


def _request(method: str, address: str, *, keeps: bool, body: bytes = b"") -> bytes:
    path = "/orders" if method == "POST" else "/"
    connection = "keep-alive" if keeps else "close"
    fields = {"Host": address, "Connection": connection, "Content-Length": len(body)}
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(head).encode() + body


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m agent.local.load", description="Ask, and count what fails.")
    parser.add_argument("port", type=int)
    parser.add_argument("addresses", nargs="+", metavar="address")
    parser.add_argument(
        "--pause-ms", type=float, default=40, help="of each user between an answer and the next request"
    )
    parser.add_argument(
        "--orders", action="store_true", help="one more user posts orders, as the sample app takes them"
    )
    words = parser.parse_args()
    load = Load(words.addresses, words.port, pause_s=words.pause_ms / 1000, orders=words.orders)
    anyio.run(load.run, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    main()
