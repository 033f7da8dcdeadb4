"""What `rollway dev` says of its instances, in the words of a person. Pure."""

from collections.abc import Mapping
from typing import Final

from agent.decisions.process import restart
from agent.decisions.process.state import Exited
from agent.decisions.swap.state import InstanceView
from agent.model.process import ProcessType
from agent.supervisor.launchable import AdminExit

Fields = Mapping[str, str | int]

_SILENT: Final = frozenset({"draining", "stopped"})
_SHELLS_WORDS: Final = {"exited with code 126": "found but not run", "exited with code 127": "command not found"}


def told(text: str, fields: Fields, process: ProcessType, view: InstanceView | None, where: str) -> str | None:
    """What there is to say of an event of the supervisor; None: nothing. `where` is where the instance listens."""
    match text:
        case "started":
            return f"started with pid {fields['pid']}"
        case "ready":
            return f"is ready, {where}" if where else _ready(process)
        case "unready":
            return f"is not ready any more: {fields['reason']}"
        case "is restarted":
            return f"is ended and started again: {fields['reason']}"
        case "exited":
            return ended(str(fields["how"]), process, view)
        case "could not be started":
            return f"could not be started: {fields['reason']}"
        case "is in a crash loop":
            return f"is in a crash loop: {fields['restarts']} restarts without a healthy while between them"
        case _ if text in _SILENT:
            return None
    return with_fields(text, fields)


def ended(how: str, process: ProcessType, view: InstanceView | None) -> str:
    """An end and what comes after it, as far as the view says."""
    how = f"{how} ({_SHELLS_WORDS[how]})" if process.shell and how in _SHELLS_WORDS else how
    match view.state if view else "stopped":
        case "starting":
            return f"{how}; starts again"
        case "backoff":
            _, _, after = (view.detail if view else "").rpartition("; ")
            return f"{how}; {after}"
        case "draining" | "stopped":
            return how
    return f"{how}; not started again (restart policy {process.restart.policy})"


def admin(exit_: AdminExit) -> str:
    """How an admin process ended that did not end well; what it wrote was shown already."""
    if exit_.failure:
        return exit_.failure
    if exit_.timed_out:
        return "it did not end within its timeout"
    return restart.describe(Exited(code=exit_.exit_code, signal=exit_.signal, jitter=0))


def with_fields(text: str, fields: Mapping[str, object]) -> str:
    """An event as a line: what happened, then what it is about."""
    return " ".join((text, *(f"{key}={value}" for key, value in fields.items())))


def _ready(process: ProcessType) -> str | None:
    """Without a probe to pass, that it runs was said already."""
    probes = process.probes
    return "is ready" if probes.startup is not None or probes.readiness is not None else None
