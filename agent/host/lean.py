"""Keeps out of an agent what its libraries bring along as they are imported, and no agent needs: 6 MiB, and 60 ms.

Rules: what is left out is absent in the way that its library provides for, or comes the moment it is used after all
(`_Later`): nothing is missing, so nothing else need know of it. Tests hold to it that an agent runs without them.
Not handled here: what an agent needs now and then; such modules are imported where they are used.
"""

import gc
import mimetypes
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final, cast

_ABSENT: Final = ("rich", "backports.zstd", "frozenlist._frozenlist")
"""Where there is none, structlog writes tracebacks itself, and aiohttp says to others that it reads no zstd. The last,
for lists of callbacks, is in C++, whose library nobody else needs: there is one in Python beside it."""
_LATER: Final = ("argparse", "attr.validators", "email.policy", "html", "urllib.request")
"""aiohttp imports these for its command line, by its structs, for the parameters of a `Content-Type`, for error pages
with a traceback, and for proxies out of the environment."""
_HTTP: Final = ("aiohttp", "yarl")
"""45 ms, which whatever is to run first does without."""
_turn: Final = threading.Lock()


class _Later:
    """Stands for what a module has; that is imported once this is called, or asked for anything."""

    def __init__(self, real: Callable[[], Any]) -> None:
        self._real = real

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)


class _Imports:
    """What is under way in any thread: the first one changes the modules, the last one undoes that."""

    count = 0
    undo = ExitStack()


@contextmanager
def imports(*, http: bool) -> Iterator[None]:
    """What is imported within comes alone; without `http` not even that comes, before it is used."""
    with _turn:
        if not _Imports.count:
            _Imports.undo.enter_context(_changed(http=http))
        _Imports.count += 1
    try:
        yield
    finally:
        with _turn:
            _Imports.count -= 1
            if not _Imports.count:
                _Imports.undo.close()


@contextmanager
def _changed(*, http: bool) -> Iterator[None]:
    modules = cast(dict[str, ModuleType | None], sys.modules)  # None, for import: there is none
    is_over = threading.Event()
    stand_ins = {name: _stand_in(name, import_module, is_over) for name in _LATER} | dict.fromkeys(_ABSENT)
    if not http:
        stand_ins |= {_installed(name): _stand_in(name, _http, is_over) for name in _HTTP}
    put = {name: one for name, one in stand_ins.items() if name not in modules}
    modules.update(put)
    types, mimetypes.knownfiles = mimetypes.knownfiles, []  # what the system knows of files, of which we serve none
    # All certificate authorities of the system: an agent trusts its own alone (`link.tls`), and probes any server.
    roots = ssl.SSLContext.set_default_verify_paths
    ssl.SSLContext.set_default_verify_paths = _none  # type: ignore[assignment, method-assign]
    collects = gc.isenabled()
    gc.disable()  # all of it stays
    try:
        yield
    finally:
        if collects:
            gc.enable()
        ssl.SSLContext.set_default_verify_paths = roots  # type: ignore[method-assign]
        mimetypes.knownfiles = types
        for name in put:
            del modules[name]
        is_over.set()


def _none(*_: object) -> None:
    """Trust nobody."""


def _installed(name: str) -> str:
    """What is not there is told at once, and not by the first who uses it."""
    if find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return name


def _http(name: str) -> ModuleType:
    with imports(http=True):
        return import_module(name)


def _stand_in(module: str, load: Callable[[str], ModuleType], is_over: threading.Event) -> ModuleType:
    """What modules that are imported meanwhile have in its place; once that is over, it gives what the module has."""
    one = ModuleType(module)

    def find(name: str) -> Any:
        if name.startswith("__"):  # of a module as such
            raise AttributeError(name)
        if not is_over.is_set():
            return _Later(lambda: getattr(load(module), name))
        return one.__dict__.setdefault(name, getattr(load(module), name))

    one.__dict__["__getattr__"] = find
    return one
