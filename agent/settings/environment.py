"""An environment's settings (`rollway env set --file`), and an app as it runs in an environment."""

from collections.abc import Collection
from typing import Final, Literal

from agent.model.environment import EnvironmentSettings, RollbackSettings, RollingSettings, overridden
from agent.model.ids import AppName, ProcessName
from agent.model.process import AppSpec
from agent.model.rollout import OnFailure, Strategy
from agent.settings.appchecks import check_app
from agent.settings.kinds import (
    ADDRESS,
    COUNT,
    DURATION,
    HOST_NAME,
    NAME,
    SHARE,
    VALUE,
    Kind,
    duration,
    list_of,
    one_of,
)
from agent.settings.source import Source, show_text
from agent.settings.tables import NOT_SUPPORTED, Schema, Table, read_toml

SCHEMA: Final = Schema(
    known={
        "": "hosts strategy",
        "hosts": "*",
        "scale": "*",
        "listen": "*",
        "rolling": "batch max_unavailable min_ready deadline progress_deadline on_failure pause_between",
        "rollback": "batch max_unavailable",
    },
    planned={
        "": "requires blue_green canary analysis watch load_balancer freeze webhooks",
        "rolling": "first gate_after_first spread max_failures",
    },
)
_STRATEGY: Final[Kind[Strategy | Literal["blue-green", "canary"]]] = one_of("rolling", "blue-green", "canary")
_ON_FAILURE: Final[Kind[OnFailure]] = one_of("rollback", "pause")
_HOST_NAMES: Final = Kind(
    'labels such as { role = "web" } or a list of host names', list_of(HOST_NAME, least=1).convert
)
_DEFAULTS: Final = EnvironmentSettings()


def load_environment(text: str, file: str, defaults: EnvironmentSettings = _DEFAULTS) -> EnvironmentSettings:
    """The settings that `text` gives, over `defaults` (those of `local` differ). Raises SettingsError."""
    root = read_toml(text, file, SCHEMA)
    return EnvironmentSettings(
        hosts=_hosts(root),
        strategy=_strategy(root, defaults.strategy),
        scale={ProcessName(name): count for name, count in root.table("scale").items(NAME, COUNT)},
        listen={ProcessName(name): to for name, to in root.table("listen").items(NAME, list_of(ADDRESS, least=1))},
        rolling=_rolling(root.table("rolling"), defaults.rolling),
        rollback=_rollback(root.table("rollback"), defaults.rollback),
        linger_ms=defaults.linger_ms,
    )


def in_environment(spec: AppSpec, settings: EnvironmentSettings, file: str) -> AppSpec:
    """`spec` with the environment's counts, addresses and linger, checked as a whole again. Raises SettingsError.

    `file` names the settings in errors. Addresses are taken only by a process type that listens anyway: whether its
    command takes sockets is the app's to say.
    """
    source = Source(file, lambda _path: None)
    check_types(settings, spec.app, [process.name for process in spec.processes], file)
    for name in settings.listen:
        process = spec.process(name)
        if process is not None and not process.listen:
            raise source.error(("listen", name), "a process type that has listen in the app", "one that has none")
    running = overridden(spec, settings.scale, settings.listen, settings.linger_ms)
    check_app(running, source)
    return running


def check_types(settings: EnvironmentSettings, app: AppName, known: Collection[ProcessName], file: str) -> None:
    """Refuse counts and addresses of process types that are none of the `known` ones. Raises SettingsError."""
    source = Source(file, lambda _path: None)
    for table, names in (("scale", settings.scale), ("listen", settings.listen)):
        for name in names:
            if name not in known:
                raise source.error((table, name), f"a process type of {app}: {', '.join(known)}", show_text(name))


def _hosts(root: Table) -> dict[str, str] | tuple[str, ...] | None:
    if "hosts" not in root:
        return None
    if root.has_table("hosts"):
        labels = dict(root.table("hosts").items(NAME, VALUE))
        if not labels:
            raise root.error("hosts", "at least one label, or no hosts at all for every host", "an empty table")
        return labels
    return root.need("hosts", _HOST_NAMES)


def _strategy(root: Table, default: Strategy) -> Strategy:
    strategy = root.get("strategy", _STRATEGY, default)
    if strategy != "rolling":
        raise root.error("strategy", '"rolling"', f"{show_text(strategy)}, {NOT_SUPPORTED}")
    return strategy


def _rolling(table: Table, default: RollingSettings) -> RollingSettings:
    rolling = RollingSettings(
        batch=table.get("batch", SHARE, default.batch),
        max_unavailable=table.get("max_unavailable", SHARE, default.max_unavailable),
        min_ready_ms=table.get("min_ready", DURATION, default.min_ready_ms),
        deadline_ms=table.get("deadline", duration("1s"), default.deadline_ms),
        progress_deadline_ms=table.get("progress_deadline", duration("1s"), default.progress_deadline_ms),
        on_failure=table.get("on_failure", _ON_FAILURE, default.on_failure),
        pause_between_ms=table.get("pause_between", DURATION, default.pause_between_ms),
    )
    if rolling.deadline_ms <= rolling.min_ready_ms:
        raise table.error("deadline", "more than min_ready, or no host is ever done", "no more than it")
    if rolling.progress_deadline_ms < rolling.deadline_ms:
        raise table.error("progress_deadline", "at least deadline, which each host has", "less")
    return rolling


def _rollback(table: Table, default: RollbackSettings) -> RollbackSettings:
    return RollbackSettings(
        batch=table.get("batch", SHARE, default.batch),
        max_unavailable=table.get("max_unavailable", SHARE, default.max_unavailable),
    )
