"""`rollway check`: whether a settings file is right, and what about an app is not twelve-factor."""

from pathlib import Path
from typing import Final

import rich_click as click

from agent.cli.arguments import json_option
from agent.cli.env import read_text
from agent.cli.output import show, show_json
from agent.errors import UsageError
from agent.linux import fence
from agent.model.ids import AppName
from agent.model.process import AppSpec
from agent.settings.appfile import load_app
from agent.settings.environment import load_environment
from agent.settings.procfile import load_procfile
from agent.settings.remarks import remarks

_APP_FILES: Final = ("rollway.toml", "Procfile")


@click.command("check")
@click.argument("path", default=".")
@json_option
def command(path: str, *, as_json: bool) -> None:
    """Check an app's folder, its rollway.toml or Procfile, or an environment's settings file.

    Examples: rollway check; rollway check production.toml
    """
    file = find_file(Path(path))
    found = check_file(file)
    if as_json:
        show_json({"file": str(file), "remarks": found})
        return
    for remark in found:
        show(f"{file}: {remark}")
    show(f"{file} is right" + (f", with {len(found)} remark{'s' * (len(found) > 1)}" if found else ""))


def find_file(path: Path) -> Path:
    """The file that `path` means: itself, or the app's own file in it."""
    if not path.is_dir():
        return path
    for name in _APP_FILES:
        if (path / name).is_file():
            return path / name
    raise UsageError(
        f"{path.resolve()} has neither a rollway.toml nor a Procfile",
        "Write a rollway.toml; config/rollway.toml is a complete example.",
    )


def check_file(file: Path) -> tuple[str, ...]:
    """What there is to remark about a file that is right; raises SettingsError for one that is wrong."""
    text = read_text(str(file))
    if file.name.startswith("Procfile"):
        return remarks(load_procfile(text, str(file), AppName("app")))
    if file.name.endswith("rollway.toml"):
        app = load_app(text, str(file))
        return (*remarks(app), *_of_this_machine(app))
    load_environment(text, str(file))
    return ()


def _of_this_machine(app: AppSpec) -> tuple[str, ...]:
    """What `rollway dev` and `rollway up` would refuse here; the hosts are asked before a release goes to them."""
    there = fence.means()
    return tuple(
        f"process.{process.name}.sandbox: this machine cannot keep writable ({there}), so it is not run here"
        for process in app.processes
        if process.sandbox.writable is not None and not process.sandbox.best_effort and not there.suffice
    )
