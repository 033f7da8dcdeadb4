"""Log records of all hosts of an environment as one stream, while somebody reads.

Rules: each record gets the name of its host. A host that gives none is named with why, in a record of two fields,
`host` and `error`: silence would read as "nothing was logged". Asked for the newest records only, all hosts answer
within a bound and their records come in order of time; followed, they come as they come. A reader that is slow loses
records, counted in a record of their own, and slows nobody; a host that goes away ends its part of the stream.
"""

import re
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Final

import anyio
import anyio.to_thread
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from agent.coordinator.hosts import Hosts
from agent.errors import UnreachableError
from agent.link.accept import Tail
from agent.model.ids import HostName
from agent.wire.messages import TailLines, TailLogs
from agent.wire.tailed import lost as lost_of
from agent.wire.tailed import records as records_of

ANSWER_S: Final = 3.0
"""How long a host may say nothing when it is not followed."""
MERGED_BYTES_MAX: Final = 64 << 20
"""What the records of all hosts may take while they are put in order."""
_LEFT: Final = "is no longer connected"
_CHUNK_BYTES: Final = 256 << 10
_TS: Final = re.compile(rb'\{"host":"[^"]*","ts":"([^"]*)"')

Chunks = MemoryObjectReceiveStream[bytes]
Out = MemoryObjectSendStream[bytes]
Stamped = tuple[bytes, bytes]
"""A record behind its time."""


@asynccontextmanager
async def tail(hosts: Hosts, members: Sequence[HostName], ask: TailLogs) -> AsyncGenerator[Chunks, None]:
    """Pieces of the stream of records, each record ending in a newline."""
    connected = [host for host in members if hosts.links.is_connected(host)]
    if not connected:
        raise UnreachableError(
            f"cannot read the logs of {ask.app} in {ask.environment}: none of its hosts is connected",
            "See `rollway status`.",
        )
    gone = b"".join(_error(host, "is not connected") for host in members if host not in connected)
    send, receive = anyio.create_memory_object_stream[bytes](0)
    async with anyio.create_task_group() as tasks:
        with send, receive:
            if gone:
                tasks.start_soon(_send, gone, send.clone())
            if ask.follow:
                for host in connected:
                    tasks.start_soon(_forward, hosts, host, ask, send.clone())
            else:
                tasks.start_soon(_merge, hosts, connected, ask, send.clone())
            send.close()
            yield receive
        tasks.cancel_scope.cancel()


async def _send(chunks: bytes, out: Out) -> None:
    with out:
        try:
            for start in range(0, len(chunks), _CHUNK_BYTES):
                await out.send(chunks[start : start + _CHUNK_BYTES])
        except anyio.BrokenResourceError:
            pass  # The reader has left.


async def _forward(hosts: Hosts, host: HostName, ask: TailLogs, out: Out) -> None:
    with out:
        try:
            async with hosts.links.tail(host, ask) as lines:
                while (batch := await lines.receive()) is not None:
                    if records := records_of(host, batch):
                        await out.send(b"".join(records))
            await out.send(_error(host, _LEFT))
        except UnreachableError as error:
            await out.send(_error(host, error.error))
        except anyio.BrokenResourceError:
            pass  # The reader has left.


async def _merge(hosts: Hosts, connected: Sequence[HostName], ask: TailLogs, out: Out) -> None:
    answers: dict[HostName, deque[Stamped]] = {host: deque() for host in connected}
    async with anyio.create_task_group() as asked:
        for host, records in answers.items():
            asked.start_soon(_collect, hosts, host, ask, records, MERGED_BYTES_MAX // len(connected))
    await _send(await anyio.to_thread.run_sync(_in_order, list(answers.values())), out)


async def _collect(hosts: Hosts, host: HostName, ask: TailLogs, records: deque[Stamped], bytes_max: int) -> None:
    """The newest records of one host, or why there are none."""
    size_bytes = lost = 0
    ts = lost_ts = b""
    try:
        async with hosts.links.tail(host, ask) as lines:
            while (batch := await _answer(lines)) is not None:
                for record in records_of(host, batch):
                    ts = found[1] if (found := _TS.match(record)) else ts
                    records.append((ts, record))
                    size_bytes += len(record)
                while size_bytes > bytes_max:
                    lost_ts, record = records.popleft()
                    size_bytes -= len(record)
                    lost += 1
        if not hosts.links.is_connected(host):
            records.appendleft((b"", _error(host, _LEFT)))
    except UnreachableError as error:
        records.appendleft((b"", _error(host, error.error)))
    except TimeoutError:
        records.appendleft((b"", _error(host, f"did not answer within {ANSWER_S:.0f} s")))
    if lost:
        records.appendleft((lost_ts, lost_of(host, lost)))


async def _answer(lines: Tail) -> TailLines | None:
    with anyio.fail_after(ANSWER_S):
        return await lines.receive()


def _in_order(answers: Iterable[Iterable[Stamped]]) -> bytes:
    stamped = sorted((record for records in answers for record in records), key=itemgetter(0))
    return b"".join(record for _, record in stamped)


def _error(host: HostName, error: str) -> bytes:
    return msgspec.json.encode({"host": host, "error": error}) + b"\n"
