"""The one string that brings a host into a fleet: where the coordinators are, whom to trust, and a secret for once.

`rollway-host-1.` and base64url of JSON. It is made by the coordinator and read on the new host; whoever holds it before
that host does can be that host, so it is as secret as a password for as long as it lives.
"""

import base64
import binascii
import re
from typing import Final

import msgspec
from msgspec import Struct

from agent.errors import UsageError

_PREFIX: Final = "rollway-host-1."
TOKEN_BYTES_MAX: Final = 8 << 10
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class HostToken(Struct, frozen=True, kw_only=True):
    coordinators: tuple[str, ...]
    fingerprint: str
    """SHA-256 of the authority's certificate (DER), in hexadecimal."""
    secret: str
    """32 random bytes in base64url. Never shown but within the token."""


def encode_token(token: HostToken) -> str:
    return _PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def decode_token(text: str) -> HostToken:
    """What `text` says; nothing of it is repeated in an error. Raises UsageError."""
    body = text.strip()
    wrong = UsageError(
        "this is no host token", "Copy the whole line that `rollway host token` printed; it begins rollway-host-1."
    )
    if len(body) > TOKEN_BYTES_MAX or not body.isascii() or not body.startswith(_PREFIX):
        raise wrong
    body = body.removeprefix(_PREFIX)
    try:
        decoded = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        token = msgspec.json.decode(decoded, type=HostToken)
    except (binascii.Error, msgspec.DecodeError, UnicodeError, RecursionError):
        raise wrong from None
    if not token.coordinators or not _FINGERPRINT.fullmatch(token.fingerprint) or not _SECRET.fullmatch(token.secret):
        raise wrong
    return token
