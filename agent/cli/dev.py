"""`rollway dev`: an app's working tree on this machine, as foreman would run it, through the agent's own supervisor."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import rich_click as click

from agent.cli.check import find_file
from agent.cli.env import read_text
from agent.cli.output import on_terminal
from agent.errors import UsageError
from agent.local.dev import plan
from agent.local.dev.environment import File, environment, refuse_missing
from agent.model.address import parse_address
from agent.model.ids import AppName
from agent.model.process import AppSpec
from agent.settings.appfile import load_app
from agent.settings.guess.app import name_of
from agent.settings.procfile import load_procfile

ENV_FILE: Final = ".env"


@click.command("dev")
@click.argument("types", metavar="[TYPE]...", nargs=-1)
@click.option("--dir", "folder", metavar="D", default=".", help="The app's folder; without: this one.")
@click.option("-f", "--file", "app_file", metavar="FILE", help="In the place of its rollway.toml or Procfile.")
@click.option("-e", "--env-file", "env_files", metavar="FILE", multiple=True, help="In the place of .env; repeatable.")
@click.option("-c", "--count", "counts", metavar="TYPE=N", multiple=True, help="So many instances; without: 1 each.")
@click.option("--all", "every", is_flag=True, help="As many of each type as its `count` says.")
@click.option("-p", "--port", type=click.IntRange(1, 65_535), help="For the first address that is listened on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="In the place of 0.0.0.0 and [::] in `listen`.")
@click.option("--release", is_flag=True, help="Run the release command first; nothing starts when it fails.")
@click.option("--exit-on-crash", is_flag=True, help="End all when one ends by itself, as foreman does; exit code 1.")
@click.option("--no-color", is_flag=True, help="No colours on a terminal either; so does NO_COLOR.")
def command(
    *,
    types: tuple[str, ...],
    folder: str,
    app_file: str | None,
    env_files: tuple[str, ...],
    counts: tuple[str, ...],
    every: bool,
    port: int | None,
    host: str,
    release: bool,
    exit_on_crash: bool,
    no_color: bool,
) -> None:
    """Run the process types of the working tree until Ctrl-C, one instance each; all of them, or each TYPE.

    Supervised as on a host: sockets from fd 3 on, probes, restarts with backoff, drain. A second Ctrl-C kills. Nothing
    is kept, no coordinator is asked, no build line is run, and the release command only by --release. Instances see
    your environment, and below it what .env gives.

    Examples: rollway dev; rollway dev web -c web=2; rollway dev -f Procfile.dev -e .env.test --exit-on-crash
    """
    from agent.local.dev.run import Dev, run  # noqa: PLC0415 - `--help` need not wait for it

    where = Path(folder)
    spec, is_procfile = _app(where, app_file)
    coloured = on_terminal() and not no_color
    seen = environment(os.environ, _env_files(where, env_files), coloured=coloured)
    if is_procfile and port is None and any(process.listen for process in spec.processes):
        port = seen.port
    asked = plan.Asked(types=types, counts=_counts(counts), every=every, port=port, host=_host(host))
    processes = plan.chosen(spec, asked)
    if release and spec.release is None:
        raise UsageError(f"{spec.app} has no release command", "Leave --release out.")
    skipped = None if release else spec.release
    remarks = (f"the release command is not run (--release runs it): {skipped.command}",) if skipped else ()
    refuse_missing(spec, seen.config, env_files[-1] if env_files else ENV_FILE)
    run(
        Dev(
            app=spec.app,
            folder=where.resolve(),
            processes=processes,
            config=seen.config,
            host=asked.host,
            coloured=coloured,
            exit_on_crash=exit_on_crash,
            release=spec.release if release else None,
            remarks=remarks,
        )
    )


def _app(folder: Path, app_file: str | None) -> tuple[AppSpec, bool]:
    """The app, and whether a Procfile declares it."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "Give the folder of an app.")
    file = folder / app_file if app_file is not None else find_file(folder)
    text = read_text(str(file))
    if file.suffix == ".toml":
        return load_app(text, str(file)), False
    return load_procfile(text, str(file), name_of(folder.resolve().name, AppName("app"))), True


def _env_files(folder: Path, named: Sequence[str]) -> list[File]:
    """A file that is named must be there; `.env` need not."""
    paths = [folder / name for name in named]
    if not named and (folder / ENV_FILE).is_file():
        paths = [folder / ENV_FILE]
    return [File(str(path), read_text(str(path))) for path in paths]


def _counts(words: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in ",".join(words).split(",") if words else ():
        name, sign, number = word.partition("=")
        if not (sign and name and number.isascii() and number.isdigit()):
            raise UsageError(f"cannot read the count {word!r}", "Write TYPE=N, such as web=2.")
        counts[name] = int(number)
    return counts


def _host(host: str) -> str:
    try:
        return parse_address(f"[{host}]:1" if ":" in host else f"{host}:1").host
    except ValueError:
        raise UsageError(f"cannot listen on {host!r}: no IP address", "Give one, such as 0.0.0.0.") from None
