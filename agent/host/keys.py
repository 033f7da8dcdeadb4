"""The age keys of a host: its own, kept in one file, and those of environments, which are wrapped to it.

Rules: an opened value exists in memory only; no error repeats a key or a value. Config values are base64 of age
ciphertext, and so is an environment's wrapped key.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import pyrage  # type: ignore[import-untyped]  # it has no stubs
from pyrage import x25519

from agent.errors import VerificationError
from agent.linux import atomic
from agent.model.release import ConfigValue


class HostKey:
    """The host's age identity."""

    def __init__(self, identity: x25519.Identity) -> None:
        self._identity = identity

    @property
    def recipient(self) -> str:
        return str(self._identity.to_public())

    @classmethod
    def of(cls, path: Path) -> "HostKey":
        """The key in the file at `path`, which is made, with a new key, when it is missing. Raises OSError."""
        try:
            text = atomic.read(path).decode()
        except FileNotFoundError:
            identity = x25519.Identity.generate()
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.create_exclusive(path, f"{identity}\n".encode())
            return cls(identity)
        try:
            keys = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
            return cls(x25519.Identity.from_str(keys[0].strip()))
        except (IndexError, pyrage.IdentityError):
            raise VerificationError(
                f"cannot use the age key in {path}: it is not an age identity",
                "Restore the file, or remove it: the host then makes a new key, and secrets are wrapped to it anew.",
            ) from None

    def open_config(self, config: Mapping[str, ConfigValue], environment_key: str | None) -> dict[str, str]:
        """The plain values of `config`. Raises VerificationError naming the key that cannot be opened."""
        sealed = {key: value.age for key, value in config.items() if value.age is not None}
        opened = {key: value.plain for key, value in config.items() if value.plain is not None}
        if not sealed:
            return opened
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

    def _environment_identity(self, wrapped: str | None) -> x25519.Identity:
        if wrapped is None:
            raise VerificationError(
                "cannot open the secrets: this host was not given the environment's key",
                "Check that the host is enrolled for the environment.",
            )
        try:
            return x25519.Identity.from_str(_open(wrapped, self._identity).decode().strip())
        except (pyrage.DecryptError, pyrage.IdentityError, binascii.Error, ValueError):
            raise VerificationError(
                "cannot open the secrets: the environment's key is not wrapped to this host's own key",
                "If the host's age key was replaced, enrol the host again.",
            ) from None


def _open(text: str, identity: x25519.Identity) -> bytes:
    opened: bytes = pyrage.decrypt(base64.b64decode(text, validate=True), [identity])
    return opened
