"""Encrypts a config value on the operator's machine: from here on only the environment's hosts can read it."""

import base64

import pyrage  # type: ignore[import-untyped]  # it has no stubs

from agent.errors import FailedError
from agent.model.release import ConfigValue


def encrypt(value: str, recipient: str) -> ConfigValue:
    """`value` for the environment's key `recipient`."""
    try:
        key = pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError as error:
        raise FailedError(
            f"cannot encrypt: the environment's key {recipient!r} is none: {error}", "Look at the coordinator's log."
        ) from error
    return ConfigValue(age=base64.b64encode(pyrage.encrypt(value.encode(), [key])).decode())
