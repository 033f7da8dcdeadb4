"""`rollway logs`: the newest log records of an app's instances, from every host, and those to come."""

from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from agent.cli.arguments import app_argument, environment_argument, json_option
from agent.cli.output import show
from agent.cli.session import ask
from agent.model.ids import NAME_EXPECTED, AppName, EnvironmentName, ProcessName, is_name

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


class Instances(click.ParamType[tuple[ProcessName, int | None], str]):
    """`web` or `web.1`."""

    name = "type[.n]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[ProcessName, int | None]:
        process, dot, slot = value.partition(".")
        if not is_name(process) or (dot and not (slot.isascii() and slot.isdigit())):
            self.fail(f"expected a process type, {NAME_EXPECTED}, or TYPE.N, found {value!r}", param, ctx)
        return ProcessName(process), int(slot) if dot else None


@click.command("logs")
@app_argument
@environment_argument
@click.argument("instances", type=Instances(), required=False, metavar="[TYPE[.N]]")
@click.option("-f", "--follow", is_flag=True, help="Go on with each new record, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=100, show_default=True, help="Of each host.")
@json_option
def command(
    app: AppName,
    environment: EnvironmentName,
    instances: tuple[ProcessName, int | None] | None,
    *,
    follow: bool,
    lines: int,
    as_json: bool,
) -> None:
    """Show what instances wrote to their standard output and error.

    Examples: rollway logs shop local web.1 -f; rollway logs shop local -n 1000 --json
    """
    process, slot = instances or (None, None)

    async def tail(coordinator: "Coordinator") -> None:
        async for record in coordinator.logs(app, environment, process, slot, lines=lines, follow=follow):
            show(record.decode(errors="replace") if as_json else in_words(record))

    ask(tail)


def in_words(record: bytes) -> str:
    """One line of a log record: when, where, what."""
    try:
        fields = msgspec.json.decode(record, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return printable(record.decode(errors="replace"))
    time = str(fields.pop("ts", ""))[11:23]
    place = " ".join(str(fields.pop(key)) for key in ("host", "instance") if key in fields)
    for known in ("app", "env", "release", "process", "pid", "stream"):
        fields.pop(known, None)
    message = fields.pop("message", None)
    rest = " ".join(f"{key}={value}" for key, value in fields.items())
    return printable(" ".join(part for part in (time, place, "" if message is None else str(message), rest) if part))


def printable(text: str) -> str:
    """`text` without what a terminal would obey: an app's output is not trusted."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)
