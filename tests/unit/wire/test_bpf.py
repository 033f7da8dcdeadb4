"""Which socket of a group the kernel's program picks, for every packet that can come."""

import random
from collections import Counter
from ipaddress import IPv6Address
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.errors import InvariantBrokenError
from agent.wire import bpf
from agent.wire.bpf import Share
from tests.unit.wire.bpf_interpreter import ipv4, ipv6, run

OWN: Final = "fd00::2"
OWN_BYTES: Final = IPv6Address(OWN).packed
MARKS: Final = st.builds(bpf.Mark, st.integers(0, 255), st.integers(0, 255))
NEIGHBOURS_OF_OWN: Final = st.integers(0, 127).map(lambda bit: (int(IPv6Address(OWN)) ^ 1 << bit).to_bytes(16, "big"))
SOURCES: Final = st.one_of(st.just(OWN_BYTES), NEIGHBOURS_OF_OWN, st.binary(min_size=16, max_size=16))
WORDS = st.integers(0, 0xFFFF_FFFF)
PACKETS = st.one_of(
    st.binary(max_size=60),
    st.ip_addresses(v=4).map(lambda source: ipv4(str(source))),
    st.builds(ipv6, SOURCES, MARKS, st.integers(0, 0xF_FFFF)),
    st.integers(0, 0xFFFF).map(lambda low: ipv4(f"127.77.{low >> 8}.{low & 255}")),
)


@st.composite
def groups(draw: st.DrawFn) -> tuple[int, list[Share], dict[int, int], int, bool]:
    """A group: number of sockets, shares, slots by index, who gets what nobody is admitted for, sticky.

    Both come as some neighbours and some more.
    """
    count = draw(st.integers(1, 40))
    indexes, sizes = st.integers(0, count - 1), st.integers(1, 6)
    weights = st.one_of(st.just(1), st.integers(0, 10_000))
    shares = [
        Share(index, weight)
        for first, size, weight in draw(st.lists(st.tuples(indexes, sizes, weights), max_size=8))
        for index in range(first, min(first + size, count))
    ]
    alone = {
        (slot + n) % bpf.SLOTS_MAX: first + n
        for slot, first, size in draw(
            st.lists(st.tuples(st.integers(0, bpf.SLOTS_MAX - 1), indexes, sizes), max_size=8)
        )
        for n in range(min(size, count - first))
    }
    return count, shares, alone, draw(indexes), draw(st.booleans())


@given(groups(), PACKETS, WORDS, st.sampled_from([None, OWN]))
def test_every_packet_gets_a_socket_of_the_group(
    group: tuple[int, list[Share], dict[int, int], int, bool], packet: bytes, number: int, own: str | None
) -> None:
    """Whatever arrives, the kernel never has to fall back to a hash over all sockets."""
    count, shares, alone, otherwise, sticky = group
    built = bpf.program(shares, count=count, otherwise=otherwise, alone=alone, sticky=sticky, own=own)
    assert len(built) <= bpf.INSTRUCTIONS_MAX
    assert run(bpf.encode(built), packet, number) in range(count)


@given(groups(), st.ip_addresses(v=4, network="10.0.0.0/8"), WORDS)
def test_ordinary_users_reach_only_admitted_sockets(
    group: tuple[int, list[Share], dict[int, int], int, bool], source: object, number: int
) -> None:
    """A socket without weight gets nobody; with nobody admitted everybody gets the one that was named for it."""
    count, shares, alone, otherwise, sticky = group
    built = bpf.program(shares, count=count, otherwise=otherwise, alone=alone, sticky=sticky)
    admitted = {share.index for share in shares if share.weight} or {otherwise}
    assert run(bpf.encode(built), ipv4(str(source)), number) in admitted


@given(groups(), WORDS)
def test_each_slot_and_each_index_is_reached_alone(
    group: tuple[int, list[Share], dict[int, int], int, bool], number: int
) -> None:
    """A probe of one slot never reaches a neighbour, whatever the weights are; without such a slot it is parked."""
    count, shares, alone, otherwise, sticky = group
    encoded = bpf.encode(bpf.program(shares, count=count, otherwise=otherwise, alone=alone, sticky=sticky))
    for slot in (*alone, number % bpf.SLOTS_MAX):
        assert run(encoded, ipv4(bpf.alone_address(slot)), number) == alone.get(slot, 0)
    for index in range(count + 1):
        assert run(encoded, ipv4(bpf.index_address(index)), number) == (index if index < count else 0)


@given(groups(), WORDS, st.integers(0, 0xF_FFFF), st.integers(0, 3))
def test_each_slot_and_each_index_of_an_ipv6_address_is_reached_alone(
    group: tuple[int, list[Share], dict[int, int], int, bool], number: int, flow: int, congestion: int
) -> None:
    """By a mark from the address itself, whatever else these packets say: as by the addresses of IPv4."""
    count, shares, alone, otherwise, sticky = group
    encoded = bpf.encode(bpf.program(shares, count=count, otherwise=otherwise, alone=alone, sticky=sticky, own=OWN))

    def answer(mark: bpf.Mark) -> int:
        assert bpf.is_mark(mark)
        seen = mark._replace(traffic_class=mark.traffic_class | congestion)
        return run(encoded, ipv6(OWN_BYTES, seen, flow), number)

    for slot in (*alone, number % bpf.SLOTS_MAX):
        assert answer(bpf.alone_mark(slot)) == alone.get(slot, 0)
    for index in range(count + 1):
        assert answer(bpf.index_mark(index)) == (index if index < count else 0)


@given(groups(), SOURCES, MARKS, WORDS)
def test_users_of_an_ipv6_address_reach_only_admitted_sockets(
    group: tuple[int, list[Share], dict[int, int], int, bool], source: bytes, mark: bpf.Mark, number: int
) -> None:
    """Who comes from elsewhere, whatever it shows, and who comes from here and shows no mark, is anybody."""
    assume(source != OWN_BYTES or not bpf.is_mark(mark))
    count, shares, alone, otherwise, sticky = group
    built = bpf.program(shares, count=count, otherwise=otherwise, alone=alone, sticky=sticky, own=OWN)
    admitted = {share.index for share in shares if share.weight} or {otherwise}
    assert run(bpf.encode(built), ipv6(source, mark), number) in admitted


@given(groups(), NEIGHBOURS_OF_OWN, WORDS)
def test_a_mark_from_elsewhere_chooses_nothing(
    group: tuple[int, list[Share], dict[int, int], int, bool], source: bytes, number: int
) -> None:
    """Every mark is anybody's but from the group's own address, however near another one is."""
    count, shares, alone, otherwise, sticky = group
    encoded = bpf.encode(bpf.program(shares, count=count, otherwise=otherwise, alone=alone, sticky=sticky, own=OWN))
    admitted = {share.index for share in shares if share.weight} or {otherwise}
    for mark in (*map(bpf.index_mark, range(count)), *map(bpf.alone_mark, alone)):
        assert run(encoded, ipv6(source, mark), number) in admitted


def test_marks_are_apart_and_nobody_has_one_by_default() -> None:
    """Every slot and every index has its own; systems begin with other hop limits, users of a traffic class with 64."""
    slots = [bpf.alone_mark(slot) for slot in range(bpf.SLOTS_MAX)]
    marks = {*slots, *(bpf.index_mark(index) for index in range(bpf.SLOTS_MAX + 1))}
    assert len(marks) == 2 * bpf.SLOTS_MAX + 1
    everything = {bpf.Mark(hops, dscp << 2) for hops in range(256) for dscp in range(64)}
    assert marks == {one for one in everything if bpf.is_mark(one)}
    assert not [one for one in marks if one.hop_limit in (1, 32, 60, 64, 128, 255) or one.traffic_class < 4]


WEIGHTS = {
    "a canary of 10 %": {1: 90, 2: 10},
    "a canary of 1 % on top of three equal instances": {1: 33, 2: 33, 3: 33, 4: 1},
    "weights that are no per cent": {1: 1, 2: 2, 3: 4},
    "one alone": {3: 7},
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_are_kept(weights: dict[int, int]) -> None:
    """Each instance gets its part of the connections."""
    encoded = bpf.encode(bpf.program([Share(*one) for one in weights.items()], count=5))
    even, drawn = random.Random(7), 20_000  # noqa: S311 - no secret
    got = Counter(run(encoded, ipv4("10.1.2.3"), even.getrandbits(32)) for _ in range(drawn))
    for index, weight in weights.items():
        assert got[index] / drawn == pytest.approx(weight / sum(weights.values()), abs=0.01)


@pytest.mark.parametrize("version", [4, 6])
def test_sticky_users_stay_and_are_spread(version: int) -> None:
    """With sticky on, one address always reaches the same instance, and neighbouring addresses reach different ones."""
    encoded = bpf.encode(bpf.program([Share(1, 1), Share(2, 1)], count=3, sticky=True))
    packets = [ipv4(f"10.1.2.{n}") if version == 4 else ipv6(bytes([0xFD, *[0] * 14, n])) for n in range(256)]
    first = [run(encoded, packet) for packet in packets]
    assert first == [run(encoded, packet, 0xFFFF_FFFF) for packet in packets]
    assert 80 < Counter(first)[1] < 176


@given(groups())
def test_each_share_has_as_many_of_all_numbers_as_it_weighs(
    group: tuple[int, list[Share], dict[int, int], int, bool],
) -> None:
    """Neighbours, which the program answers together, share with each other and with everybody else as they weigh."""
    count, shares, alone, otherwise, _ = group
    shares = [Share(share.index, share.weight % 7) for share in shares]
    encoded = bpf.encode(bpf.program(shares, count=count, otherwise=otherwise, alone=alone))
    weights = Counter[int]()
    for share in shares:
        weights[share.index] += share.weight
    got = Counter(run(encoded, ipv4("10.1.2.3"), number) for number in range(weights.total()))
    assert got == +weights


NEIGHBOURS = {
    "in order": list(range(bpf.SLOTS_MAX - 8)),
    "in pairs": [n ^ 2 for n in range(bpf.SLOTS_MAX - 8)],
    "in threes": [n + 6 - 2 * (n % 9 // 3) * 3 for n in range(1008)],
    "backwards": list(range(bpf.SLOTS_MAX - 8))[::-1],
}


@pytest.mark.parametrize("own", [None, OWN])
@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("order", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_a_group_of_the_largest_size_fits(order: list[int], weight: int, own: str | None) -> None:
    """The kernel takes at most 4,096 instructions; a group of all slots stays below, whatever its order."""
    shares = [Share(index + 1, weight) for index in order]
    alone = {slot: index + 1 for slot, index in enumerate(order)}
    built = bpf.program(shares, count=bpf.SLOTS_MAX, alone=alone, own=own)
    assert len(built) <= bpf.INSTRUCTIONS_MAX
    encoded = bpf.encode(built)
    for slot in (*range(0, len(order), 41), len(order) - 1):
        assert run(encoded, ipv4("10.0.0.1"), weight * slot) == alone[slot]
        one = ipv4(bpf.alone_address(slot)) if own is None else ipv6(OWN_BYTES, bpf.alone_mark(slot))
        assert run(encoded, one) == alone[slot]


def test_hundreds_that_came_one_after_the_other_take_a_short_program() -> None:
    """The kernel runs it for each connection, and gets it anew whenever one gets ready or is not any more."""
    shares = [Share(slot + 1, 1) for slot in range(500) if slot != 77]
    built = bpf.program(shares, count=502, alone={slot: slot + 1 for slot in range(500)})
    assert len(built) < 40


def test_an_index_outside_the_group_is_refused() -> None:
    """A program that could answer nonsense is never built."""
    with pytest.raises(InvariantBrokenError, match="index 3 in a group of 3"):
        bpf.program([Share(3, 1)], count=3)
