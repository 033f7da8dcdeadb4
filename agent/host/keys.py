"""The age keys of a host: its own, kept in one file, and those of environments, which are wrapped to it.

Rules: an opened value exists in memory only; no error repeats a key or a value. Config values are base64 of age
ciphertext, and so is an environment's wrapped key. The library for age takes 1.5 MiB, and most hosts have no secrets:
whether the key is one a short-lived process of its own looks, and it is loaded for the first secret that is opened.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agent.errors import FailedError, VerificationError
from agent.linux import aside, atomic
from agent.model.release import ConfigValue

_LOOK: Final = """
from pyrage import IdentityError, x25519
text = sys.stdin.read()
try:
    key = x25519.Identity.from_str(text) if text else x25519.Identity.generate()
except IdentityError:
    sys.exit()
print(key, key.to_public())
"""
"""A key comes in, or nothing for a new one; it and its public one go out, or nothing where it is none."""


class HostKey:
    """The host's age identity."""

    def __init__(self, identity: str, recipient: str) -> None:
        self._identity = identity
        self.recipient: Final = recipient

    @classmethod
    def of(cls, path: Path) -> "HostKey":
        """The key in the file at `path`; a new one is made where there is none. Blocking. Raises OSError."""
        try:
            text = atomic.read(path).decode()
        except FileNotFoundError:
            identity, recipient = _looked_at("")
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.create_exclusive(path, f"{identity}\n".encode())
            return cls(identity, recipient)
        keys = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        found = _looked_at(keys[0]) if keys else []
        if not found:
            raise VerificationError(
                f"cannot use the age key in {path}: it is not an age identity",
                "Restore the file, or remove it: the host then makes a new key, and secrets are wrapped to it anew.",
            )
        return cls(*found)

    def open_config(self, config: Mapping[str, ConfigValue], environment_key: str | None) -> dict[str, str]:
        """The plain values of `config`. Raises VerificationError naming the key that cannot be opened."""
        sealed = {key: value.age for key, value in config.items() if value.age is not None}
        opened = {key: value.plain for key, value in config.items() if value.plain is not None}
        if not sealed:
            return opened
        pyrage = _library()
        identity = self._environment_identity(environment_key)
        for key, text in sealed.items():
            try:
                opened[key] = _open(text, identity).decode()
            except (pyrage.DecryptError, binascii.Error, ValueError):
                raise VerificationError(
                    f"cannot open the secret {key}: it is not encrypted to this environment's key, or was damaged",
                    f"Set {key} again and make a new release.",
                ) from None
        return opened

    def _environment_identity(self, wrapped: str | None) -> Any:
        pyrage = _library()
        if wrapped is None:
            raise VerificationError(
                "cannot open the secrets: this host was not given the environment's key",
                "Check that the host is enrolled for the environment.",
            )
        try:
            own = pyrage.x25519.Identity.from_str(self._identity)
            return pyrage.x25519.Identity.from_str(_open(wrapped, own).decode().strip())
        except (pyrage.DecryptError, pyrage.IdentityError, binascii.Error, ValueError):
            raise VerificationError(
                "cannot open the secrets: the environment's key is not wrapped to this host's own key",
                "If the host's age key was replaced, enrol the host again.",
            ) from None


def _open(text: str, identity: Any) -> bytes:
    opened: bytes = _library().decrypt(base64.b64decode(text, validate=True), [identity])
    return opened


def _library() -> Any:
    """Takes a millisecond once. Whoever has no descriptor left to load it with could not start an app either."""
    try:
        import pyrage  # type: ignore[import-untyped]  # noqa: PLC0415 - it has no stubs
    except (ImportError, OSError) as error:
        raise FailedError(f"cannot open the secrets: {error}", "It is tried again.") from error
    return pyrage


def _looked_at(key: str) -> list[str]:
    """The key, or a new one, and the public one of it; nothing where it is none. Raises OSError."""
    return aside.look(_LOOK, "pyrage", key.encode()).decode().split()
