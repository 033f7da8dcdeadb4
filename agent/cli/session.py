"""Runs a verb's work against the coordinator that the context names."""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

from agent.client.context import find_context

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

T = TypeVar("T")


def ask(work: "Callable[[Coordinator], Awaitable[T]]") -> T:
    """What `work` gives, once it is done; it may be interrupted."""
    context = find_context(os.environ)
    from agent.client.coordinator import Coordinator  # noqa: PLC0415 - 150 ms that `--help` need not wait

    async def main() -> T:
        async with Coordinator(context) as coordinator:
            return await work(coordinator)

    return anyio.run(main)
