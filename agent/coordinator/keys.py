"""The age keys that the coordinator keeps: its own in a file, and each environment's, encrypted to it, in the database.

Rules: an environment's identity leaves the coordinator only wrapped to a host's own recipient; the coordinator never
opens a config value. Ciphertext travels as base64.
"""

import base64
from pathlib import Path
from typing import Self

import pyrage  # type: ignore[import-untyped]  # it has no stubs
from msgspec import Struct
from pyrage import x25519

from agent.errors import FailedError
from agent.linux import atomic


class EnvironmentKey(Struct, frozen=True):
    recipient: str
    identity: bytes
    """Encrypted to the coordinator."""


class CoordinatorKey:
    """The coordinator's own age identity."""

    def __init__(self, identity: x25519.Identity) -> None:
        self._identity = identity

    @classmethod
    def of(cls, path: Path) -> Self:
        """The key in the file at `path`, which is made with a new key when it is missing."""
        try:
            return cls(x25519.Identity.from_str(atomic.read(path).decode().strip()))
        except FileNotFoundError:
            identity = x25519.Identity.generate()
            atomic.create_exclusive(path, f"{identity}\n".encode())
            return cls(identity)
        except (pyrage.IdentityError, UnicodeError):
            raise FailedError(
                f"cannot use the age key in {path}: it is not an age identity",
                "Restore the file from a backup: without it no environment's secrets can be given to hosts.",
            ) from None

    def new_environment(self) -> EnvironmentKey:
        identity = x25519.Identity.generate()
        sealed = pyrage.encrypt(str(identity).encode(), [self._identity.to_public()])
        return EnvironmentKey(recipient=str(identity.to_public()), identity=sealed)

    @staticmethod
    def is_recipient(text: str) -> bool:
        try:
            x25519.Recipient.from_str(text)
        except pyrage.RecipientError:
            return False
        return True

    def wrap(self, identity: bytes, host_recipient: str) -> str:
        """The environment's identity, for one host alone."""
        try:
            recipient = x25519.Recipient.from_str(host_recipient)
            opened = pyrage.decrypt(identity, [self._identity])
        except (pyrage.RecipientError, pyrage.DecryptError):
            raise FailedError(
                "cannot wrap an environment's key: the host's recipient or the coordinator's own key is wrong",
                "Restore the coordinator's identity.age, or enrol the host again.",
            ) from None
        return base64.b64encode(pyrage.encrypt(opened, [recipient])).decode()
