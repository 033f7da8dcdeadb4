"""What the instances of `rollway dev` see: the developer's own environment, and below it what `.env` files give. Pure.

Rules: what the command was started with stands over the files, as with every dotenv library, so that `KEY=value rollway
dev` means what it says; of several files the later one. What only the agent gives, and what no shell passes on, is left
out. Output goes through a pipe: programs are asked to keep no line back and, for a terminal, to colour all the same.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from agent.errors import UsageError
from agent.linux.spawn import can_pass
from agent.model.process import AppSpec
from agent.settings.dotenv import load_dotenv

PORT: Final = "PORT"
UNBUFFERED: Final = {"PYTHONUNBUFFERED": "1"}
COLOURED: Final = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}
_GIVEN_BY_MANAGERS: Final = frozenset(
    {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", PORT}
)
_PORTS: Final = range(1, 65_536)


class File(Struct, frozen=True):
    """A file of variables: its name for people, and its text."""

    name: str
    text: str


class Seen(Struct, frozen=True, kw_only=True):
    config: Mapping[str, str]
    """The environment of each instance, but for what the supervisor adds."""
    port: int | None
    """What PORT asks for."""


def environment(environ: Mapping[str, str], files: Sequence[File], *, coloured: bool) -> Seen:
    """Raises SettingsError for a file that is wrong, UsageError for a PORT that is none."""
    variables: dict[str, str] = {}
    for file in files:
        variables |= load_dotenv(file.text, file.name, beside=(PORT,))
    wanted = UNBUFFERED | (COLOURED if coloured else {}) | variables | dict(environ)
    return Seen(
        config={name: value for name, value in wanted.items() if can_pass(name) and name not in _GIVEN_BY_MANAGERS},
        port=_port(wanted.get(PORT)),
    )


def refuse_missing(spec: AppSpec, config: Mapping[str, str], file: str) -> None:
    """Raise UsageError naming every required key that has no value; `file` is where it could stand."""
    missing = [name for name, key in spec.config.items() if key.required and name not in config]
    if missing:
        verb = "is required and has" if len(missing) == 1 else "are required and have"
        raise UsageError(
            f"cannot run {spec.app}: {', '.join(missing)} {verb} no value",
            f"Write {missing[0]}=… into {file}, or set it in the shell.",
        )


def _port(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len("65535") and int(text) in _PORTS):
        raise UsageError(f"cannot listen on PORT={text}", "Give a number of 1 to 65535, or unset it.")
    return int(text)
