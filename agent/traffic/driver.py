"""What a driver of load balancers is: three calls, and what a rollout relies on in them.

Rules: `wish` is the whole truth, and never waits; a driver makes it so and keeps it so whatever its balancer forgets;
`standing` is what the balancer showed *since* the last wish, or unknown. A driver that fails or hangs so stops a
rollout, and takes nobody's server away. `conformance` tries a driver for all of that.
"""

from typing import Protocol

from agent.model.balancer import Standing, Wish


class Driver(Protocol):
    """One environment's load balancers, as one host speaks to them."""

    def wish(self, wish: Wish) -> None:
        """All servers of this host that there are to be from now on."""

    def standing(self, server: str, *, admitted: bool) -> Standing:
        """How far all balancers are with one server, given whether it is wished in."""

    async def run(self) -> None:
        """Work until cancelled; never ends by itself, never raises for what a balancer does."""
