"""`rollway logs`: the newest log records of an app's instances, from every host, and those to come.

Rules: a host that gives none is named, for its silence would read as that of the app. It is an error where it is the
only one that was asked for, where no other answered either, and with `--strict`; what others gave is shown before.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import rich_click as click
from msgspec import Struct

from agent.cli.arguments import NAME, RELEASE, app_argument, environment_argument
from agent.cli.by_hand import NAMED_MAX, in_line, log_lines, say_who
from agent.cli.instances import Instances, check_host, check_instances
from agent.cli.output import remark, show
from agent.cli.records import Record, in_words, printable, read_record
from agent.cli.session import ask
from agent.cli.side import agent_asked, host_socket_option
from agent.client.agent import Agent
from agent.errors import NotFoundError, UnreachableError
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName, ReleaseName
from agent.wire.control import AgentStatus

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

LINES_MAX: Final = 10_000
"""The coordinator gives no more."""


class Pattern(click.ParamType[re.Pattern[str], str]):
    """A regular expression."""

    name = "pattern"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> re.Pattern[str]:
        try:
            return re.compile(value)
        except re.error as error:
            self.fail(f"expected a regular expression, found {value!r}: {error}", param, ctx)


class Filter(Struct, frozen=True, kw_only=True):
    """What is chosen here, of what the coordinator gives."""

    host: HostName | None = None
    release: ReleaseName | None = None
    grep: re.Pattern[str] | None = None

    @property
    def narrows(self) -> bool:
        return self != Filter()

    def keeps(self, record: Record) -> bool:
        return (
            self.host in (None, record.text("host"))
            and self.release in (None, record.text("release"))
            and (self.grep is None or self.grep.search(in_words(record)) is not None)
        )


@click.command("logs")
@app_argument
@environment_argument
@click.argument("instances", type=Instances(), required=False, metavar="[TYPE[.N]]")
@click.option("-f", "--follow", is_flag=True, help="Go on with each new record, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, LINES_MAX), default=100, show_default=True, help="Of each host, at most."
)
@click.option("--host", type=NAME, help="Of this host alone.")
@click.option("--release", type=RELEASE, help="What instances of this release wrote.")
@click.option("--grep", type=Pattern(), help="Lines in which this regular expression is found.")
@click.option("--strict", is_flag=True, help="Fail (6) when any host gave none.")
@host_socket_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON record per line, for scripts.")
def command(
    app: AppName,
    environment: EnvironmentName,
    instances: tuple[ProcessName, int | None] | None,
    *,
    follow: bool,
    lines: int,
    host: HostName | None,
    release: ReleaseName | None,
    grep: re.Pattern[str] | None,
    strict: bool,
    host_socket: str | None,
    as_json: bool,
) -> None:
    """Show what instances wrote to their standard output and error.

    Examples: rollway logs shop local web.1 -f; rollway logs shop local --release v2 --grep 'Error|Traceback'
    """
    process, slot = instances or (None, None)
    wanted = Filter(host=host, release=release, grep=grep)
    shown = Shown(wanted, as_json=as_json, searches=wanted.narrows and not follow)
    asked = LINES_MAX if shown.searches else lines

    async def tail(coordinator: "Coordinator") -> bool:
        """Whether the answer is one, though hosts may be missing; a stream that is followed ends with the last host."""
        if process is not None:
            await check_instances(coordinator, app, environment, process, slot)
        if host is not None:
            await check_host(coordinator, host, environment)
        if release is not None:
            await coordinator.release(app, environment, release)
        async for line in coordinator.logs(app, environment, process, slot, lines=asked, follow=follow):
            shown.take(line)
            if follow and host in shown.silent:
                break
        return host is None and not follow and (shown.heard or await _answered(coordinator, environment, shown.silent))

    agent = agent_asked(host_socket)
    if agent is None:
        enough = ask(tail)
    else:
        say_who(agent)
        enough = _is_of(agent, host)
        for line in log_lines(agent, app, environment, process, slot, lines=asked, follow=follow):
            shown.take(line)
    for text in newest(shown.found, lines):
        show(text)
    if shown.silent and (strict or not enough):
        raise _missing(shown.silent, host, any_answered=enough)


def _is_of(agent: Agent, host: HostName | None) -> bool:
    """That the agent is the one of `host`; NotFoundError where it is another's."""
    if host is not None and (here := agent.ask("GET", "/v1/status", AgentStatus).host) != host:
        raise NotFoundError(f"this host is {here}, not {host}", "Ask the coordinator, or the agent on that host.")
    return True


async def _answered(coordinator: "Coordinator", environment: EnvironmentName, silent: Collection[str]) -> bool:
    """Whether a host is there that was not named as silent: its instances wrote nothing."""
    return not silent or any(
        host.connected and environment in host.environments and host.host not in silent
        for host in (await coordinator.status()).hosts
    )


def _missing(silent: Mapping[str, str], asked: HostName | None, *, any_answered: bool) -> UnreachableError:
    what_to_do = "See `rollway host list`. On the host itself, `rollway logs` asks its agent."
    if asked is not None:
        return UnreachableError(printable(f"no logs of {asked}: {silent[asked]}"), what_to_do)
    more = f" and {len(silent) - NAMED_MAX} more" if len(silent) > NAMED_MAX else ""
    names = printable(", ".join(list(silent)[:NAMED_MAX])) + more
    return UnreachableError(f"{'not every' if any_answered else 'no'} host gives its logs: {names}", what_to_do)


class Shown:
    """Shows records as they come, or keeps those that a search finds until all have come."""

    def __init__(self, wanted: Filter, *, as_json: bool, searches: bool) -> None:
        self.found: list[tuple[str, str]] = []
        self.silent: dict[str, str] = {}
        """Hosts that give none, or no more, each with why."""
        self.heard = False
        self.searches = searches
        self._wanted, self._as_json = wanted, as_json

    def take(self, line: bytes) -> None:
        record = read_record(line)
        if record is not None and record.trouble:
            self._note(line, record.text("host"), record.trouble)
            return
        self.heard = True
        if record is None or self._wanted.keeps(record):
            text = in_line(line, as_json=self._as_json)
            if self.searches and record is not None:
                self.found.append((record.text("host"), text))
            else:
                show(text)

    def _note(self, line: bytes, host: str, why: str) -> None:
        if self._wanted.host not in (None, host):
            return
        self.silent[host] = why
        if self._as_json:
            show(in_line(line, as_json=True))
        elif self._wanted.host is None:  # else it is the error
            remark(printable(f"rollway: no logs of {host}: {why}"))


def newest(found: Sequence[tuple[str, str]], lines: int) -> Iterator[str]:
    """Give the last `lines` of each host, in the order in which all came."""
    left = Counter(host for host, _ in found)
    for host, text in found:
        if left[host] <= lines:
            yield text
        left[host] -= 1
