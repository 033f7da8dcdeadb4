"""`rollway run`: a command on a host, in the identical environment of the release that runs there, and watched."""

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Final

import rich_click as click

from agent.artifacts.sign import WORDS_BYTES_MAX, WORDS_MAX, are_words, seal
from agent.cli.arguments import HOST, NAME, app_argument, environment_argument
from agent.cli.output import remark
from agent.cli.session import ask
from agent.client.answers import RunTarget
from agent.errors import UsageError
from agent.linux import terminal
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName
from agent.model.release import RunOrder

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

_STDIN: Final = 0
_TERM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")


@click.command("run")
@app_argument
@environment_argument
@click.argument("words", nargs=-1, required=True, metavar="-- CMD [WORD]...")
@click.option("--host", type=HOST, help="On this one; without, on the first that runs what the environment runs.")
@click.option("--like", type=NAME, help="With user, limits and sandbox of this process type; without, of the first.")
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Standard input of here is the command's.")
@click.option("-t", "--tty", "tty", is_flag=True, help="It has a terminal, as large as the one here.")
@click.option("--json", "as_json", is_flag=True, help="Say what goes wrong with Rollway in JSON, for scripts.")
def command(
    app: AppName,
    environment: EnvironmentName,
    words: tuple[str, ...],
    *,
    host: HostName | None,
    like: ProcessName | None,
    stdin: bool,
    tty: bool,
    as_json: bool,  # noqa: ARG001 - looked at where errors are shown
) -> int:
    """Run a command once on a host, in the release, folder and config that run there, and end as it does.

    No shell reads it: give `sh -c '…'` for one. Its output comes out here as it is, its exit code is that of `rollway
    run` (by a signal: 128 and its number); lines that begin with `rollway:` on standard error are not its own. Ctrl-C
    is passed on to it, three times end it; so does whatever ends `rollway run`. On a terminal (-it) all keys are the
    command's, and `~.` on a new line leaves.

    Examples: rollway run shop production -it -- bin/console; rollway run shop local -i -- bin/import < orders.csv
    """
    _check(words, stdin=stdin, tty=tty)

    async def run(coordinator: "Coordinator") -> int:
        target = await coordinator.run_target(app, environment, host)
        order = RunOrder(
            app=app,
            environment=environment,
            host=target.host,
            release=target.release.name,
            release_digest=target.release.digest,
            words=words,
            like=like,
        )
        return await _run(coordinator, order, target, stdin=stdin, tty=tty)

    return ask(run)


async def _run(coordinator: "Coordinator", order: RunOrder, target: RunTarget, *, stdin: bool, tty: bool) -> int:
    from agent.cli.carry import Carrier, window  # noqa: PLC0415 - as the client, which `--help` need not wait for
    from agent.wire.runs import Ask  # noqa: PLC0415 - as above

    term = os.environ.get("TERM", "")
    asked = Ask(
        order=seal(order).decode(),
        size=window() if tty else None,
        term=term if _TERM.fullmatch(term) else "dumb",
        stdin=stdin,
    )
    async with coordinator.run(order.app, order.environment) as line:
        if tty:
            remark(f"rollway: on {target.host}, in {target.release.name}")
        with terminal.raw(_STDIN) if tty and stdin else contextlib.nullcontext() as raw:
            return await Carrier(line, asked, raw).run()


def _check(words: tuple[str, ...], *, stdin: bool, tty: bool) -> None:
    try:
        "".join(words).encode()
    except UnicodeError:
        raise UsageError(
            "cannot pass a word on that is no UTF-8", "Put it into a file, or on standard input."
        ) from None
    if not are_words(words):
        raise UsageError(
            f"cannot pass the command on: it has no name, or over {WORDS_MAX} words or {WORDS_BYTES_MAX} bytes",
            "Put what is long on standard input: -i.",
        )
    if tty and stdin and not sys.stdin.isatty():
        raise UsageError("-t takes a terminal, and standard input is none", "Leave -t out.")
