"""The rollway.toml for a folder: what was found there, as text that teaches, and that `rollway check` accepts.

Rules: what is not known is a commented line, never an invention; what was recognised, and by what, stands at the top.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agent.errors import SettingsError
from agent.model.ids import AppName, is_config_key, is_name
from agent.settings.appfile import load_app
from agent.settings.guess import others, procfile, python
from agent.settings.guess.found import Command, Found, Tree
from agent.settings.remarks import is_secret

FILE: Final = "rollway.toml"
EXAMPLES: Final = (".env.example", ".env.sample", ".env.template", ".env")
"""The first that is there says which config the app has; no value of it is taken over."""
NOTHING: Final = Found(
    commands=(Command(name="web", command="bin/web", listens="port"),),
    seen="nothing that was recognised",
    doubts=("nothing here says how the app is started: put its command into [process.web]",),
)
_FINDERS: Final = (procfile.find, python.find, others.ruby, others.go, others.node, others.rust)
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")
_KEY: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=")


class Sketch(Struct, frozen=True, kw_only=True):
    """A rollway.toml to be: its text, by what it was found, what a person should look at."""

    text: str
    seen: str
    doubts: tuple[str, ...]


def found(tree: Tree) -> Found | None:
    """What is recognised; a Procfile says how it runs, and what else is there how it is built."""
    stacks = [one for finder in _FINDERS if (one := finder(tree)) is not None]
    if not stacks:
        return None
    first, *rest = stacks
    if "Procfile" in tree and rest:
        first = _built_as(first, rest.pop(0))
    seen_too = tuple(f"not written: how to build what else is here ({one.seen})" for one in rest)
    return replace(first, doubts=(*first.doubts, *seen_too))


def _built_as(run: Found, built: Found) -> Found:
    """What a Procfile runs, of a build that something else says."""
    run = replace(run, build=built.build, exclude=built.exclude, name=built.name)
    run = replace(run, seen=f"{run.seen}, built as {built.seen}")
    if not any(" --target lib" in line for line in built.build):
        return run
    reached = {one.name: None if one.shell else python.with_lib(one.command) for one in run.commands}
    release = run.release and (python.with_lib(run.release) or run.release)
    unsure = [name for name, command in reached.items() if command is None]
    unsure += ["release"] if release is not None and release == run.release else []
    doubts = (f"see that {', '.join(unsure)} finds its packages, which the build puts into lib",) if unsure else ()
    commands = tuple(replace(one, command=reached[one.name] or one.command) for one in run.commands)
    return replace(run, commands=commands, release=release, doubts=(*run.doubts, *doubts))


def sketch(tree: Tree, folder: str, command: str | None = None) -> Sketch:
    """The file for `tree` in a folder of that name; `command` starts it where nothing else says how."""
    here = found(tree)
    if here is None and command:
        web = replace(NOTHING.commands[0], command=command, shell=True)  # noqa: S604 - nothing runs here
        here = replace(NOTHING, commands=(web,), seen="the command that was given", doubts=())
    here = here or NOTHING
    app = name_of(here.name or "", name_of(folder, AppName("app")))
    try:
        return _sketch(app, here, _keys(tree))
    except SettingsError as error:
        doubts = (f"what was found cannot be written ({here.seen}): {error.error}", *NOTHING.doubts)
        return _sketch(app, replace(NOTHING, doubts=doubts), _keys(tree))


def _sketch(app: AppName, here: Found, keys: tuple[str, ...]) -> Sketch:
    text = "\n".join(_lines(app, here, keys)) + "\n"
    load_app(text, FILE)
    return Sketch(text=text, seen=here.seen, doubts=here.doubts)


def name_of(text: str, otherwise: AppName) -> AppName:
    """The app's name that `text` comes nearest to."""
    name = _NO_NAME.sub("-", text.rpartition("/")[2].lower()).strip("-0123456789")[:32].rstrip("-")
    return AppName(name) if is_name(name) else otherwise


def _keys(tree: Tree) -> tuple[str, ...]:
    text = next((tree[name] for name in EXAMPLES if name in tree), "")
    names = (match[1] for line in text.splitlines() if (match := _KEY.match(line)))
    return tuple(dict.fromkeys(name for name in names if is_config_key(name)))


def _lines(app: AppName, here: Found, keys: tuple[str, ...]) -> Iterator[str]:
    seen = "".join(c if c.isprintable() else "?" for c in here.seen)
    yield f"# What {app} says of itself, by `rollway init` from {seen}."
    yield "# Check it with `rollway check`, run it with `rollway dev`; config/rollway.toml of Rollway has every key."
    yield f"app = {_quoted(app)}"
    yield ""
    yield "[build]"
    yield "# Shell lines, run in a clean export of the commit; what they leave behind is the release."
    yield from _list("run", here.build, '#run = ["make build"]')
    yield from _list("exclude", here.exclude, '#exclude = ["tests/"]')
    yield ""
    if here.release is not None:
        yield "[release]"
        yield "# Once per rollout, on one host, before any new process starts. It must bear being run twice."
        yield f"command = {_quoted(here.release)}"
    else:
        yield "#[release]"
        yield '#command = "bin/migrate"    # once per rollout, before any new process starts'
    for command in here.commands:
        yield ""
        yield from _process(command)
    yield ""
    yield "# Config comes as environment variables: from `rollway config set` on hosts, from .env in `rollway dev`."
    yield from _config(keys)


def _process(command: Command) -> Iterator[str]:
    at = f"process.{command.name}"
    yield f"[{at}]"
    if command.note:
        yield f"# {command.note}"
    yield f"command = {_quoted(command.command)}"
    if command.shell:
        yield "shell = true                # begin the command with `exec`, or signals reach the shell only"
    yield "#count = 2                  # instances on each host" if command.listens != "port" else "count = 1"
    if not command.listens:
        return
    yield f"listen = [{_quoted(command.address)}]"
    if command.listens == "port":
        yield "# It binds $PORT itself: one instance, and a gap at each swap. There is none with a server that takes a"
        yield "# socket, as fd 3 or {fd}, and without the next two lines."
        yield 'bind = "port"'
        yield 'swap = "stop-first"'
    yield ""
    yield f"#[{at}.probe.readiness]  # no connection before this answers; without it: before somebody accepts"
    yield '#http = "/healthz"'


def _config(keys: tuple[str, ...]) -> Iterator[str]:
    if not keys:
        yield "#[config.DATABASE_URL]"
        yield "#required = true            # nothing is started without it"
        yield "#secret = true              # stored encrypted, opened only on hosts of the environment"
    for place, key in enumerate(keys):
        yield from ("",) if place else ()
        yield f"[config.{key}]"
        yield "required = true             # nothing is started without it"
        if is_secret(key):
            yield "secret = true               # stored encrypted, opened only on hosts of the environment"


def _list(key: str, values: tuple[str, ...], otherwise: str) -> Iterator[str]:
    if not values:
        yield otherwise
    elif len(values) == 1:
        yield f"{key} = [{_quoted(values[0])}]"
    else:
        yield f"{key} = ["
        yield from (f"  {_quoted(value)}," for value in values)
        yield "]"


def _quoted(text: str) -> str:
    """As TOML writes it: literally where that is easier to read."""
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")
