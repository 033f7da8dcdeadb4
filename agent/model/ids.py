"""Names and identities: which spellings are allowed, and how they are written.

A name that reaches a path, a URL or an environment variable has passed one of these patterns first.
"""

import re
from typing import Final, NewType

AppName = NewType("AppName", str)
EnvironmentName = NewType("EnvironmentName", str)
HostName = NewType("HostName", str)
ProcessName = NewType("ProcessName", str)
ReleaseName = NewType("ReleaseName", str)
RolloutId = NewType("RolloutId", str)
Digest = NewType("Digest", str)
"""`sha256:` and 64 hexadecimal digits, of exact bytes."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}(?<!-)")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_RELEASE: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CONFIG_KEY: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")

NAME_EXPECTED: Final = "a name of 1 to 32 of a-z, 0-9 and -, beginning with a letter"
RELEASE_EXPECTED: Final = "a release name of 1 to 64 of a-z, 0-9, '.', '+' and '-', such as v1.2.3"
CONFIG_KEY_EXPECTED: Final = "a config key of A-Z, 0-9 and _, such as DATABASE_URL"


def is_name(text: str) -> bool:
    """Whether `text` can name an app, an environment or a process type."""
    return _NAME.fullmatch(text) is not None


def is_host_name(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def is_release_name(text: str) -> bool:
    return _RELEASE.fullmatch(text) is not None and ".." not in text


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_config_key(text: str) -> bool:
    """Whether `text` can be a declared config key; ROLLWAY_ and the variables that the agent sets itself are not."""
    reserved = {"PORT", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "TMPDIR"}
    return _CONFIG_KEY.fullmatch(text) is not None and text not in reserved and not text.startswith("ROLLWAY_")
