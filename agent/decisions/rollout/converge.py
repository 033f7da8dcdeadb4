"""Hosts that are not in a rollout: those that joined, were away, or were left behind get what the environment runs.

Rules: while a rollout is under way it alone assigns; a host that has what it should have is given nothing, so
asking again after the answer was stored gives nothing. Not handled here: which hosts belong to the environment.
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from agent.decisions.rollout.state import Give
from agent.model.assignment import Assignment, ReleaseRef
from agent.model.ids import HostName


def converge(
    *,
    runs: ReleaseRef | None,
    back_to: ReleaseRef | None,
    hosts: Iterable[HostName],
    assigned: Mapping[HostName, Assignment],
    rollout_is_live: bool,
) -> tuple[Give, ...]:
    """What `hosts` of the environment are to be given so that each runs `runs`, ready to go back to `back_to`."""
    if rollout_is_live:
        return ()
    prepare = (back_to,) if back_to is not None and back_to != runs else ()
    gives: list[Give] = []
    for host in hosts:
        held = assigned.get(host)
        if (held.release if held else None) != runs:
            generation = held.generation + 1 if held else 1
            gives.append(Give(host=host, generation=generation, release=runs, prepare=prepare))
    return tuple(gives)


def as_others_run_it(gives: Iterable[Give], assigned: Mapping[HostName, Assignment]) -> tuple[Give, ...]:
    """`gives` with what the other hosts run these releases with: new settings come with the next rollout."""
    others = {held.release: held.overrides for held in assigned.values()}
    return tuple(replace(give, overrides=others.get(give.release)) for give in gives)
