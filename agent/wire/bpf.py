"""The program with which the kernel picks a slot for each new connection: classic BPF, built and encoded, not run here.

Rules: the program always gives an index below `count` (the kernel answers any other by a hash over all sockets, the
unready ones too); nothing jumps backwards or further than 255 instructions; at most 4,096 instructions, else
InvariantBrokenError. What it answers, in this order:

1. IPv4 from `index_address(i)`: index i itself, so that the kernel's order can be found out without disturbing anybody.
2. IPv4 from `alone_address(slot)`: the index of that slot, ready or not; `parked` where there is no such slot.
   Where a group listens on one address of IPv6 there are no such sources: the same is said by `index_mark` and
   `alone_mark`, which count only from the address itself, so that whoever is on another host cannot say it.
3. Anybody else: one of the shares by weight, at random or (sticky) always the same one for one source address.
4. With nobody admitted: `otherwise`.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address
from itertools import accumulate
from typing import Final, NamedTuple

from msgspec import Struct

from agent.errors import invariant

INSTRUCTIONS_MAX: Final = 4096  # the kernel's BPF_MAXINSNS
SLOTS_MAX: Final = 1024
_ALONE: Final = 127 << 24 | 77 << 16
_BY_INDEX: Final = _ALONE | 1 << 15
_HASH: Final = 2_654_435_761  # Knuth's multiplier: neighbouring addresses fall far apart

LD_WORD: Final = 0x20
LD_BYTE: Final = 0x30
ADD: Final = 0x04
SUB: Final = 0x14
MUL: Final = 0x24
ADD_X: Final = 0x0C
DIV: Final = 0x34
AND: Final = 0x54
RSH: Final = 0x74
MOD: Final = 0x94
XOR_X: Final = 0xAC
TAX: Final = 0x07
JA: Final = 0x05
JEQ: Final = 0x15
JGE: Final = 0x35
RET: Final = 0x06
RET_A: Final = 0x16

SKF_AD_RANDOM: Final = 0xFFFF_F000 + 56
SKF_NET: Final = 0xFFF0_0000
_IPV4_SOURCE: Final = SKF_NET + 12
_IPV6_SOURCE: Final = (SKF_NET + 8, SKF_NET + 12, SKF_NET + 16, SKF_NET + 20)
_IPV6_CLASS: Final = SKF_NET  # version, traffic class, flow label
_IPV6_HOP_LIMIT: Final = SKF_NET + 7
_HOPS_FIRST: Final = 192
_HOPS: Final = 63
"""How many hop limits from there on are marks: no system begins with any of them, but with 64, 128 or 255."""
_MARKS: Final = 2 * SLOTS_MAX + 1
_ECN_BITS: Final = 2
_DSCP_SHIFT: Final = 20 + _ECN_BITS  # above the flow label
_IPV6_VERSION: Final = 6 << 6  # what is above the DSCP
_OUT: Final = -1
"""Stands for the jump of who has chosen nothing."""
_RUN_MIN: Final = 3
_FILTER: Final = struct.Struct("=HBBI")


class Instruction(NamedTuple):
    """One `struct sock_filter`: what to do, how far to jump if true or false, the constant."""

    code: int
    k: int = 0
    if_true: int = 0
    if_false: int = 0


class Share(Struct, frozen=True, gc=False):
    """The socket at `index` of the group gets `weight` parts of the sum of all weights."""

    index: int
    weight: int


Program = tuple[Instruction, ...]


class Mark(NamedTuple):
    """What a connection over IPv6 shows of itself in each packet, as it likes.

    Its DSCP is not 0, its hop limit one of 63 that nobody has by default: together they are a number.
    """

    hop_limit: int
    traffic_class: int


def _mark(number: int) -> Mark:
    dscp, hops = divmod(number, _HOPS)
    return Mark(_HOPS_FIRST + hops, dscp + 1 << _ECN_BITS)


def alone_mark(slot: int) -> Mark:
    """The mark with which a connection from the group's own address reaches this slot and no other, ready or not."""
    invariant(0 <= slot < SLOTS_MAX, f"slot {slot} has no mark of its own")
    return _mark(slot)


def index_mark(index: int) -> Mark:
    """The mark with which a connection from the group's own address reaches the socket at `index`."""
    invariant(0 <= index <= SLOTS_MAX, f"index {index} has no mark of its own")
    return _mark(SLOTS_MAX + index)


def is_mark(mark: Mark) -> bool:
    """Whether a connection that shows this, from the group's own address, chose its socket."""
    hops, dscp = mark.hop_limit - _HOPS_FIRST, mark.traffic_class >> _ECN_BITS
    return 0 <= hops < _HOPS and 0 <= (dscp - 1) * _HOPS + hops < _MARKS


def alone_address(slot: int) -> str:
    """The source address from which a connection reaches this slot and no other, ready or not."""
    invariant(0 <= slot < SLOTS_MAX, f"slot {slot} has no address of its own")
    return f"127.77.{slot + 1 >> 8}.{slot + 1 & 255}"


def is_chosen(source: str) -> bool:
    """Whether a connection from this address chose its socket: a probe's, or a person's who looks at one instance."""
    return source.removeprefix("::ffff:").startswith("127.77.")


def index_address(index: int) -> str:
    """The source address from which a connection reaches the group's socket at `index`."""
    invariant(0 <= index <= SLOTS_MAX, f"index {index} has no address of its own")
    return f"127.77.{128 | index >> 8}.{index & 255}"


def program(
    shares: Sequence[Share],
    *,
    count: int,
    parked: int = 0,
    otherwise: int | None = None,
    alone: Mapping[int, int] | None = None,
    sticky: bool = False,
    own: str | None = None,
) -> Program:
    """Build the program for a group of `count` sockets; `alone` gives each slot's index. Weights of 0 are left out.

    `own` is the address on which it listens where that is one of IPv6.
    """
    admitted = [share for share in shares if share.weight > 0]
    fallback = parked if otherwise is None else otherwise
    by_slot = dict(alone or {})
    named = (parked, fallback, *by_slot.values(), *(share.index for share in admitted))
    for index in (min(named), max(named)):
        invariant(0 <= index < count, f"index {index} in a group of {count}")
    choice = tuple(_choice(admitted, fallback, sticky=sticky))
    built = (*_reached_alone(by_slot, count, parked, own), *choice)
    invariant(len(built) <= INSTRUCTIONS_MAX, f"{len(built)} instructions for {len(by_slot)} slots")
    return built


def encode(built: Program) -> bytes:
    """The array of `struct sock_filter` that SO_ATTACH_REUSEPORT_CBPF takes, in this machine's byte order."""
    return b"".join([_FILTER.pack(one.code, one.if_true, one.if_false, one.k) for one in built])


class _Run(NamedTuple):
    """Neighbours in the order of what is asked for whose sockets are neighbours too: `size` steps of `width` each.

    A group that has always started its slots one after the other is a single run, however large: the program is short,
    which counts where it is built anew, as who is ready changes, and where the kernel runs it for each connection.
    """

    start: int
    width: int
    member: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.width * self.size

    def answer(self) -> tuple[Instruction, ...]:
        """The index of what is in it."""
        if self.size == 1:
            return (Instruction(RET, self.member),)
        if self.width == 1:
            return *_moved(self.member - self.start), Instruction(RET_A)
        return *_moved(-self.start), Instruction(DIV, self.width), *_moved(self.member), Instruction(RET_A)


def _moved(by: int) -> tuple[Instruction, ...]:
    return (Instruction(ADD, by) if by > 0 else Instruction(SUB, -by),) if by else ()


def _runs(places: Iterable[tuple[int, int, int]]) -> Iterator[_Run]:
    """Of what begins there, is so wide, and has that index; joined where it takes no more instructions than apart."""
    for run in _joined(places):
        if run.size >= _RUN_MIN:
            yield run
        else:
            yield from (_Run(run.start + n * run.width, run.width, run.member + n, 1) for n in range(run.size))


def _joined(places: Iterable[tuple[int, int, int]]) -> Iterator[_Run]:
    begun: tuple[int, int, int] | None = None
    size = 0
    for start, width, index in places:
        if begun == (start - width * size, width, index - size):
            size += 1
            continue
        if begun is not None:
            yield _Run(*begun, size)
        begun, size = (start, width, index), 1
    if begun is not None:
        yield _Run(*begun, size)


def _reached_alone(by_slot: Mapping[int, int], count: int, parked: int, own: str | None) -> Iterator[Instruction]:
    """Answer who has chosen its socket; all other packets fall through to the end of these instructions."""
    by_address = _by_address(tuple(sorted(by_slot.items())))
    by_index = (
        Instruction(JGE, _BY_INDEX + count, 3, 0),
        Instruction(JGE, _BY_INDEX, 0, 2),
        Instruction(SUB, _BY_INDEX),
        Instruction(RET_A),
    )
    body = (*by_index, *by_address, Instruction(RET, parked))
    chosen = _chosen_by_address() if own is None else _chosen_by_mark(IPv6Address(own))
    end = len(chosen) + 1  # where who is out jumps over the body, which may be too long for a conditional jump
    for place, one in enumerate(chosen):
        yield one._replace(
            if_true=end - place - 1 if one.if_true == _OUT else one.if_true,
            if_false=end - place - 1 if one.if_false == _OUT else one.if_false,
        )
    yield Instruction(JA, 1)
    yield Instruction(JA, len(body))
    yield from body


def _chosen_by_address() -> tuple[Instruction, ...]:
    """Leave the source address of IPv4 where it is within 127.77.0.0/16."""
    return (
        Instruction(LD_BYTE, SKF_NET),
        Instruction(AND, 0xF0),
        Instruction(JEQ, 0x40, 0, _OUT),
        Instruction(LD_WORD, _IPV4_SOURCE),
        Instruction(JGE, _ALONE + 0x1_0000, _OUT, 0),
        Instruction(JGE, _ALONE, 0, _OUT),
    )


def _chosen_by_mark(own: IPv6Address) -> tuple[Instruction, ...]:
    """Leave, for a mark that comes from the group's own address, the address that says the same over IPv4.

    A connection with that source is of this host: answers to a stranger who claims the address never leave it.
    """
    words = struct.unpack("!4I", own.packed)
    from_here = (one for k, word in zip(_IPV6_SOURCE, words, strict=True) for one in _is_word(k, word))
    first = (_IPV6_VERSION + 1) * _HOPS + _HOPS_FIRST  # version, DSCP and hop limit are one number
    return (
        Instruction(LD_BYTE, _IPV6_HOP_LIMIT),  # at which nearly everybody is out
        Instruction(JGE, _HOPS_FIRST + _HOPS, _OUT, 0),
        Instruction(JGE, _HOPS_FIRST, 0, _OUT),
        *from_here,
        Instruction(LD_WORD, _IPV6_CLASS),
        Instruction(RSH, _DSCP_SHIFT),
        Instruction(MUL, _HOPS),
        Instruction(TAX),
        Instruction(LD_BYTE, _IPV6_HOP_LIMIT),
        Instruction(ADD_X),
        Instruction(JGE, first + _MARKS, _OUT, 0),
        Instruction(JGE, first, 0, _OUT),
        Instruction(JGE, first + SLOTS_MAX, 2, 0),
        Instruction(ADD, _ALONE + 1 - first),
        Instruction(JA, 1),
        Instruction(ADD, _BY_INDEX - first - SLOTS_MAX),
    )


def _is_word(k: int, word: int) -> tuple[Instruction, Instruction]:
    return Instruction(LD_WORD, k), Instruction(JEQ, word, 0, _OUT)


@lru_cache(maxsize=8)
def _by_address(slots: tuple[tuple[int, int], ...]) -> tuple[Instruction, ...]:
    """Kept: who is ready changes more often than which slots there are."""
    made: list[Instruction] = []
    for run in _runs((_ALONE + slot + 1, 1, index) for slot, index in slots):
        answer = run.answer()
        if run.size == 1:
            made += (Instruction(JEQ, run.start, 0, len(answer)), *answer)
        else:
            within = Instruction(JGE, run.start, 0, len(answer) + 1), Instruction(JGE, run.end, len(answer), 0)
            made += (*within, *answer)
    return tuple(made)


def _choice(admitted: Sequence[Share], fallback: int, *, sticky: bool) -> Iterator[Instruction]:
    """Choose by 32 even bits: each share has as many of the values below the sum of all weights as it has weight."""
    if not admitted:
        yield Instruction(RET, fallback)
        return
    before = [0, *accumulate(share.weight for share in admitted)]
    *others, last = _runs((start, share.weight, share.index) for start, share in zip(before, admitted, strict=False))
    if len(admitted) > 1:
        yield from _source_hash() if sticky else (Instruction(LD_WORD, SKF_AD_RANDOM),)
        yield Instruction(MOD, before[-1])
    for run in others:
        answer = run.answer()
        yield Instruction(JGE, run.end, len(answer), 0)
        yield from answer
    yield from last.answer()


def _source_hash() -> tuple[Instruction, ...]:
    """32 bits that depend on the source address alone, whichever IP version it has."""
    first, *others = _IPV6_SOURCE
    whole = (
        Instruction(LD_WORD, first),
        *(one for k in others for one in (Instruction(TAX), Instruction(LD_WORD, k), Instruction(XOR_X))),
    )
    return (
        Instruction(LD_BYTE, SKF_NET),
        Instruction(AND, 0xF0),
        Instruction(JEQ, 0x40, 0, 2),
        Instruction(LD_WORD, _IPV4_SOURCE),
        Instruction(JA, len(whole)),
        *whole,
        Instruction(MUL, _HASH),
        Instruction(TAX),  # its low bits know of no others: mixed with the high ones
        Instruction(RSH, 16),
        Instruction(XOR_X),
    )
