"""Takes up the process that an earlier agent started, by its record and by what the FD store gave back.

Rules: a pidfd is believed only where it means the process of the record; what came back and was not it is dropped.
Where the store is empty, what has a path is opened again.
"""

import os

from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec.structs import replace

from agent.linux import pidfd
from agent.linux.killtree import NO_PID
from agent.model.ids import ReleaseName
from agent.supervisor.folder import STREAMS
from agent.supervisor.logs import Marks
from agent.supervisor.pipes import taken_as
from agent.supervisor.process import Process, pidfd_name
from agent.supervisor.records import Record
from agent.supervisor.surroundings import Surroundings
from agent.supervisor.ways import Ways, kept_as


async def resume(around: Surroundings, record: Record, release: ReleaseName, tasks: TaskGroup) -> Process | None:
    """Take up the process that an earlier agent started, living or not; None where there is none, or never was.

    One whose start was ordered and is not in the record is known by its pidfd alone: if that one does not live, it
    never left its gate; without a store nobody has been served by it yet, and its tree is ended.
    """
    process = await to_thread.run_sync(_resume, around, record)
    process.read(tasks, release)
    if process.pid != NO_PID:
        return process
    await process.kill()
    await process.close()
    return None


def _resume(around: Surroundings, record: Record) -> Process:
    key = record.key
    pid, start_time = record.pid, record.start_time
    handle = around.inherited.take(pidfd_name(key), pidfd.is_pidfd)
    held = pidfd.pid_of(handle) if handle is not None else None
    if pid is None and held is not None:
        pid, start_time = held
    main = record.main or ((pid, start_time) if pid is not None and start_time is not None else None)
    if handle is not None and held is not None and held != main:
        os.close(handle)  # of an earlier process of this slot, or an earlier main process of this one
        handle = None
    if handle is None and main is not None:
        handle = pidfd.open_pidfd(*main)
        if handle is not None:
            around.store.drop(pidfd_name(key))  # of what came back and was not it
            around.store.put(pidfd_name(key), handle)
    ways = Ways.adopt(around, key)
    if any(pipe.is_open for pipe in ways.pipes):
        around.logs.journal(key)  # made anew where it did not come back
    around.logs.keep()
    tree = replace(record.tree, pid=NO_PID if pid is None else pid, start_time=start_time)
    return Process(around, key, tree, handle=handle, start_time=start_time, ways=ways)


def missing(around: Surroundings, record: Record) -> list[str]:
    """Under which names the FD store is to have more of the process of a record than came back."""
    if record.pid is None:
        return []
    key, marks, inherited = record.key, Marks(around.logs.found(record.key)), around.inherited
    has_notify = os.path.lexists(around.folder(key).notify)
    expected = {
        pidfd_name(key): 1,
        kept_as(key): len(STREAMS) + has_notify,
        **{taken_as(str(key), name): 1 for name in STREAMS if marks[name].used},
    }
    return [name for name, count in expected.items() if inherited.count(name) < count]
