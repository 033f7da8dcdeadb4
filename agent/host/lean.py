"""Keeps out of an agent what its libraries bring along as they are imported, and no agent needs: 6 MiB, and 60 ms.

Rules: what is left out is absent in the way that its library provides for, or comes the moment it is used after all
(`_Later`): nothing is missing, so nothing else need know of it. Tests hold to it that an agent runs without them.
Not handled here: what an agent needs now and then; such modules are imported where they are used.
"""

import mimetypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Final, cast

_ABSENT: Final = ("rich", "backports.zstd")
"""Where there is none, structlog writes tracebacks itself, and aiohttp says to others that it reads no zstd."""
_LATER: Final = ("argparse", "attr.validators", "email.policy", "html", "urllib.request")
"""aiohttp imports these for its command line, by its structs, for the parameters of a `Content-Type`, for error pages
with a traceback, and for proxies out of the environment."""
_ENVIRONMENT: Final = {
    # All certificate authorities of the system: an agent trusts its own alone (`link.tls`), and probes any server.
    "SSL_CERT_FILE": os.devnull,
    "SSL_CERT_DIR": os.devnull,
    # In C++, whose library nobody else needs, for lists of callbacks.
    "FROZENLIST_NO_EXTENSIONS": "1",
}


class _Later:
    """Stands for what a module has; that is imported once this is called, or asked for anything."""

    def __init__(self, module: str, name: str) -> None:
        self._at = (module, name)

    def _real(self) -> Any:
        module, name = self._at
        return getattr(import_module(module), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)


@contextmanager
def imports() -> Iterator[None]:
    """What is imported within comes alone."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    modules = cast(dict[str, ModuleType | None], sys.modules)  # None, for import: there is none
    stand_ins = {name: _stand_in(name) for name in _LATER} | dict.fromkeys(_ABSENT)
    put = {name: one for name, one in stand_ins.items() if name not in modules}
    modules.update(put)
    types, mimetypes.knownfiles = mimetypes.knownfiles, []  # what the system knows of files, of which we serve none
    try:
        yield
    finally:
        mimetypes.knownfiles = types
        for name in put:
            del modules[name]
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _stand_in(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__dict__["__getattr__"] = lambda attribute: _attribute(name, attribute)
    return module


def _attribute(module: str, name: str) -> _Later:
    if name.startswith("__"):  # of a module as such
        raise AttributeError(name)
    return _Later(module, name)
