"""`rollway logs`: the newest log records of an app's instances, from every host, and those to come."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import rich_click as click
from msgspec import Struct

from agent.cli.arguments import NAME, RELEASE, app_argument, environment_argument
from agent.cli.instances import Instances, check_host, check_instances
from agent.cli.output import remark, show
from agent.cli.records import Record, in_words, printable, read_record
from agent.cli.session import ask
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
    as_json: bool,
) -> None:
    """Show what instances wrote to their standard output and error.

    Examples: rollway logs shop local web.1 -f; rollway logs shop local --release v2 --grep 'Error|Traceback'
    """
    process, slot = instances or (None, None)
    wanted = Filter(host=host, release=release, grep=grep)
    searches = wanted.narrows and not follow

    async def tail(coordinator: "Coordinator") -> None:
        if process is not None:
            await check_instances(coordinator, app, environment, process, slot)
        if host is not None:
            await check_host(coordinator, host)
        if release is not None:
            await coordinator.release(app, environment, release)
        found: list[tuple[str, str]] = []
        asked = LINES_MAX if searches else lines
        async for line in coordinator.logs(app, environment, process, slot, lines=asked, follow=follow):
            record = read_record(line)
            if record is not None and record.trouble and not as_json:
                remark(printable(f"rollway: no logs of {record.text('host')}: {record.trouble}"))
            elif record is None or record.trouble or wanted.keeps(record):
                text = line.decode(errors="replace") if as_json else in_words(record) if record else loose(line)
                if searches and record is not None:
                    found.append((record.text("host"), text))
                else:
                    show(text)
        for text in newest(found, lines):
            show(text)

    ask(tail)


def newest(found: Sequence[tuple[str, str]], lines: int) -> Iterator[str]:
    """Give the last `lines` of each host, in the order in which all came."""
    left = Counter(host for host, _ in found)
    for host, text in found:
        if left[host] <= lines:
            yield text
        left[host] -= 1


def loose(line: bytes) -> str:
    """A line that is no record."""
    return printable(line.decode(errors="replace"))
