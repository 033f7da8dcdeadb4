"""`Procfile`: process types as foreman knows them, one `name: command` a line, each command for a shell.

`web` binds $PORT itself, so it has one instance that stops before the next one starts, at foreman's first port. A line
`release:` is the release command, as where Procfiles come from, and no process type. Every other line that is neither
empty nor a comment is refused, where foreman would skip it.
"""

import re
import shlex
from typing import Final

from msgspec.structs import replace

from agent.errors import SettingsError
from agent.model.ids import NAME_EXPECTED, AppName, ProcessName, is_name
from agent.model.process import AppSpec, ProcessType, ReleaseCommand, Sandbox
from agent.settings.appchecks import check_app
from agent.settings.source import KeyPath, Source, show_text

WEB: Final = "web"
RELEASE: Final = "release"
WEB_ADDRESS: Final = "0.0.0.0:5000"
_LINE: Final = re.compile(r"([A-Za-z0-9_-]+):\s*(.*?)\s*")


def load_procfile(text: str, file: str, app: AppName) -> AppSpec:
    """The app that `text` declares, under the name `app`. Raises SettingsError."""
    commands: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, command = _split(line, file, number)
        if name in commands:
            raise SettingsError(file, name, "each process type once", f"a second one after line {lines[name]}", number)
        commands[name], lines[name] = command, number

    def locate(path: KeyPath) -> int | None:
        return next((lines[key] for key in path if isinstance(key, str) and key in lines), None)

    release = commands.pop(RELEASE, None)
    spec = AppSpec(
        app=app,
        release=None if release is None else _release(release),
        processes=tuple(_process(ProcessName(name), command) for name, command in commands.items()),
    )
    check_app(spec, Source(file, locate))
    return spec


def _split(line: str, file: str, number: int) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None or "\0" in line:
        raise SettingsError(file, "", "a line such as `web: gunicorn shop:app`", show_text(line), number)
    name, command = match[1], match[2]
    if not is_name(name):
        raise SettingsError(file, name, NAME_EXPECTED, show_text(name), number)
    if not command:
        raise SettingsError(file, name, "a command", "nothing", number)
    return name, command


def _release(command: str) -> ReleaseCommand:
    return ReleaseCommand(command=shlex.join(["/bin/sh", "-c", command]), sandbox=Sandbox(as_app=True))


def _process(name: ProcessName, command: str) -> ProcessType:
    plain = ProcessType(name=name, command=command, shell=True, sandbox=Sandbox(as_app=True))  # noqa: S604 - a declaration
    if name != WEB:
        return plain
    return replace(plain, listen=(WEB_ADDRESS,), bind="port", swap="stop-first")
