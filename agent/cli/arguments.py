"""Arguments and options that several verbs share, checked while the words are parsed."""

from collections.abc import Callable
from typing import Final

import rich_click as click

from agent.model import ids


class Word(click.ParamType[str, str]):
    """A word that must pass `check`."""

    def __init__(self, name: str, check: Callable[[str], bool], expected: str) -> None:
        self.name = name
        self._check = check
        self._expected = expected

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not self._check(value):
            self.fail(f"expected {self._expected}, found {value!r}", param, ctx)
        return value


NAME: Final = Word("name", ids.is_name, ids.NAME_EXPECTED)
HOST: Final = Word("host", ids.is_host_name, "the name of a host, of a-z, 0-9, '-' and '.'")
RELEASE: Final = Word("release", ids.is_release_name, ids.RELEASE_EXPECTED)

app_argument = click.argument("app", type=NAME)
environment_argument = click.argument("environment", type=NAME)
only_app = click.argument("app", type=NAME, required=False)
only_environment = click.argument("environment", type=NAME, required=False)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
path_option = click.option("--path", default=".", show_default=True, help="The app's repository, for --ref.")
version_option = click.option(
    "--version", help="For --ref: instead of the version that a tag vX.Y.Z of the commit gives."
)
