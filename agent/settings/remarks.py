"""What works but is not twelve-factor, or not as smooth as it could be: for `rollway check`. Remarks, never errors."""

import re
from collections.abc import Iterator
from typing import Final

from agent.model.process import AppSpec, ProcessType
from agent.model.units import show_duration

_SHORT_LINGER_MS: Final = 5_000
_SECRET: Final = re.compile(r"(^|_)(KEY|PASSWORD|PASSWD|TOKEN|SECRET|CREDENTIALS)$")
_SHELL_WORDS: Final = re.compile(r"[|&;<>$`*]")


def remarks(spec: AppSpec) -> tuple[str, ...]:
    """One sentence for each, in the order of the app's file."""
    of_processes = (remark for process in spec.processes for remark in _of_process(process))
    return (*_of_release(spec), *of_processes, *_of_config(spec))


def _of_release(spec: AppSpec) -> Iterator[str]:
    users = {process.sandbox.user for process in spec.processes}
    if spec.release is not None and spec.release.sandbox.as_app and len(users) > 1:
        yield "release: process types run as several users, its command as one that names none, without sandbox.user"


def _of_process(process: ProcessType) -> Iterator[str]:
    at = f"process.{process.name}"
    if process.bind == "port":
        yield f"{at}: it binds its port itself, so each swap leaves a gap; with sockets of the agent there is none"
    if process.listen and process.probes.readiness is None:
        yield f"{at}: no readiness probe, so it gets users as soon as it accepts a connection, working or not"
    if process.shell and not process.command.startswith("exec "):
        loses = (
            "the stop signal and LISTEN_PID name"
            if process.listen and process.bind == "fd"
            else "the stop signal names"
        )
        yield f"{at}: with shell = true {loses} the shell and not the program, unless the command begins with `exec`"
    if not process.shell and _SHELL_WORDS.search(process.command):
        yield f"{at}: the command looks like one for a shell, and is run without; shell = true gives it one"
    if process.listen and process.bind == "fd" and process.stop.linger_ms < _SHORT_LINGER_MS:
        linger = show_duration(process.stop.linger_ms)
        yield f"{at}.stop: a linger of {linger} is shorter than clients keep idle connections, which then see errors"


def _of_config(spec: AppSpec) -> Iterator[str]:
    for name, key in spec.config.items():
        if not key.required:
            yield f"config.{name}: declared without required = true, so a release that lacks it is not refused"
        if is_secret(name) and not key.secret:
            yield f"config.{name}: looks like a secret and is not declared secret = true, so it is stored readable"


def is_secret(name: str) -> bool:
    """Whether a config key of that name looks like one that nobody may read."""
    return _SECRET.search(name) is not None
