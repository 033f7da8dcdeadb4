"""Log records for somebody who asked over the link: the last ones, then, if asked, each new one.

Rules: bounded on both sides; what a slow reader does not take is dropped by the supervisor, and its count goes along.
"""

from collections.abc import AsyncGenerator
from typing import Final

from agent.supervisor.supervisor import Supervisor
from agent.wire.messages import TailLines, TailLogs

LINES_MAX: Final = 10_000


async def tail(supervisor: Supervisor, ask: TailLogs) -> AsyncGenerator[TailLines, None]:
    """Answer `ask`. Following begins before the last lines are read, with nothing in between: no record comes twice."""
    where = (ask.app, ask.environment, ask.process, ask.slot)
    lines = max(0, min(ask.lines, LINES_MAX))
    if not ask.follow:
        yield _lines(ask, supervisor.tail(*where, lines=lines), 0)
        return
    with supervisor.follow(*where) as follower:
        yield _lines(ask, supervisor.tail(*where, lines=lines), 0)
        while True:
            records, dropped = await follower.take()
            yield _lines(ask, records, dropped)


def _lines(ask: TailLogs, records: list[bytes], dropped: int) -> TailLines:
    return TailLines(tail=ask.tail, lines=tuple(record.decode() for record in records), dropped=dropped)
