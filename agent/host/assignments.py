"""What a host remembers: one file per app and environment with its swap state, read back when the agent starts.

Rules: a state is stored before anything is done about it. A file that cannot be read as a state of the app that it is
named for is set aside, never trusted and never deleted: the coordinator assigns anew, a person can look at it.
All functions touch the disk: call them in a thread.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.decisions.swap.state import SwapState
from agent.errors import RollwayError, VerificationError
from agent.linux import atomic
from agent.model.ids import AppName, EnvironmentName, is_name


class AppKey(NamedTuple):
    """One app in one environment: what an actor is for."""

    app: AppName
    environment: EnvironmentName

    def __str__(self) -> str:
        return f"{self.app}.{self.environment}"


class States:
    """The stored states below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._encoder = msgspec.json.Encoder()

    def store(self, key: AppKey, state: SwapState) -> None:
        """Replace the stored state of `key`; raises OSError, and then the old one is still whole."""
        atomic.write_atomically(self._folder / f"{key}.json", self._encoder.encode(state))

    def load(self, on_quarantined: Callable[[Path, str], None]) -> dict[AppKey, SwapState]:
        """Every state that can be trusted; the others are renamed and told to `on_quarantined`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found: dict[AppKey, SwapState] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                key = _key_of(path)
                found[key] = _read(path, key)
            except RollwayError as error:
                on_quarantined(_set_aside(path), error.error)
        return found


def _key_of(path: Path) -> AppKey:
    app, _, environment = path.stem.partition(".")
    if not (is_name(app) and is_name(environment)):
        raise VerificationError(f"{path.name} is not named for an app and an environment")
    return AppKey(AppName(app), EnvironmentName(environment))


def _read(path: Path, key: AppKey) -> SwapState:
    try:
        state = msgspec.json.decode(atomic.read(path), type=SwapState)
    except OSError as error:
        raise VerificationError(f"cannot read {path.name}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise VerificationError(f"cannot read {path.name}: {error}") from error
    held = state.assignment
    if held is not None and (held.app, held.environment) != key:
        raise VerificationError(f"{path.name} holds the state of {held.app}.{held.environment}")
    return state


def _set_aside(path: Path) -> Path:
    for number in range(1, 1_000_000):
        target = path.with_suffix(f".unreadable-{number}")
        if not target.exists():
            path.rename(target)
            return target
    raise FileExistsError(path)
