"""`rollway scale`: how many instances of each process type run on each host of an environment."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import anyio
import rich_click as click

from agent.cli.arguments import app_argument, environment_argument, json_option
from agent.cli.changes import AWAY, with_reason
from agent.cli.moments import in_day
from agent.cli.output import remark, show, show_json, show_table
from agent.cli.session import ask
from agent.client.answers import HostScaled, ScaleShown
from agent.errors import FailedError
from agent.linux.clock import now
from agent.model.ids import NAME_EXPECTED, AppName, EnvironmentName, ProcessName, is_name
from agent.settings.kinds import COUNT, WrongValueError

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


class _Count(click.ParamType[tuple[ProcessName, int], str]):
    """`web=3`."""

    name = "count"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[ProcessName, int]:
        process, equals, text = value.partition("=")
        if not equals or not is_name(process):
            self.fail(f"expected TYPE=N, such as web=3, found {value!r}; a type is {NAME_EXPECTED}", param, ctx)
        try:
            count = COUNT.read(int(text) if text.isascii() and text.isdigit() else text)
        except (WrongValueError, ValueError):  # int() itself refuses a number of thousands of digits
            self.fail(f"{process}: expected {COUNT.expected}, found {text[:40]!r}", param, ctx)
        return ProcessName(process), count


_NOTHING: Final = "nothing runs yet; the first release will run so many"


@click.command("scale")
@app_argument
@environment_argument
@click.argument("counts", type=_Count(), nargs=-1, metavar="[TYPE=N]...")
@click.option("--no-wait", "--detach", "detach", is_flag=True, help="Do not wait until so many run.")
@click.option("--strict", is_flag=True, help="Fail (1) when hosts could not be reached.")
@json_option
def command(
    app: AppName,
    environment: EnvironmentName,
    counts: tuple[tuple[ProcessName, int], ...],
    *,
    detach: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Run N instances of TYPE on every host of ENVIRONMENT from now on, and wait until they do. Without TYPE=N: show.

    The release stays, what runs is not touched: more are started, surplus is drained. It is kept as [scale] of the
    environment's settings, so the next releases run as many. Refused while a rollout is under way.

    Examples: rollway scale shop production web=3 worker=0; rollway scale shop production
    """

    async def run(coordinator: "Coordinator") -> int:
        if not counts:
            return _show_counts(await coordinator.counts(app, environment), as_json=as_json)
        shown = await coordinator.scale(app, environment, dict(counts))
        changed = shown.changed
        if not detach and shown.state == "scaling":
            shown = await _follow(coordinator, shown, quiet=as_json)
        if as_json:
            show_json(shown)
        else:
            for line in _ending(shown, changed=changed):
                show(line)
        if shown.state == "failed" or (strict and shown.stragglers and not detach):
            return FailedError.exit_code
        return 0

    return ask(run)


def _show_counts(shown: ScaleShown, *, as_json: bool) -> int:
    if as_json:
        show_json(shown)
    else:
        show_table(("TYPE", "COUNT"), [[name, count] for name, count in shown.counts.items()])
    return 0


async def _follow(coordinator: "Coordinator", shown: ScaleShown, *, quiet: bool) -> ScaleShown:
    """Tell each change until all hosts are there; Ctrl-C leaves them on their way."""
    told: dict[str, str] = {}
    try:
        async for seen in coordinator.watch_counts(shown.app, shown.environment):
            shown = seen or shown
            levels: dict[str, str] = {host.host: _level(host) for host in shown.hosts}
            levels = levels if seen else {"coordinator": AWAY}
            for subject, said in levels.items():
                if not quiet and told.get(subject) != said:
                    show(f"{in_day(now().wall_ms)} {subject}: {said}")
            told = levels
    except anyio.get_cancelled_exc_class():
        remark(f"rollway: the hosts go on. See how far they are: rollway scale {shown.app} {shown.environment} --json")
        raise
    return shown


def _level(host: HostScaled) -> str:
    if host.state != "scaling":
        return with_reason(host.state, host.reason)
    return with_reason("scaling", ", ".join(f"{name} {host.ready.get(name, 0)}/{n}" for name, n in host.wanted.items()))


def _ending(shown: ScaleShown, *, changed: bool) -> Iterator[str]:
    counts = " ".join(f"{name}={count}" for name, count in shown.counts.items())
    where = f"{shown.app} {shown.environment}"
    if shown.rollout is not None:
        yield f"{where}: rollout {shown.rollout} has begun meanwhile and brings the counts: {counts}"
    elif shown.state == "failed":
        for host in shown.hosts:
            if host.state == "failed":
                yield f"{where}: {host.host} failed: {host.reason}; it is tried on"
    elif shown.release is None:
        yield f"{where} is set to {counts}; {_NOTHING}"
    elif shown.state == "scaling":
        yield f"{where} goes to {counts}"
    else:
        yield f"nothing done: {where} runs {counts} already" if not changed else f"{where} runs {counts} on each host"
    if shown.stragglers:
        yield f"warning: not reached or set aside, they follow when they return: {', '.join(shown.stragglers)}"
