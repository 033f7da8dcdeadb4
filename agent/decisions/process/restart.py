"""After an end: was it a failure, does the instance come back, and when.

Rules: the first restart after `first_delay`, then `base_delay` doubled up to `max_delay`; jitter only adds, at most a
quarter; never give up. Clean is systemd's list: exit code 0, or SIGHUP, SIGINT, SIGTERM, SIGPIPE. Unknown is a failure.
"""

import errno
import signal
from typing import Final

import msgspec

from agent.decisions.process.state import Exited, History, InstanceMachine
from agent.model.process import RestartPolicy
from agent.model.units import Milliseconds

CLEAN_SIGNALS: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE})
PASSING: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})
"""For want of what may be there in a moment a launch is tried again soon, not only after `max_delay`."""
PASSING_MS: Final = 5_000
JITTER_PART: Final = 4
"""Jitter adds up to one part in so many."""


def is_clean(exited: Exited) -> bool:
    return exited.code == 0 or exited.signal in CLEAN_SIGNALS


def describe(exited: Exited) -> str:
    """An end in words for a person."""
    if not is_for_memory(exited):
        return _how(exited)
    is_told = (exited.code, exited.signal) != (None, None)
    return f"ran out of memory and {_how(exited)}" if is_told else "ran out of memory"


def is_for_memory(exited: Exited) -> bool:
    """Whether it ended for want of memory: killed, or quicker than that, as a shell around what was killed."""
    return exited.oom and not is_clean(exited)


def _how(exited: Exited) -> str:
    if exited.code is not None:
        return f"exited with code {exited.code}"
    if exited.signal is not None:
        return f"was ended by {signal_name(exited.signal)}"
    return "ended, nobody could tell how"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def comes_back(policy: RestartPolicy, *, failed: bool) -> bool:
    return policy.policy == "always" or (policy.policy == "on-failure" and failed)


def comes_back_at_once(state: InstanceMachine) -> bool:
    """Whether it may be started again in the moment of its end: what can be done ahead then is not done in vain."""
    policy = state.terms.restart
    is_first = state.history.attempts == 0 and policy.first_delay_ms == 0
    return is_first and policy.policy != "never" and not state.stop_asked


def delay_ms(policy: RestartPolicy, attempts: int, jitter: float) -> Milliseconds:
    """Before the restart that follows `attempts` restarts without a healthy time in between."""
    if attempts == 0:
        return with_jitter(policy.first_delay_ms, jitter)
    # Doubling beyond 60 times is beyond every max_delay: the bound keeps the number small.
    return with_jitter(min(policy.base_delay_ms << min(attempts - 1, 60), policy.max_delay_ms), jitter)


def launch_delay_ms(policy: RestartPolicy, number: int, jitter: float) -> Milliseconds:
    """After a launch that failed with this errno: what is wrong with a command a person must correct."""
    soon = min(PASSING_MS, policy.max_delay_ms)
    return with_jitter(soon if number in PASSING else policy.max_delay_ms, jitter)


def with_jitter(delay: Milliseconds, jitter: float) -> Milliseconds:
    return delay + int(delay * jitter / JITTER_PART)


def counted(history: History, policy: RestartPolicy, now_ms: Milliseconds) -> History:
    """The history with one more restart. The flag stays until the instance was healthy for `reset_after`."""
    loop = policy.crash_loop
    recent = (*(at for at in history.recent_ms if now_ms - at < loop.within_ms), now_ms)[-loop.restarts :]
    return msgspec.structs.replace(
        history,
        attempts=history.attempts + 1,
        recent_ms=recent,
        crash_looping=history.crash_looping or len(recent) >= loop.restarts,
    )
