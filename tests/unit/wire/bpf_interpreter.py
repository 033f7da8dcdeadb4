"""A small machine that runs classic BPF as the kernel does, for the tests of `agent.wire.bpf`."""

import operator
import struct

from agent.wire import bpf

WORD = 0xFFFF_FFFF
ALU = {
    bpf.ADD: operator.add,
    bpf.SUB: operator.sub,
    bpf.MUL: operator.mul,
    bpf.DIV: operator.floordiv,
    bpf.AND: operator.and_,
    bpf.RSH: operator.rshift,
    bpf.MOD: operator.mod,
}
JUMPS = {bpf.JEQ: operator.eq, bpf.JGE: operator.ge}


def run(encoded: bytes, packet: bytes, random: int = 0) -> int:
    """Give what the program returns for a packet that begins with its IP header; a load beyond it returns 0."""
    program = list(struct.iter_unpack("=HBBI", encoded))
    accumulator = other = place = 0
    while True:
        code, if_true, if_false, k = map(int, program[place])
        place += 1
        if code in (bpf.LD_WORD, bpf.LD_BYTE):
            loaded = _load(packet, code, k, random)
            if loaded is None:
                return 0
            accumulator = loaded
        elif code in ALU:
            accumulator = ALU[code](accumulator, k) & WORD
        elif code in JUMPS:
            place += if_true if JUMPS[code](accumulator, k) else if_false
        elif code == bpf.XOR_X:
            accumulator ^= other
        elif code == bpf.ADD_X:
            accumulator = accumulator + other & WORD
        elif code == bpf.TAX:
            other = accumulator
        elif code == bpf.JA:
            place += k
        else:
            assert code in (bpf.RET, bpf.RET_A), f"no such instruction: {code:#x}"
            return k if code == bpf.RET else accumulator


def ipv4(source: str) -> bytes:
    return bytes([0x45, *[0] * 11, *map(int, source.split(".")), *[0] * 24])


def ipv6(source: bytes, mark: bpf.Mark = bpf.Mark(64, 0), flow: int = 0) -> bytes:  # noqa: B008 - a constant
    first = 6 << 28 | mark.traffic_class << 20 | flow
    return bytes([*first.to_bytes(4, "big"), *[0] * 3, mark.hop_limit, *source, *[0] * 36])


def _load(packet: bytes, code: int, k: int, random: int) -> int | None:
    if k == bpf.SKF_AD_RANDOM:
        return random
    offset, size = k - bpf.SKF_NET, 4 if code == bpf.LD_WORD else 1
    field = packet[offset : offset + size]
    return int.from_bytes(field, "big") if len(field) == size else None
