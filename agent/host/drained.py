"""The mark of a host that a person, or its shutdown, has drained: while it is there an agent starts nothing.

Rules: it outlives agents and ends with the boot: a host that comes up again runs what it is assigned. Written by the
agent, or by whoever drains in a dead agent's place; taken away by `rollway agent undrain`.
"""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from agent.linux import atomic, clock

NAME: Final = "drained"


class Mark(Struct, frozen=True):
    boot_id: str
    since_ms: int


def put(run_dir: Path) -> None:
    """Raises OSError."""
    now = clock.now()
    atomic.write_atomically(run_dir / NAME, msgspec.json.encode(Mark(now.boot_id, now.wall_ms)))


def take_away(run_dir: Path) -> bool:
    """Whether there was one."""
    drained = is_there(run_dir)
    (run_dir / NAME).unlink(missing_ok=True)
    return drained


def is_there(run_dir: Path) -> bool:
    """Whether the host is drained in this boot; a mark that nobody can read counts as one."""
    try:
        return msgspec.json.decode(atomic.read(run_dir / NAME), type=Mark).boot_id == clock.boot_id()
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError, UnicodeError):
        return True
