"""`rollway config`: the variables that an app gets in an environment, from its next release on.

Rules: a secret is encrypted here, to the environment's key, and is never shown; a key that once was secret, or that the
newest build declares so, stays secret.
"""

import sys
from collections.abc import Mapping, Sequence
from getpass import getpass
from typing import TYPE_CHECKING

import rich_click as click

from agent.artifacts.manifest import read_manifest
from agent.cli.arguments import app_argument, environment_argument, json_option
from agent.cli.env import read_text
from agent.cli.output import quoted, show, show_json
from agent.cli.session import ask
from agent.client.answers import Config
from agent.client.secret import encrypt
from agent.errors import NotFoundError, UsageError
from agent.model.ids import CONFIG_KEY_EXPECTED, AppName, EnvironmentName, is_config_key
from agent.model.release import ConfigValue
from agent.settings.dotenv import load_dotenv

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


class Pair(click.ParamType[tuple[str, str | None], str]):
    """`KEY=VALUE`, the value being whatever follows the first `=`; or `KEY` alone, which has none."""

    name = "key=value"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str | None]:
        key, equals, text = value.partition("=")
        if not is_config_key(key):
            self.fail(f"expected {CONFIG_KEY_EXPECTED}, found {key!r}", param, ctx)
        return key, text if equals else None


@click.group("config")
def command() -> None:
    """Variables of an app in an environment. They hold from the next release on: releases are never modified."""


@command.command("set")
@app_argument
@environment_argument
@click.argument("pairs", type=Pair(), nargs=-1, required=True, metavar="KEY[=VALUE]...")
@click.option("--secret", is_flag=True, help="Encrypt: only the environment's hosts will read them.")
@json_option
def set_config(
    app: AppName,
    environment: EnvironmentName,
    pairs: tuple[tuple[str, str | None], ...],
    *,
    secret: bool,
    as_json: bool,
) -> None:
    """Set variables. KEY=- takes the value from stdin; with --secret, KEY alone is asked for on the terminal.

    Examples: rollway config set shop local GREETING=hello; rollway config set shop production API_KEY --secret;
    rollway config set shop production TLS_KEY=- --secret < tls.key
    """
    save(app, environment, values_of(pairs, secret=secret), secret=secret, as_json=as_json)


@command.command("import")
@app_argument
@environment_argument
@click.argument("file")
@click.option("--secret", is_flag=True, help="Encrypt all of them.")
@json_option
def import_config(app: AppName, environment: EnvironmentName, file: str, *, secret: bool, as_json: bool) -> None:
    """Set every variable that a .env file names; others stay as they are.

    Example: rollway config import shop local .env
    """
    save(app, environment, load_dotenv(read_text(file), file), secret=secret, as_json=as_json)


@command.command("unset")
@app_argument
@environment_argument
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@json_option
def unset_config(app: AppName, environment: EnvironmentName, keys: tuple[str, ...], *, as_json: bool) -> None:
    """Remove variables.

    Example: rollway config unset shop local GREETING
    """

    async def change(coordinator: "Coordinator") -> int:
        config = await coordinator.config(app, environment)
        unknown = [key for key in keys if key not in config.values]
        if unknown:
            raise NotFoundError(f"{app} has no {', '.join(unknown)} in {environment}", "See `rollway config get`.")
        return await coordinator.change_config(app, environment, config.version, {}, keys)

    tell(app, environment, ask(change), as_json=as_json)


@command.command("get")
@app_argument
@environment_argument
@click.argument("key", required=False)
@json_option
def get_config(app: AppName, environment: EnvironmentName, key: str | None, *, as_json: bool) -> None:
    """Show variables; of a secret, only that there is one.

    Examples: rollway config get shop local; rollway config get shop local DATABASE_URL
    """
    config = ask(lambda coordinator: coordinator.config(app, environment))
    if key is not None and key not in config.values:
        raise NotFoundError(
            f"{app} has no {key} in {environment}", f"Set it: rollway config set {app} {environment} {key}=…"
        )
    shown = {
        name: "(secret)" if value.plain is None else value.plain
        for name, value in sorted(config.values.items())
        if key in {None, name}
    }
    if as_json:
        show_json({"version": config.version, "values": shown})
    elif key is not None:
        show(shown[key])
    else:
        for name, text in shown.items():
            show(f"{name}={quoted(text)}")


def values_of(pairs: Sequence[tuple[str, str | None]], *, secret: bool) -> dict[str, str]:
    """The values, those from stdin or typed unseen among them; raises UsageError."""
    if sum(text == "-" for _, text in pairs) > 1:
        raise UsageError("stdin has one value only", "Give KEY=- once.")
    if missing := [key for key, text in pairs if text is None and not (secret and sys.stdin.isatty())]:
        raise UsageError(
            f"expected KEY=VALUE, found {missing[0]!r}",
            f"Give {missing[0]}=VALUE, or {missing[0]}=- for what is on stdin; a terminal asks with --secret.",
        )
    return {key: read_value(key, text) for key, text in pairs}


def read_value(key: str, text: str | None) -> str:
    """A value: as it was given; for `-` what stdin has, without its last newline; for None what a person types."""
    if text is None:
        return getpass(f"{key}: ")
    if text != "-":
        return text
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeError as error:
        raise UsageError(f"cannot read {key} from stdin: {error}", "A value is text in UTF-8.") from error


def save(app: AppName, environment: EnvironmentName, values: Mapping[str, str], *, secret: bool, as_json: bool) -> None:
    """Set `values`, of which the secret ones leave this machine encrypted only."""
    if not values:
        raise UsageError("there is no variable to set", "Give KEY=VALUE, or a file that has some.")

    async def change(coordinator: "Coordinator") -> int:
        config = await coordinator.config(app, environment)
        hidden = set(values) if secret else {*config.secrets, *await declared_secrets(coordinator, app)}
        chosen = {key: protect(value, config, secret=key in hidden) for key, value in values.items()}
        return await coordinator.change_config(app, environment, config.version, chosen)

    tell(app, environment, ask(change), as_json=as_json)


def protect(value: str, config: Config, *, secret: bool) -> ConfigValue:
    return encrypt(value, config.recipient) if secret else ConfigValue(plain=value)


async def declared_secrets(coordinator: "Coordinator", app: AppName) -> set[str]:
    """Keys that the newest build of `app` declares secret."""
    builds = await coordinator.builds(app)
    if not builds:
        return set()
    newest = max(builds, key=lambda build: build.committed_at_s)
    spec = read_manifest(await coordinator.build_manifest(app, newest.id)).spec
    return {key for key, declared in spec.config.items() if declared.secret}


def tell(app: AppName, environment: EnvironmentName, version: int, *, as_json: bool) -> None:
    if as_json:
        show_json({"app": app, "environment": environment, "version": version})
    else:
        show(f"{app} {environment} has config version {version}; it holds from the next release on")
