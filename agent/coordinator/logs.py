"""Log records of all hosts of an environment as one stream, while somebody reads.

Rules: a reader that is slow loses records, counted in a record of their own, and slows nobody; a host that goes away
ends its part of the stream. Each record gets the name of its host.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from agent.coordinator.hosts import Hosts
from agent.errors import UnreachableError
from agent.model.ids import HostName
from agent.wire.messages import TailLines, TailLogs

Batches = MemoryObjectReceiveStream[bytes]


@asynccontextmanager
async def tail(hosts: Hosts, members: Iterable[HostName], ask: TailLogs) -> AsyncGenerator[Batches, None]:
    """Batches of records, each ending in a newline, from the connected hosts among `members`."""
    connected = [host for host in members if hosts.links.is_connected(host)]
    if not connected:
        raise UnreachableError(
            f"cannot read the logs of {ask.app} in {ask.environment}: none of its hosts is connected",
            "See `rollway status`.",
        )
    send, receive = anyio.create_memory_object_stream[bytes](0)
    async with anyio.create_task_group() as tasks:
        with send, receive:
            for host in connected:
                tasks.start_soon(_forward, hosts, host, ask, send.clone())
            send.close()
            yield receive
        tasks.cancel_scope.cancel()


async def _forward(hosts: Hosts, host: HostName, ask: TailLogs, out: MemoryObjectSendStream[bytes]) -> None:
    with out:
        try:
            async with hosts.links.tail(host, ask) as lines:
                while (batch := await lines.receive()) is not None:
                    if records := _records(host, batch):
                        await out.send(records)
        except UnreachableError as error:
            await out.send(_event(host, event="no logs of this host", reason=error.error))
        except anyio.BrokenResourceError:
            pass  # The reader has left.


def _records(host: HostName, batch: TailLines) -> bytes:
    mark = b'{"host":' + msgspec.json.encode(host) + b","
    lines = [line.encode().strip() for line in batch.lines]
    records = [mark + line[1:] if line.startswith(b'{"') else line for line in lines]
    if batch.dropped:
        records.append(_event(host, event="log records were lost", lost=batch.dropped).strip())
    return b"".join(record + b"\n" for record in records)


def _event(host: HostName, **fields: str | int) -> bytes:
    return msgspec.json.encode({"host": host, "level": "warning", **fields}) + b"\n"
