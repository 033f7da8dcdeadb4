"""A Procfile: its lines as they stand, but for a shell that none needs and a port where the server takes a socket."""

import re
import shlex
from collections.abc import Sequence
from typing import Final

from agent.model.ids import AppName
from agent.model.process import ProcessType
from agent.settings.guess.found import Command, Found, Tree
from agent.settings.procfile import load_procfile

_PORT: Final = re.compile(r"\$(?:PORT\b|\{PORT\}|\{PORT:-\d+\})")
_FOR_A_SHELL: Final = re.compile(r"[|&;<>$`*?~()\n\\#\[\]{}]")
_ASSIGNS: Final = re.compile(r"[A-Za-z_]\w*=")
_TAKES_FD: Final = {
    "gunicorn": (("-b", "--bind"), ""),
    "uvicorn": (("--host", "--port"), "--fd {fd}"),
    "hypercorn": (("-b", "--bind"), "--bind fd://{fd}"),
}
"""Which of its words say where to listen, and what takes their place."""


def find(tree: Tree, file: str = "Procfile") -> Found | None:
    """What the Procfile says. Raises SettingsError where it is wrong."""
    if file not in tree:
        return None
    spec = load_procfile(tree[file], file, AppName("app"))
    release = shlex.split(spec.release.command)[-1] if spec.release is not None else None
    return Found(
        commands=tuple(map(_command, spec.processes)),
        release=None if release is None else _release(release),
        seen=f"the {file}",
    )


def _command(process: ProcessType) -> Command:
    plain = _without_shell(process.command)
    if not process.listen:
        return Command(name=process.name, command=plain or process.command, shell=plain is None)
    taking = _with_socket(shlex.split(plain)) if plain is not None else None
    if taking is not None:
        return Command(name=process.name, command=taking, listens="fd", note="on a socket that it is handed")
    return Command(
        name=process.name,
        command=plain or process.command,
        shell=plain is None,
        listens="port",
        address=process.listen[0],
    )


def _release(line: str) -> str:
    return _without_shell(line) or shlex.join(["/bin/sh", "-c", line])


def _without_shell(line: str) -> str | None:
    """The command in words, `{port}` for $PORT; None where it takes a shell."""
    line = _PORT.sub("{port}", line).removeprefix("exec ")
    if _FOR_A_SHELL.search(line.replace("{port}", "")):
        return None
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    return f"env {line}" if words and _ASSIGNS.match(words[0]) else line


def _with_socket(words: Sequence[str]) -> str | None:
    """The command with the server's socket in the place of its address; None where it is not known to take one."""
    start = 2 if tuple(words[1:2]) == ("-m",) and words[0].startswith("python") else 0
    server = words[start] if len(words) > start else ""
    if server not in _TAKES_FD or "--reload" in words:
        return None
    options, instead = _TAKES_FD[server]
    kept: list[str] = []
    skips = False
    for word in words:
        if skips:
            skips = False
        elif word in options:
            skips = True
        elif not word.startswith(tuple(f"{option}=" for option in options)):
            kept.append(word)
    if any("{port}" in word for word in kept):
        return None
    return " ".join([shlex.join(kept), *([instead] if instead else [])])
