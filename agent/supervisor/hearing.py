"""What is done about the words of a process: each is an event for its instance, and heard for good once decided upon.

Rules: a notice stays in its socket until it is decided upon and that is on record: a next agent finds it there. The
status is shown as it is, some time after it was said. Which process is the main one is believed of nobody.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from agent.decisions.process.state import Event, Level
from agent.supervisor.finding import one_line
from agent.supervisor.notices import PAUSE_S, Notices, said
from agent.supervisor.process import Process
from agent.wire.sdnotify import Notice

STATUS_S: Final = 1.0
"""So often at most others are told of a new status."""
STATUS_CHARACTERS_MAX: Final = 200


class Observer(Protocol):
    """Of a process."""

    def cancel(self) -> None: ...


Observers = dict[Any, Observer]
"""By what each observes."""
Tell = Callable[[str, Mapping[str, str | int], Level], None]


class Hearing:
    """For one instance: `publish` shows its status to others."""

    def __init__(self, send: Callable[[Event], Awaitable[None]], tell: Tell, publish: Callable[[], None]) -> None:
        self.status = ""
        """Of the present process."""
        self._send: Final = send
        self._tell: Final = tell
        self._publish: Final = publish
        self._shows_status = False
        self._dealt_with: anyio.Event | None = None
        self._ignored: tuple[int, str] | None = None

    def dealt_with(self) -> None:
        """The last notice is decided upon."""
        if self._dealt_with is not None:
            self._dealt_with.set()

    def listen(self, process: Process, launch: int, observers: Observers, tasks: TaskGroup) -> None:
        """Hear it from its first word on: many processes never say one."""
        if process.notices is not None:
            process.notices.listen(partial(self._begin, process, process.notices, launch, observers, tasks))

    def _begin(self, process: Process, notices: Notices, launch: int, observers: Observers, tasks: TaskGroup) -> None:
        observers["notices"] = scope = anyio.CancelScope()
        tasks.start_soon(self.hear, process, notices, launch, scope, tasks)

    async def hear(
        self, process: Process, notices: Notices, launch: int, scope: anyio.CancelScope, tasks: TaskGroup
    ) -> None:
        with scope:
            while True:
                notice = await notices.next(lambda: process.tree)
                if notice.status is not None:
                    self._show(notice.status, tasks)
                if notice.main_pid not in (None, process.main.pid):
                    notice = await self._with_main(notice, process)
                self._dealt_with = anyio.Event()
                await self._send(said(notice, launch))
                await self._dealt_with.wait()
                notices.drop()

    async def _with_main(self, notice: Notice, process: Process) -> Notice:
        """The notice, without the main process that it names where that one cannot be."""
        await anyio.sleep(PAUSE_S)  # to look for it in the whole tree is dear
        pid = notice.main_pid or 0
        if not (wrong := await process.main.named(pid)):
            return notice
        if (pid, wrong) != self._ignored:  # told once, however often it is said
            self._ignored = (pid, wrong)
            self._tell("the main process that it names is ignored", {"pid": pid, "reason": wrong}, "warning")
        return replace(notice, main_pid=None)

    def _show(self, status: str, tasks: TaskGroup) -> None:
        self.status = one_line(status, STATUS_CHARACTERS_MAX)
        if not self._shows_status:
            self._shows_status = True
            tasks.start_soon(self._publish_soon)

    async def _publish_soon(self) -> None:
        await anyio.sleep(STATUS_S)
        self._shows_status = False
        self._publish()
