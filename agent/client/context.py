"""Which coordinator a command talks to, and as whom.

`ROLLWAY_COORDINATOR` with `ROLLWAY_TOKEN` (and `ROLLWAY_CA`) come first, else a file: the one that `ROLLWAY_CONFIG`
names, else `rollway/client.toml` in the user's config folder. Its keys: `coordinator`, `token`, `ca`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import tomli
from msgspec import Struct

from agent.errors import NotFoundError, SettingsError, UsageError

_KEYS: Final = {"coordinator": True, "token": True, "ca": False}
"""Each key of the file, and whether it is required."""


class Context(Struct, frozen=True, kw_only=True):
    coordinator: str
    """`https://HOST:PORT`"""
    token: str
    ca: str | None = None
    """PEM file of the CA that the coordinator's certificate must come from; None: those that the system trusts."""


def find_context(environ: Mapping[str, str]) -> Context:
    """The context that `environ` and the files which it names give; raises SettingsError, UsageError, NotFoundError."""
    if url := environ.get("ROLLWAY_COORDINATOR"):
        token = environ.get("ROLLWAY_TOKEN")
        if not token:
            raise UsageError("ROLLWAY_COORDINATOR is set without ROLLWAY_TOKEN", "Set ROLLWAY_TOKEN too.")
        return Context(
            coordinator=_url(url, "ROLLWAY_COORDINATOR"),
            token=_token(token, "ROLLWAY_TOKEN"),
            ca=environ.get("ROLLWAY_CA") or None,
        )
    named = environ.get("ROLLWAY_CONFIG")
    path = Path(named) if named else config_folder(environ) / "client.toml"
    try:
        text = path.read_text()
    except FileNotFoundError:
        if named:
            raise UsageError(
                f"ROLLWAY_CONFIG names {path}, and there is no such file", "Set it as `rollway up` says, or unset it."
            ) from None
        raise NotFoundError(
            f"no coordinator is known: there is no {path}",
            "Start `rollway up` and set ROLLWAY_CONFIG as it says, or set ROLLWAY_COORDINATOR and ROLLWAY_TOKEN.",
        ) from None
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", "Make it readable for you, or name another file.") from error
    return read_context(text, str(path))


def config_folder(environ: Mapping[str, str]) -> Path:
    """Rollway's folder in the user's config folder."""
    home = environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "rollway"


def read_context(text: str, file: str) -> Context:
    """What a client.toml says; raises SettingsError."""
    try:
        found = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise SettingsError(file, "", "TOML", error.msg, error.lineno) from error
    for key, value in found.items():
        if key not in _KEYS:
            raise SettingsError(file, key, f"one of {', '.join(_KEYS)}", "an unknown key")
        if not isinstance(value, str) or not value:
            raise SettingsError(file, key, "text", repr(value))
    for key, required in _KEYS.items():
        if required and key not in found:
            raise SettingsError(file, key, "text", "nothing")
    ca = found.get("ca")
    return Context(
        coordinator=_url(found["coordinator"], file),
        token=_token(found["token"], file),
        ca=os.path.join(os.path.dirname(file), ca) if ca else None,  # noqa: PTH118, PTH120 - "" stays relative
    )


def _url(text: str, where: str) -> str:
    if not (text.startswith(("https://", "http://127.0.0.1", "http://[::1]")) and _has_host(text)):
        raise SettingsError(where, "coordinator", "an address such as https://coordinator.example:7070", repr(text))
    return text.rstrip("/")


def _has_host(url: str) -> bool:
    """Whether there is a host, and a port where there is a colon, that can be connected to."""
    try:
        parts = urlsplit(url)
        return bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        return False


def _token(text: str, where: str) -> str:
    """As it can be sent in a header; never shown."""
    if not (text.isascii() and text.isprintable()):
        raise SettingsError(where, "token", "letters, digits and signs on one line", "something else")
    return text
