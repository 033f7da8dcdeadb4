"""What makes a whole app wrong although each of its values is right: rules between keys and between process types.

Asked of every `AppSpec`, wherever it comes from: `rollway.toml`, a `Procfile`, or an app within an environment.
"""

import shlex
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Final

from agent.model.address import parse_address
from agent.model.process import AppSpec, ExecCheck, HttpCheck, Probe, ProcessType, TcpCheck
from agent.settings.source import MISSING, Source, show_text, show_value

FD: Final = "{fd}"
RELEASE: Final = "release"
"""Under which the output of the release command is found."""


def check_app(spec: AppSpec, source: Source) -> None:
    """Raise SettingsError at the first rule that `spec` breaks."""
    if not spec.processes:
        raise source.error(("process",), "at least one process type, such as [process.web]", MISSING)
    if spec.release is not None:
        _check_command(spec.release.command, ("release", "command"), source, shell=False, has_fd=False)
    for process in spec.processes:
        if process.name == RELEASE:
            raise source.error(
                ("process", RELEASE), "another name: so the release command is called, [release] command", RELEASE
            )
        _check_process(process, source)
    _check_after(spec, source)
    _check_listen(spec, source)


def probes_of(process: ProcessType) -> Iterator[tuple[str, Probe]]:
    """The probes that `process` has, by kind."""
    probes = process.probes
    for kind, probe in (("startup", probes.startup), ("readiness", probes.readiness), ("liveness", probes.liveness)):
        if probe is not None:
            yield kind, probe


def _check_process(process: ProcessType, source: Source) -> None:
    at = ("process", process.name)
    has_fd = bool(process.listen) and process.bind == "fd"
    _check_command(process.command, (*at, "command"), source, shell=process.shell, has_fd=has_fd)
    if process.bind == "port":
        _check_own_port(process, source)
    if process.singleton:
        _check_singleton(process, source)
    if process.total:
        _check_total(process, source)
    if process.restart.max_delay_ms < process.restart.base_delay_ms:
        raise source.error((*at, "restart"), "max_delay to be at least base_delay", "a shorter one")
    for kind, probe in probes_of(process):
        _check_probe(process, kind, probe, source)


def _check_command(command: str, at: tuple[str, ...], source: Source, *, shell: bool, has_fd: bool) -> None:
    if not shell:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise source.error(at, "a command in words", f"{show_text(command)} ({error})") from None
        if not words:
            raise source.error(at, "a command", show_text(command))
    if FD in command and not has_fd:
        raise source.error(
            at, f'no {FD} where no socket is handed over: that takes listen, and bind = "fd"', show_text(command)
        )


def _check_own_port(process: ProcessType, source: Source) -> None:
    at = ("process", process.name)
    if not process.listen:
        raise source.error((*at, "bind"), 'listen beside bind = "port", which names the port', '"port" alone')
    if process.count > 1:
        raise source.error((*at, "count"), 'at most 1 with bind = "port": a port has one owner', str(process.count))
    if process.swap == "start-first":
        expected = 'swap = "stop-first" with bind = "port": start-first needs a socket that the agent owns'
        raise source.error((*at, "swap"), expected, '"start-first"')


def _check_singleton(process: ProcessType, source: Source) -> None:
    at = ("process", process.name)
    if process.count != 1:
        raise source.error((*at, "count"), "1: it is a singleton, one in the whole environment", str(process.count))
    if process.swap == "start-first":
        expected = 'swap = "stop-first" with singleton = true: there are never two'
        raise source.error((*at, "swap"), expected, '"start-first"')
    if process.listen:
        expected = "none with singleton = true: nobody could tell on which host it listens"
        raise source.error((*at, "listen"), expected, show_text(process.listen[0]))


def _check_total(process: ProcessType, source: Source) -> None:
    at = ("process", process.name)
    if process.count != 1:
        raise source.error((*at, "count"), f"none: total = {process.total} counts in all hosts", str(process.count))
    if process.listen:
        expected = "none with total: hosts that run none of it would have nobody to answer"
        raise source.error((*at, "listen"), expected, show_text(process.listen[0]))


def _check_probe(process: ProcessType, kind: str, probe: Probe, source: Source) -> None:
    at = ("process", process.name, "probe", kind)
    if isinstance(probe.check, ExecCheck):
        _check_command(probe.check.command, (*at, "exec"), source, shell=process.shell, has_fd=False)
    if not process.listen:
        if isinstance(probe.check, HttpCheck):
            way = "https" if probe.check.tls else "http"
            raise source.error((*at, way), f"process.{process.name}.listen, which an {way} probe asks", "no listen")
        if isinstance(probe.check, TcpCheck) and probe.check.port is None:
            raise source.error((*at, "tcp"), "a port, since the process type has no listen", "true")
    if kind != "readiness" and probe.successes != 1:
        raise source.error((*at, "successes"), f"1 for a {kind} probe", show_value(probe.successes))


def _check_after(spec: AppSpec, source: Source) -> None:
    names = [process.name for process in spec.processes]
    for process in spec.processes:
        for place, other in enumerate(process.after):
            if other not in names:
                at = ("process", process.name, "after", place)
                raise source.error(at, f"a process type of this app: {', '.join(names)}", show_text(other))
    try:
        TopologicalSorter({process.name: process.after for process in spec.processes}).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        found = f"a circle: {' after '.join(reversed(circle))}"
        raise source.error(("process", circle[-1], "after"), "an order in which each can start", found) from None


def _check_listen(spec: AppSpec, source: Source) -> None:
    taken: list[tuple[str, str]] = []
    for process in spec.processes:
        for place, text in enumerate(process.listen):
            for owner, other in taken:
                if parse_address(text).overlaps(parse_address(other)):
                    at = ("process", process.name, "listen", place)
                    raise source.error(
                        at, "an address that is not taken", f'"{text}", while {owner} listens on "{other}"'
                    )
            taken.append((process.name, text))
