"""Keeps out of an agent what its libraries bring along as they are imported, and no agent needs.

structlog takes rich for its tracebacks wherever that is installed: 3 MiB. aiohttp reads all certificate authorities of
the system: 40 ms and 2 MiB, whereas an agent trusts its own authority alone (`link.tls`), and probes any server.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final, cast

_KEPT_OUT: Final = "rich"
_AUTHORITIES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL looks for those of the system."""


@contextmanager
def imports() -> Iterator[None]:
    """What is imported within comes alone."""
    before = {name: os.environ.get(name) for name in _AUTHORITIES}
    os.environ.update(dict.fromkeys(_AUTHORITIES, os.devnull))
    keeps_out = _KEPT_OUT not in sys.modules
    if keeps_out:
        cast(dict[str, ModuleType | None], sys.modules)[_KEPT_OUT] = None  # for import: there is none
    try:
        yield
    finally:
        if keeps_out:
            del sys.modules[_KEPT_OUT]
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
