"""Log records as their readers get them: each with its host's name in front, and a word for those that were lost."""

import msgspec

from agent.model.ids import HostName
from agent.wire.messages import TailLines


def records(host: HostName, batch: TailLines) -> list[bytes]:
    """The records of `batch`, a line each."""
    mark = b'{"host":' + msgspec.json.encode(host) + b","
    lines = [line.encode().strip() for line in batch.lines]
    found = [(mark + line[1:] if line.startswith(b'{"') else line) + b"\n" for line in lines]
    return [*found, lost(host, batch.dropped)] if batch.dropped else found


def lost(host: HostName, count: int) -> bytes:
    """What stands in the place of records that nobody took in time."""
    told = {"host": host, "level": "warning", "event": "log records were lost", "lost": count}
    return msgspec.json.encode(told) + b"\n"
