"""Text lines as JSON records, many in one call: the one loop of Rollway that looks at each byte an app writes, in C.

`native/textlines.c` has the rules; it is built into the library beside this module when Rollway is installed.
"""

import ctypes
from typing import Final, NamedTuple

try:
    _library: Final = ctypes.PyDLL(__file__.removesuffix("textlines.py") + "libtextlines.so")
except OSError as error:
    raise ImportError(
        "Rollway is installed without what is compiled of it: install it by pip, or run make setup"
    ) from error

ENDED: Final = 0
"""No line ends in the rest, and what is there is not too long."""
FULL: Final = 1
"""The next record might find no room."""
ODD: Final = 2
"""The next line may be an object, is no UTF-8, or is longer than the bound."""
_records: Final = _library.rollway_text_records
_records.restype = ctypes.c_size_t
_records.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t),
    *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t),
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_int)),
)


class Written(NamedTuple):
    """What came of the first lines."""

    used: int
    """Bytes of lines that are in records."""
    made: int
    """Bytes of records."""
    stop: int
    """`ENDED`, `FULL` or `ODD`."""


def text_records(lines: memoryview, out: memoryview, *, bound_bytes: int, head: bytes, tail: bytes) -> Written:
    """Write records of the first lines to `out`: each is `head`, the line as the inside of a JSON string, and `tail`.

    Both memories are bytes in one piece, and can be written to.
    """
    if not lines or not out:
        return Written(0, 0, FULL if lines else ENDED)
    used, stop = ctypes.c_size_t(), ctypes.c_int()
    begin, made = ctypes.c_char.from_buffer(lines), ctypes.c_char.from_buffer(out)
    count: int = _records(
        *(ctypes.byref(begin), len(lines), bound_bytes),
        *(head, len(head), tail, len(tail)),
        *(ctypes.byref(made), len(out), ctypes.byref(used), ctypes.byref(stop)),
    )
    return Written(used.value, count, stop.value)
