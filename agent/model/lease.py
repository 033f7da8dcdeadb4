"""The lease of a singleton: which host may run it, asked for by hosts and granted by the coordinator.

A host asks for so many milliseconds, counted by its own CLOCK_BOOTTIME from the moment before it asked; by then its
instance is gone, should no answer come any more. The coordinator counts as many from the moment in which it answers,
and a margin. No moment of one machine's clock is ever compared with another's.
"""

from typing import Final, NamedTuple

from msgspec import Struct

from agent.model.ids import AppName, EnvironmentName, ProcessName
from agent.model.units import Milliseconds

WITHOUT_END: Final = -1
"""In the place of milliseconds: `on_partition = "keep"`."""


class LeaseName(NamedTuple):
    """Of one process type in one environment: at most one host has it."""

    app: AppName
    environment: EnvironmentName
    process: ProcessName

    def __str__(self) -> str:
        return ".".join(self)


class LeaseAsk(Struct, frozen=True, kw_only=True):
    """What a host says of one lease; one of which it says nothing it does not have, and nothing of it lives there."""

    name: LeaseName
    hold_ms: Milliseconds
    """For how long it is asked for."""
    bound_ms: Milliseconds = 0
    """How long an instance may live on here without any answer; 0: there is no lease, so none lives."""
    wants: bool = True
    """False: it is renewed while something lives, and not to be had anew."""
    total: int = 0
    """Not 0: no lease is asked for, but a share of so many in the whole environment (`total = N`)."""


class LeaseAnswer(Struct, frozen=True, kw_only=True):
    name: LeaseName
    granted: bool
    holder: str = ""
    """Which other host has it, or is to have it."""
    share: int = 0
    """Of a total: how many this host is to run."""
