"""Where a command that somebody runs once is run, and in which release: on a host that is as it is to be.

Rules: where no host is named, it is the first that runs, undisturbed, what the environment runs. A host that is named
is taken as it is: with the release that it runs, by a person's hand too; between two, with the environment's.
"""

from collections.abc import Sequence

from msgspec import Struct

from agent.model.assignment import AppReport
from agent.model.ids import HostName, ReleaseName


class Candidate(Struct, frozen=True, kw_only=True):
    """A host of the environment, as it is known."""

    host: HostName
    connected: bool
    runs_commands: bool
    """Whether its agent knows how."""
    report: AppReport | None


def disturbed(candidate: Candidate, release: ReleaseName) -> str:
    """Why the host is not chosen for a command in `release`; empty when it may be."""
    report = candidate.report
    if not candidate.connected:
        return "is not connected"
    if not candidate.runs_commands:
        return "has an older agent, which does not know how"
    if report is None:
        return "has not said yet what it runs"
    if report.aside:
        return f"is {report.aside}"
    if report.release != release:
        return f"runs {report.release or 'nothing'}"
    return "" if report.state == "done" else f"is {report.state}"


def choose(candidates: Sequence[Candidate], release: ReleaseName) -> HostName | None:
    """The first host that may be chosen."""
    return next((candidate.host for candidate in candidates if not disturbed(candidate, release)), None)


def release_there(report: AppReport | None, release: ReleaseName) -> ReleaseName:
    """In which release a command is run on a host that was named; `release` is the environment's."""
    settled = report is not None and (report.state == "done" or report.aside == "pinned")
    return report.release if settled and report is not None and report.release is not None else release
