"""The end of a process, phase by phase: linger, then the signal, once, to the main process; grace; then SIGKILL to all.

Linger lets what is in hand leave by itself. It lasts at least `LINGER_LEAST_MS` (connections in the middle of their
handshake are seen only a moment later), at most the policy's linger. An end that a probe caused begins with the signal.
"""

from typing import Final

from agent.decisions.process.state import ConnectionsLeft, Ending
from agent.model.process import StopPolicy
from agent.model.units import Instant, Milliseconds

LINGER_LEAST_MS: Final = 1_000
KILL_AGAIN_MS: Final = 5_000
"""A process that outlives SIGKILL sits in the kernel: kill again so often."""


def lingering(stop: StopPolicy, linger_ms: Milliseconds | None, now: Instant, *, listens: bool) -> Ending:
    """The beginning of an ordered stop. What does not listen has no connections to wait for, only its notice to see."""
    linger = stop.linger_ms if linger_ms is None else linger_ms
    least = min(linger, LINGER_LEAST_MS)
    until = now.after(linger if listens else least)
    return Ending(phase="linger", until=until, earliest=now.after(least))


def signalled(grace_ms: Milliseconds, now: Instant) -> Ending:
    """The process gets its signal now."""
    until = now.after(grace_ms)
    return Ending(phase="grace", until=until, earliest=until)


def killing(now: Instant) -> Ending:
    until = now.after(KILL_AGAIN_MS)
    return Ending(phase="killing", until=until, earliest=until)


def is_due(ending: Ending, now: Instant) -> bool:
    return now.boottime_ms >= ending.until.boottime_ms


def may_end_early(ending: Ending, left: ConnectionsLeft, now: Instant) -> bool:
    """Whether linger has nothing more to wait for."""
    nothing = left.queued == left.established == left.syn_received == 0
    return ending.phase == "linger" and nothing and now.boottime_ms >= ending.earliest.boottime_ms
