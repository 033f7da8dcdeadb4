"""What hosts outside a rollout are given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.decisions.rollout.converge import as_others_run_it, converge
from agent.decisions.rollout.state import Give
from agent.model.assignment import Assignment, Overrides, ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName

H1, H2 = HostName("h1"), HostName("h2")


def ref(name: str) -> ReleaseRef:
    return ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}"))


V1, V2 = ref("v1"), ref("v2")


def holding(release: ReleaseRef | None, generation: int = 4) -> Assignment:
    return Assignment(
        app=AppName("shop"),
        environment=EnvironmentName("local"),
        epoch=1,
        generation=generation,
        release=release,
        order="",
        min_ready_ms=0,
        deadline_ms=0,
    )


CASES = {
    "a host that joined gets what runs, and what to go back to": (
        V2, V1, {}, (Give(host=H1, generation=1, release=V2, prepare=(V1,)),),
    ),
    "a host that was away gets it as its next generation": (
        V2, None, {H1: holding(V1)}, (Give(host=H1, generation=5, release=V2),),
    ),
    "a host that has it is given nothing": (V2, V1, {H1: holding(V2)}, ()),
    "a host left behind by a failed first deploy is emptied": (
        None, None, {H1: holding(V1)}, (Give(host=H1, generation=5, release=None),),
    ),
    "nothing is given where nothing ever ran": (None, None, {}, ()),
    "a release of the same name and other bytes is another one": (
        V2, None, {H1: holding(ReleaseRef(name=V2.name, digest=V1.digest))},
        (Give(host=H1, generation=5, release=V2),),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("runs", "back_to", "assigned", "expected"), CASES.values(), ids=CASES)
def test_a_host_outside_a_rollout(
    runs: ReleaseRef | None,
    back_to: ReleaseRef | None,
    assigned: dict[HostName, Assignment],
    expected: tuple[Give, ...],
) -> None:
    """A host comes to what its environment runs, and is left alone when it is there."""
    given = converge(runs=runs, back_to=back_to, hosts=[H1], assigned=assigned, rollout_is_live=False)
    assert given == expected


def test_a_rollout_alone_assigns() -> None:
    """While a rollout is under way nobody else moves a host."""
    assert converge(runs=V2, back_to=None, hosts=[H1], assigned={}, rollout_is_live=True) == ()


def test_a_host_runs_it_as_the_others_do() -> None:
    """Settings that came after a rollout wait for the next one, also on a host that joins in between."""
    gives, scale = (Give(host=H1, generation=1, release=V2),), {ProcessName("web"): 4}
    held = {H2: replace(holding(V2), counts=scale)}
    assert as_others_run_it(gives, held) == (replace(gives[0], overrides=Overrides(counts=scale)),)
    assert as_others_run_it(gives, {H2: holding(V1)}) == gives


RELEASES = st.sampled_from([None, V1, V2])


@given(RELEASES, RELEASES, st.dictionaries(st.sampled_from([H1, H2]), RELEASES.map(holding)))
def test_asking_again_gives_nothing(
    runs: ReleaseRef | None, back_to: ReleaseRef | None, assigned: dict[HostName, Assignment]
) -> None:
    """What was given once, and stored, is not given again; and every generation given is newer than the one held."""
    gives = converge(runs=runs, back_to=back_to, hosts=[H1, H2], assigned=assigned, rollout_is_live=False)
    assert all(give.generation > (assigned[give.host].generation if give.host in assigned else 0) for give in gives)
    after = assigned | {give.host: holding(give.release, give.generation) for give in gives}
    assert converge(runs=runs, back_to=back_to, hosts=[H1, H2], assigned=after, rollout_is_live=False) == ()
