"""The driver for every other load balancer: a command of the operator's, asked again and again (docs/drivers.md).

Rules: it is given the whole wish each time and answers how far it is, so it needs no memory, and an answer that is lost
costs a moment. What it says counts for the wish that it was given and until the next answer is due; a command that
fails, hangs or says nonsense makes all servers unknown. Not handled here: what it does.
"""

from collections.abc import Callable
from typing import Final

import anyio
import structlog

from agent.decisions.process import restart
from agent.decisions.process.state import Exited
from agent.linux import hook
from agent.linux.executable import ExecFailure
from agent.model.balancer import Standing, Wish, owned_prefix
from agent.model.ids import HostName
from agent.wire import hooks

WITHIN_S: Final = 10.0
BUSY_S: Final = 0.5
"""The pause between two runs while a server is not where it is wished."""
REST_S: Final = 5.0
"""The pause otherwise: so long a balancer may have forgotten what it was told."""
_NOT_ASKED: Final = "not asked yet"


class Hooks:
    """One environment's balancer by a command, as one host speaks to it."""

    def __init__(
        self, host: HostName, command: tuple[str, ...], *, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._prefix, self._command, self._on_change = owned_prefix(host), command, on_change
        self._wish: Wish | None = None
        self._wished = anyio.Event()
        self._told: dict[str, Standing] | str = _NOT_ASKED
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(command=command[0])

    def wish(self, wish: Wish) -> None:
        """All that there is to be from now on; never waits. Until it is answered nothing stands."""
        self._wish = wish
        self._wished.set()
        self._take(_NOT_ASKED)

    def standing(self, server: str, *, admitted: bool) -> Standing:  # noqa: ARG002 - one balancer has one answer
        """How far it is with one server."""
        if isinstance(self._told, str):
            return Standing(state="unknown", detail=self._told)
        wished = self._wish is not None and any(one.name == server for one in self._wish.servers)
        unsaid = (
            Standing(state="unknown", detail="the command says nothing of it") if wished else Standing(state="gone")
        )
        return self._told.get(server, unsaid)

    async def run(self) -> None:
        """Keep it so, until cancelled."""
        while True:
            if (wish := self._wish) is None:
                await self._wished.wait()
                continue
            self._wished = anyio.Event()
            told = await self._asked(wish)
            if self._wished.is_set():  # it answers a wish of before
                continue
            self._take(told)
            with anyio.move_on_after(REST_S if self._is_settled(wish) else BUSY_S):
                await self._wished.wait()

    async def _asked(self, wish: Wish) -> dict[str, Standing] | str:
        given = hooks.question(wish, self._prefix)
        try:
            ran = await hook.run(
                self._command, given, within_s=WITHIN_S, output_bytes_max=hooks.ANSWER_BYTES_MAX, env={}
            )
        except OSError as error:
            return f"the command cannot be run: {error.strerror}"
        if isinstance(ran, ExecFailure):
            return f"the command cannot be run: {ran}"
        if ran.status is None:
            return f"the command did not end within {WITHIN_S:g} s"
        if ran.status.code != 0:
            how = restart.describe(Exited(code=ran.status.code, signal=ran.status.signal, jitter=0))
            why = hooks.printable(ran.errors.decode(errors="replace"))
            return f"the command {how}: {why}" if why else f"the command {how}"
        return hooks.parse_answer(ran.output)

    def _is_settled(self, wish: Wish) -> bool:
        expected = {one.name: ("admitted",) if one.admitted else ("drained", "gone") for one in wish.servers}
        return all(self.standing(name, admitted=True).state in states for name, states in expected.items())

    def _take(self, told: dict[str, Standing] | str) -> None:
        if told == self._told:
            return
        if isinstance(told, str) and told != _NOT_ASKED:
            self._log.warning("load balancer cannot be kept as wished", reason=told)
        self._told = told
        self._on_change()
