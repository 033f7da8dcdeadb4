"""The loop in C over what apps write stays inside of the memory that it is given, whatever they write."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC")
TRIES = 4_000
# Each memory is one of its own and as large as it is said to be, so that a byte beside it is a wrong one.
SCRIPT = f"""
import ctypes, random, sys
library = ctypes.PyDLL(sys.argv[1])
parts = [b"a" * 15, b"a" * 16, b"a" * 17, b"x", b"\\n", b"\\n", b'"', b"\\\\", b"{{", b"\\x01", b"\\xff", b"\\xc3",
         "\\u00f6".encode(), "\\u2603".encode(), "\\U0001f4a9".encode(), b"\\xed\\xa0\\x80", b"\\xf4\\x90\\x80\\x80"]
rng = random.Random(1)
for _ in range({TRIES}):
    data = b"".join(rng.choices(parts, k=rng.randrange(40)))
    lines, room = (ctypes.c_ubyte * len(data)).from_buffer_copy(data), rng.randrange(3_000)
    out, used, stop = (ctypes.c_ubyte * room)(), ctypes.c_size_t(), ctypes.c_int()
    made = library.rollway_text_records(lines, ctypes.c_size_t(len(data)), ctypes.c_size_t(rng.randrange(200)),
        b"head", ctypes.c_size_t(4), b"tail", ctypes.c_size_t(4), out, ctypes.c_size_t(room),
        ctypes.byref(used), ctypes.byref(stop))
    assert bytes(out[:made]).count(b"tail") >= data[:used.value].count(b"\\n"), (data, room)
print("all of it")
"""


def built(*words: str) -> str:
    return subprocess.run(["gcc", *words], check=True, capture_output=True, text=True).stdout.strip()


def test_no_byte_beside_it_is_read_or_written(tmp_path: Path) -> None:
    """Lines of all kinds and lengths, and any room for their records: the address sanitizer has nothing to say."""
    library = tmp_path / "textlines.so"
    built(*SANITIZED, "-o", str(library), str(ROOT / "native" / "textlines.c"))
    env = os.environ | {
        "LD_PRELOAD": built("-print-file-name=libasan.so"),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-c", SCRIPT, str(library)]
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (told.stdout, told.returncode) == ("all of it\n", 0), told.stderr
