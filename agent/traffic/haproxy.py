"""The HAProxy driver: keeps every HAProxy of an environment as it is wished, by its Runtime API.

Rules: one task for each stats socket, which looks, decides (`decisions.balancer`), says what was decided, and looks
again: nothing that it was told counts before it is seen. A driver that cannot do it says so in `standing`, for ever if
need be, and never stops trying. Not handled here: when a server is to be admitted, or may be stopped.
"""

from collections.abc import Callable, Sequence
from typing import Final

import anyio
import structlog

from agent.decisions import balancer
from agent.decisions.balancer import BalancerDecision, BalancerEvent, BalancerState, Looked, Unanswered, Wished
from agent.errors import UsageError
from agent.linux import clock
from agent.model.address import parse_address
from agent.model.balancer import BalancerCommand, Standing, Wish, owned_prefix
from agent.model.ids import HostName
from agent.traffic.runtime_api import ask
from agent.wire import haproxy
from agent.wire.haproxy import Refusal

OPTIONS: Final = ("check", "inter", "1s", "fall", "2")
"""Of a server that is added: `default-server` does not hold for those. A host that dies is out after two seconds."""


class Haproxy:
    """All HAProxies in front of one app and environment, as one host of it speaks to them."""

    def __init__(
        self,
        host: HostName,
        sockets: Sequence[str],
        backend: str,
        *,
        options: Sequence[str] = OPTIONS,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Raise UsageError where a word is none that HAProxy could be told; nothing is asked yet."""
        _check(sockets, backend, options)
        self._prefix = owned_prefix(host)
        self._backend = backend
        self._options = tuple(options)
        self._on_change = on_change
        self._states = {where: BalancerState() for where in sockets}
        self._wishes = {where: anyio.Event() for where in sockets}
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(backend=backend)

    def wish(self, wish: Wish) -> None:
        """All that there is to be from now on; never waits. Until the balancers were looked at nothing stands."""
        for where in self._states:
            self._take(where, Wished(wish))
            self._wishes[where].set()

    def standing(self, server: str, *, admitted: bool) -> Standing:
        """How far all of them are with a server, given whether it is wished in."""
        return balancer.overall(server, self._states, admitted=admitted)

    async def run(self) -> None:
        """Keep them so, until cancelled."""
        async with anyio.create_task_group() as tasks:
            for where in self._states:
                tasks.start_soon(self._keep, where)

    async def _keep(self, where: str) -> None:
        refused: dict[str, str] = {}
        while True:
            self._wishes[where] = anyio.Event()
            decision = self._take(where, await self._look(where, refused))
            refused = await self._say(where, decision.commands)
            with anyio.move_on_after(decision.look_again_ms / 1000):
                await self._wishes[where].wait()

    async def _look(self, where: str, refused: dict[str, str]) -> BalancerEvent:
        answer = await ask(where, haproxy.look_line(self._backend))
        look = answer if isinstance(answer, Refusal) else haproxy.parse_look(answer)
        if isinstance(look, Refusal):
            return Unanswered(f"{look.reason} ({look.what_to_do})")
        return Looked(look=look, refused=refused)

    async def _say(self, where: str, commands: Sequence[BalancerCommand]) -> dict[str, str]:
        """Say them in their order; gives what was refused, by server. After a silence nothing more is said."""
        refused: dict[str, str] = {}
        for command in commands:
            if command.server in refused:
                continue
            answer = await ask(where, haproxy.command_line(self._backend, command, self._options))
            if isinstance(answer, Refusal):
                refused[command.server] = answer.reason
                break
            refusal = haproxy.parse_done(command, answer)
            if refusal is not None:
                refused[command.server] = f"{refusal.reason} ({refusal.what_to_do})"
        return refused

    def _take(self, where: str, event: BalancerEvent) -> BalancerDecision:
        before = self._states[where]
        decision = balancer.step(before, event, self._prefix, clock.now())
        self._states[where] = decision.state
        self._tell(where, before, decision.state)
        if _shown(decision.state) != _shown(before):
            self._on_change()
        return decision

    def _tell(self, where: str, before: BalancerState, after: BalancerState) -> None:
        if after.failure and after.failure != before.failure:
            self._log.warning("load balancer cannot be kept as wished", socket=where, reason=after.failure)
        elif before.failure and not after.failure:
            self._log.info("load balancer answers", socket=where, balancer_pid=after.process)
        elif before.process not in (None, after.process):
            self._log.info("load balancer has begun anew: it is told everything again", socket=where)
        for server, standing in after.standings.items():
            was = before.standings.get(server)
            if was is None or was.state != standing.state:
                self._log.info("server behind the load balancer", server=server, state=standing.state, socket=where)


def _shown(state: BalancerState) -> tuple[object, ...]:
    """What `standing` tells of it."""
    return state.is_fresh, state.failure, state.standings


def _check(sockets: Sequence[str], backend: str, options: Sequence[str]) -> None:
    if not sockets:
        raise UsageError("no stats socket of HAProxy is named", 'Name at least one: sockets = ["/run/haproxy.sock"].')
    for where in sockets:
        if not where.startswith("/"):
            try:
                parse_address(where)
            except ValueError as error:
                raise UsageError(f"not a stats socket: {where!r}", f"Give an absolute path, or {error}.") from None
    if not haproxy.is_server_name(backend):
        raise UsageError(f"not the name of a backend: {backend!r}", "Use a-z, A-Z, 0-9, and any of `_.:-`.")
    if wrong := [option for option in options if not haproxy.is_server_option(option)]:
        raise UsageError(f"not a word that a server may have: {wrong[0]!r}", "Give one word of HAProxy's for each.")
