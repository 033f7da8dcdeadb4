"""Which assignments a host accepts, and why not."""

import pytest
from msgspec import Struct

from agent.decisions.swap.orders import refusal, returns_to_stable
from agent.decisions.swap.state import Assigned, SwapState
from agent.model.assignment import AdminRun, Assignment, ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName, RolloutId
from agent.model.release import Order, OrderKind


def ref(name: str) -> ReleaseRef:
    return ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}"))


def order(sequence: int = 5, *, app: str = "shop", kind: OrderKind = "swap", first: bool = False) -> Order:
    return Order(
        kind=kind,
        app=AppName(app),
        environment=EnvironmentName("local"),
        release=ref("v2").name,
        release_digest=ref("v2").digest,
        replaces=None if first else ref("v1").name,
        replaces_digest=None if first else ref("v1").digest,
        sequence=sequence,
    )


def assignment(release: str | None, *, epoch: int = 3, generation: int = 8, admin: str | None = None) -> Assignment:
    return Assignment(
        app=AppName("shop"),
        environment=EnvironmentName("local"),
        epoch=epoch,
        generation=generation,
        release=ref(release) if release else None,
        order="",
        admin=AdminRun(rollout=RolloutId("r1"), release=ref(admin)) if admin else None,
        min_ready_ms=0,
        deadline_ms=1_000,
    )


HELD = SwapState(assignment=assignment("v1", generation=7), order=order(), sequence=5)


class Case(Struct, frozen=True, kw_only=True):
    given: Assignment
    order: Order | None = order()
    held: SwapState = HELD
    because: str = ""


CASES: dict[str, Case] = {
    "the ordered release": Case(given=assignment("v2")),
    "the release that the order replaces, as the way back": Case(given=assignment("v1")),
    "the first one of all": Case(given=assignment("v2"), held=SwapState()),
    "the same one again": Case(given=assignment("v1", generation=7)),
    "the same one from a newer epoch": Case(given=assignment("v1", epoch=4, generation=7)),
    "a lower generation of a newer epoch": Case(given=assignment("v2", epoch=4, generation=2)),
    "nothing, without an order": Case(given=assignment(None), order=None),
    "a newer order": Case(given=assignment("v2"), order=order(6)),
    "the release command of the ordered release": Case(given=assignment("v1", admin="v2")),
    "the release command at the first deploy": Case(given=assignment(None, admin="v2"), order=order(first=True)),
    "a past epoch": Case(given=assignment("v2", epoch=2, generation=99), because="epoch 2 is over"),
    "an older generation": Case(given=assignment("v2", generation=6), because="older than 7"),
    "a release without an order": Case(given=assignment("v2"), order=None, because="no order allows release v2"),
    "an older order": Case(given=assignment("v2"), order=order(4), because="older than order 5"),
    "an order for another app": Case(given=assignment("v2"), order=order(app="blog"), because="is for blog"),
    "a release that the order does not name": Case(given=assignment("v3"), because="does not allow release v3"),
    "the replaced release, where nothing is replaced": Case(
        given=assignment("v1"), order=order(first=True), because="does not allow release v1"
    ),
    "a release command that was not ordered": Case(
        given=assignment("v1", admin="v1"), because="the release command of v1"
    ),
    "a release command without an order": Case(
        given=assignment(None, admin="v2"), order=None, because="no order allows release v2"
    ),
    "another release command beside nothing": Case(
        given=assignment(None, admin="v3"), because="the release command of v3"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_host_accepts_what_its_order_allows(case: Case) -> None:
    """An assignment is accepted, or refused with the reason."""
    found = refusal(case.held, Assigned(assignment=case.given, order=case.order))
    assert (case.because in found) if case.because else not found


def test_a_digest_counts_not_a_name() -> None:
    """A release of the ordered name with other bytes is refused."""
    wanted = assignment("v2")
    other = Order(
        kind="swap",
        app=AppName("shop"),
        environment=EnvironmentName("local"),
        release=ref("v2").name,
        release_digest=Digest("sha256:other"),
        replaces=None,
        replaces_digest=None,
        sequence=9,
    )
    assert "does not allow" in refusal(HELD, Assigned(assignment=wanted, order=other))


def test_the_way_back_is_known_as_such() -> None:
    """Going back to what the order replaces, and a rollback, are ways back; going on to the ordered release is not."""
    forward = SwapState(assignment=assignment("v2"), order=order())
    back = SwapState(assignment=assignment("v1"), order=order())
    rollback = SwapState(assignment=assignment("v2"), order=order(kind="rollback"))
    assert [returns_to_stable(state) for state in (forward, back, rollback, SwapState())] == [False, True, True, False]
