"""A program of `wire.bpf` handed to the kernel: one system call, after which every new connection follows it."""

import ctypes
import socket
import struct
from typing import Final

_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_INSTRUCTION_BYTES: Final = 8


def attach(member: socket.socket, encoded: bytes) -> None:
    """Put the encoded program in place for the whole group of `member`; it stays when this process is gone."""
    instructions = ctypes.create_string_buffer(encoded, len(encoded))
    program = struct.pack("@HP", len(encoded) // _INSTRUCTION_BYTES, ctypes.addressof(instructions))
    member.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)
