"""Python: Django, Flask, FastAPI and their like, under gunicorn or uvicorn, with what their project file asks for.

Rules: packages go into `lib` within the release, for a host has no virtual environment; PYTHONPATH names it, which does
no harm to a developer's own. A server that is not among the dependencies is still the one that is written, and said.
"""

import re
from collections.abc import Iterator
from typing import Final

from agent.settings.guess.found import Command, Found, Tree, left_out, parsed_toml, table, text_of

_MODULES: Final = ("gunicorn", "uvicorn", "hypercorn", "celery", "flask", "alembic", "rq", "dramatiq")
"""Programs that are found as modules too: a build's own scripts are on no PATH."""
_NAME: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_SETTINGS: Final = re.compile(r"DJANGO_SETTINGS_MODULE['\"]\s*,\s*['\"]([A-Za-z_][\w.]*)\.settings")
_ASGI: Final = ("FastAPI", "Starlette", "Quart", "Litestar", "Sanic")
_WSGI: Final = ("Flask", "Bottle", "Falcon")
_APP: Final = re.compile(rf"^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)?({'|'.join((*_ASGI, *_WSGI))})\(", re.MULTILINE)
_FACTORY: Final = re.compile(r"^def (create_app|make_app)\(", re.MULTILINE)
_BESIDE: Final = ("tests", "test", "docs", "examples", "scripts")
"""Folders whose apps are not the one."""
_FIRST: Final = ("main.py", "app.py", "asgi.py", "wsgi.py", "server.py", "__init__.py")


def find(tree: Tree) -> Found | None:
    """What there is of a Python web app."""
    wanted, build = dependencies(tree), tuple(_build(tree))
    served = _django(tree, wanted) or _framework(tree, wanted)
    if served is None and build and "Procfile" in tree:
        served = Found(seen="a Python project")
    if served is None:
        return None
    doubts = list(served.doubts)
    if not build:
        doubts.append("neither requirements.txt nor pyproject.toml says what to install: [build] run is empty")
    return Found(
        commands=served.commands,
        build=build,
        exclude=left_out(tree),
        release=served.release,
        seen=served.seen,
        doubts=tuple(doubts),
        name=text_of(table(parsed_toml(tree, "pyproject.toml"), "project").get("name")),
    )


def with_lib(command: str) -> str | None:
    """The command with the packages of the build in its reach; None where only a person can tell."""
    first = command.partition(" ")[0]
    if first in _MODULES:
        return f"env PYTHONPATH=lib python3 -m {command}"
    is_python = first in ("python", "python3")  # by the first of them Debian has nothing
    return f"env PYTHONPATH=lib python3{command.removeprefix(first)}" if is_python else None


def dependencies(tree: Tree) -> set[str]:
    """The names of what the app asks for, as far as they are written plainly."""
    project = parsed_toml(tree, "pyproject.toml")
    listed = table(project, "project").get("dependencies")
    lines = [line for line in listed if isinstance(line, str)] if isinstance(listed, list) else []
    lines += table(project, "tool", "poetry", "dependencies")
    lines += tree.get("requirements.txt", "").splitlines()
    names = (match[1] for line in lines if (match := _NAME.match(line)))
    return {re.sub(r"[._-]+", "-", name).lower() for name in names}


def _build(tree: Tree) -> Iterator[str]:
    into_lib = "python3 -m pip install --no-compile --target lib"
    if "uv.lock" in tree:
        yield "uv export --quiet --frozen --no-dev --no-emit-project --output-file requirements.lock"
        yield f"{into_lib} -r requirements.lock"
    elif "requirements.txt" in tree:
        yield f"{into_lib} -r requirements.txt"
    elif table(parsed_toml(tree, "pyproject.toml"), "project"):
        yield f"{into_lib} ."


def _django(tree: Tree, wanted: set[str]) -> Found | None:
    if "manage.py" not in tree:
        return None
    named = _SETTINGS.search(tree["manage.py"])
    project = named[1].partition(".")[0] if named else None
    if project is None:
        return None
    python = "env PYTHONPATH=lib python3"
    is_async = "uvicorn" in wanted and "gunicorn" not in wanted
    web = _uvicorn(f"{project}.asgi:application") if is_async else _gunicorn(f"{project}.wsgi")
    commands = [web]
    if "celery" in wanted and f"{project}/celery.py" in tree:
        commands.append(Command(name="worker", command=f"{python} -m celery -A {project} worker"))
    return Found(
        commands=tuple(commands),
        release=f"{python} manage.py migrate --noinput",
        seen=f"Django: manage.py names the project {project}",
        doubts=_lacks(web, wanted),
    )


def _framework(tree: Tree, wanted: set[str]) -> Found | None:
    sources = (path for path in tree if path.endswith(".py") and path.partition("/")[0] not in _BESIDE)
    for path in sorted(sources, key=_nearness):
        made = _APP.search(tree[path])
        factory = None if made else _FACTORY.search(tree[path])
        if made is None and (factory is None or "flask" not in wanted):
            continue
        within = path.removeprefix("src/")
        module = within.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        lib = "lib:src" if path != within else "lib"
        is_async = made is not None and made[2] in _ASGI
        target = f"{module}:{made[1]}" if made else f"'{module}:{factory[1] if factory else ''}()'"
        web = _uvicorn(target, lib) if is_async else _gunicorn(target, lib)
        return Found(commands=(web,), seen=f"{made[2] if made else 'Flask'}: {path}", doubts=_lacks(web, wanted))
    return None


def _nearness(path: str) -> tuple[int, int, str]:
    file = path.rpartition("/")[2]
    return path.count("/"), _FIRST.index(file) if file in _FIRST else len(_FIRST), path


def _gunicorn(target: str, lib: str = "lib") -> Command:
    return Command(
        name="web",
        command=f"env PYTHONPATH={lib} python3 -m gunicorn {target}",
        listens="fd",
        note="gunicorn takes the socket by itself (LISTEN_FDS)",
    )


def _uvicorn(target: str, lib: str = "lib") -> Command:
    return Command(
        name="web",
        command=f"env PYTHONPATH={lib} python3 -m uvicorn {target} --fd {{fd}}",
        listens="fd",
        note="{fd} becomes the number of the socket that it is handed",
    )


def _lacks(web: Command, wanted: set[str]) -> tuple[str, ...]:
    server = "uvicorn" if " uvicorn " in web.command else "gunicorn"
    return () if server in wanted else (f"{server} is not among the dependencies: add it",)
