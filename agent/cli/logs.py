"""`rollway logs`: the newest log records of an app's instances, from every host, and those to come."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import rich_click as click
from msgspec import Struct

from agent.cli.arguments import NAME, RELEASE, app_argument, environment_argument
from agent.cli.by_hand import in_line, log_lines, say_who
from agent.cli.instances import Instances, check_host, check_instances
from agent.cli.output import remark, show
from agent.cli.records import Record, in_words, printable, read_record
from agent.cli.session import ask
from agent.cli.side import agent_asked, host_socket_option
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName, ReleaseName

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

    async def tail(coordinator: "Coordinator") -> None:
        if process is not None:
            await check_instances(coordinator, app, environment, process, slot)
        if host is not None:
            await check_host(coordinator, host)
        if release is not None:
            await coordinator.release(app, environment, release)
        async for line in coordinator.logs(app, environment, process, slot, lines=asked, follow=follow):
            shown.take(line)

    agent = agent_asked(host_socket)
    if agent is None:
        ask(tail)
    else:
        say_who(agent)
        for line in log_lines(agent, app, environment, process, slot, lines=asked, follow=follow):
            shown.take(line)
    for text in newest(shown.found, lines):
        show(text)


class Shown:
    """Shows records as they come, or keeps those that a search finds until all have come."""

    def __init__(self, wanted: Filter, *, as_json: bool, searches: bool) -> None:
        self.found: list[tuple[str, str]] = []
        self.searches = searches
        self._wanted, self._as_json = wanted, as_json

    def take(self, line: bytes) -> None:
        record = read_record(line)
        if record is not None and record.trouble and not self._as_json:
            remark(printable(f"rollway: no logs of {record.text('host')}: {record.trouble}"))
        elif record is None or record.trouble or self._wanted.keeps(record):
            text = in_line(line, as_json=self._as_json)
            if self.searches and record is not None:
                self.found.append((record.text("host"), text))
            else:
                show(text)


def newest(found: Sequence[tuple[str, str]], lines: int) -> Iterator[str]:
    """Give the last `lines` of each host, in the order in which all came."""
    left = Counter(host for host, _ in found)
    for host, text in found:
        if left[host] <= lines:
            yield text
        left[host] -= 1
