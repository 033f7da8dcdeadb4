"""What of the link's frames is acted on, whatever the network does to them."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.errors import RefusedError
from agent.model.assignment import Assignment, HostReport
from agent.model.ids import AppName, EnvironmentName, HostName
from agent.wire.messages import PROTOCOL, Welcome
from agent.wire.session import AgentSide, CoordinatorSide, key_of, speaks


def assignment(epoch: int, generation: int, app: str = "shop") -> Assignment:
    return Assignment(
        app=AppName(app),
        environment=EnvironmentName("local"),
        epoch=epoch,
        generation=generation,
        release=None,
        order="",
        min_ready_ms=0,
        deadline_ms=0,
    )


def report(sequence: int) -> HostReport:
    return HostReport(host=HostName("h1"), boot_id="boot", sequence=sequence)


TAKEN = {
    "the first one": ([], (1, 1), True),
    "a newer generation": ([(1, 1)], (1, 2), True),
    "the same again": ([(1, 2)], (1, 2), False),
    "an older generation": ([(1, 2)], (1, 1), False),
    "an older generation of a newer epoch": ([(1, 9)], (2, 1), True),
    "the same generation sent by a newer coordinator": ([(1, 3)], (2, 3), True),
    "a newer generation of an older epoch": ([(2, 1)], (1, 9), False),
}


@pytest.mark.parametrize(("before", "age", "is_taken"), TAKEN.values(), ids=TAKEN)
def test_an_agent_takes_newer_assignments_alone(
    before: list[tuple[int, int]],
    age: tuple[int, int],
    is_taken: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """A host acts on an assignment once, and never on one that is older than what it has."""
    side = AgentSide()
    for seen in before:
        side = side.assigned(assignment(*seen)) or side
    assert (side.assigned(assignment(*age)) is not None) == is_taken


def test_apps_do_not_overtake_one_another() -> None:
    """A high generation of one app does not hide a low one of another."""
    side = AgentSide().assigned(assignment(1, 9, "shop"))
    assert side is not None
    assert side.assigned(assignment(1, 1, "blog")) is not None


def test_a_coordinator_of_an_older_epoch_is_refused() -> None:
    """An agent that has heard a newer coordinator listens to no older one, nor to what it still has under way."""
    side = AgentSide().welcomed(Welcome(protocol=PROTOCOL, epoch=5))
    with pytest.raises(RefusedError, match=r"epoch 4.*epoch 5"):
        side.welcomed(Welcome(protocol=PROTOCOL, epoch=4))
    assert side.assigned(assignment(4, 9)) is None
    assert side.welcomed(Welcome(protocol=PROTOCOL, epoch=5)) == side


def test_a_coordinator_of_another_age_is_refused_by_version() -> None:
    """A peer two versions away is told apart from one that is understood."""
    with pytest.raises(RefusedError, match=rf"version {PROTOCOL + 2}.*version {PROTOCOL}"):
        AgentSide().welcomed(Welcome(protocol=PROTOCOL + 2, epoch=1))
    assert speaks(PROTOCOL)
    assert speaks(PROTOCOL + 1)
    assert not speaks(0)


@given(st.lists(st.integers(0, 20)))
def test_reports_are_taken_in_order_and_once(sequences: list[int]) -> None:
    """However reports are repeated or reordered, those taken only ever grow newer, and the newest is among them."""
    side, taken = CoordinatorSide(), []
    for sequence in sequences:
        if (after := side.reported(report(sequence))) is not None:
            side = after
            taken.append(sequence)
    assert taken == sorted(set(taken))
    assert not sequences or taken[-1] == max(sequences)


AGES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.sampled_from(["shop", "blog"]))


@given(st.lists(AGES))
def test_only_the_newest_assignment_waits_to_be_sent(ages: list[tuple[int, int, str]]) -> None:
    """What waits for a slow host is bounded by its apps, and is the newest of each."""
    side = CoordinatorSide()
    for age in ages:
        side = side.assign(assignment(*age))
    sent = []
    while True:
        side, waiting = side.send_next()
        if waiting is None:
            break
        sent.append(waiting)
    newest = {app: max((e, g) for e, g, a in ages if a == app) for _, _, app in ages}
    assert {key_of(a)[0]: (a.epoch, a.generation) for a in sent} == newest
    assert len(sent) == len(newest)


@given(st.lists(AGES, min_size=1), st.randoms())
def test_an_agent_ends_with_the_newest_whatever_the_network_does(ages: list[tuple[int, int, str]], rng: Random) -> None:
    """Lost order and repetition change nothing about which assignment an agent holds in the end."""
    frames = [*ages, *ages]
    rng.shuffle(frames)
    side = AgentSide()
    held: dict[str, tuple[int, int]] = {}
    for epoch, generation, app in frames:
        if (after := side.assigned(assignment(epoch, generation, app))) is not None:
            side = after
            held[app] = (epoch, generation)
    assert held == {app: max((e, g) for e, g, a in ages if a == app) for _, _, app in ages}


def test_a_waiting_assignment_is_not_replaced_by_an_older_one() -> None:
    """A late, older wish does not push out the newer one that waits."""
    side = CoordinatorSide().assign(assignment(1, 2)).assign(assignment(1, 1))
    assert side.send_next()[1] == assignment(1, 2)
    assert replace(side, outbox={}).send_next()[1] is None
