"""`rollway swap --plan`: what would be done. Nothing is written at the coordinator: a build stays on this machine."""

from typing import TYPE_CHECKING

from agent.artifacts.build import Built
from agent.artifacts.sign import payload_digest, seal
from agent.cli.draft import declared_plain, draft, find_same
from agent.client.answers import Config, State
from agent.decisions.rollout import begin
from agent.errors import NotFoundError, RefusedError
from agent.linux.clock import now
from agent.model.environment import LOCAL_DEFAULTS, EnvironmentSettings
from agent.model.ids import AppName, EnvironmentName, ReleaseName, RolloutId
from agent.model.release import Order, Release
from agent.model.rollout import HostStep
from agent.settings.environment import in_environment, load_environment

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


async def plan_build(
    coordinator: "Coordinator", app: AppName, environment: EnvironmentName, built: Built
) -> ReleaseName | tuple[str, ...]:
    """The release that a swap to `built` would find there already; else, in lines, what it would make and do."""
    if not await _is_known(coordinator, app):
        nothing = Config(version=0, values={}, secrets=(), recipient="")
        wanted = draft(app, environment, build=built.build, manifest=built.manifest, config=nothing, taken=())
        state = State(runs=None, stable=(), sequence=0)
        return _first_line(built, wanted), *await _lines(coordinator, wanted, state, settings_file="")
    config = await coordinator.config(app, environment)
    releases = await coordinator.releases(app, environment)
    taken = {entry.release for entry in releases}
    wanted = draft(app, environment, build=built.build, manifest=built.manifest, config=config, taken=taken)
    if not declared_plain(config, built.build) and (same := await find_same(coordinator, wanted, releases)) is not None:
        return same
    state = await coordinator.state(app, environment)
    file = (await coordinator.settings(app, environment)).file
    return _first_line(built, wanted), *await _lines(coordinator, wanted, state, settings_file=file)


async def _is_known(coordinator: "Coordinator", app: AppName) -> bool:
    """Whether the app ever had a build: before its first, the coordinator knows nothing of it."""
    try:
        await coordinator.builds(app)
    except NotFoundError:
        return False
    return True


def _first_line(built: Built, wanted: Release) -> str:
    return f"would build {built.build.version} ({built.build.commit[:7]}) and release it as {wanted.name}, then:"


async def _lines(coordinator: "Coordinator", wanted: Release, state: State, *, settings_file: str) -> tuple[str, ...]:
    """What the coordinator would plan for a release that it does not have yet, by the same decision."""
    app, environment = wanted.app, wanted.environment
    if state.rollout is not None:
        raise RefusedError(
            f"rollout {state.rollout} of {app} in {environment} is under way",
            f"Wait for it: rollway rollout watch {state.rollout}.",
        )
    where = f"settings of {environment}"
    defaults = LOCAL_DEFAULTS if environment == "local" else EnvironmentSettings()
    settings = load_environment(settings_file, where, defaults)
    in_environment(wanted.spec, settings, where)
    hosts = tuple(
        HostStep(host=host.host, reachable=host.connected)
        for host in (await coordinator.status()).hosts
        if environment in host.environments and settings.includes(host.host, host.labels)
    )
    if not hosts:
        raise RefusedError(
            f"no host has joined environment {environment}",
            "Name it under `environments` in the agent.toml of a host, or look at the environment's `hosts`.",
        )
    order = Order(
        kind="swap",
        app=app,
        environment=environment,
        release=wanted.name,
        release_digest=payload_digest(seal(wanted)),
        replaces=state.runs.name if state.runs else None,
        replaces_digest=state.runs.digest if state.runs else None,
        sequence=state.sequence + 1,
    )
    rollout = begin.plan(
        rollout_id=RolloutId(""),
        order=order,
        envelope="",
        settings=settings,
        spec=wanted.spec,
        hosts=hosts,
        first_generation=1,
        asked_by="",
        now_ms=now().wall_ms,
    )
    return begin.lines(rollout)
