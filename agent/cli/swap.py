"""`rollway swap`: an environment from the release that it runs to another, without a user who feels it."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from agent.artifacts.sign import payload_digest, seal
from agent.cli.arguments import RELEASE, app_argument, environment_argument, json_option, path_option, version_option
from agent.cli.build import built_here
from agent.cli.last_words import last_words
from agent.cli.output import show, show_json, show_text
from agent.cli.plan import plan_build
from agent.cli.progress import ending, exit_code, follow
from agent.cli.release import release_built
from agent.cli.session import ask
from agent.client.answers import Planned, RolloutShown, State
from agent.errors import UsageError, VerificationError
from agent.model.ids import AppName, EnvironmentName, ReleaseName
from agent.model.release import Order, OrderKind
from agent.model.rollout import TERMINAL

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


class How(msgspec.Struct, frozen=True, kw_only=True):
    """What the words of a command say of the way, not of the aim."""

    strategy: str | None = None
    detach: bool = False
    strict: bool = False
    as_json: bool = False


@click.command("swap")
@app_argument
@environment_argument
@click.argument("release", type=RELEASE, required=False)
@click.option("--ref", help="Build this commit, tag or branch and make a release of it first.")
@path_option
@version_option
@click.option("--strategy", type=click.Choice(["rolling"]), help="Instead of the environment's own.")
@click.option("--plan", is_flag=True, help="Only say what would be done.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.option("--strict", is_flag=True, help="Fail (1) when hosts could not be reached.")
@json_option
def command(
    app: AppName,
    environment: EnvironmentName,
    release: ReleaseName | None,
    *,
    ref: str | None,
    path: str,
    version: str | None,
    strategy: str | None,
    plan: bool,
    detach: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Swap APP in ENVIRONMENT to RELEASE, host by host, and wait for the end. Ctrl-C leaves it going.

    A release that fails is undone by itself: exit code 3.

    Examples: rollway swap shop local v1.2.0; rollway swap shop local --ref main --plan
    """
    if (release is None) == (ref is None):
        raise UsageError("a swap is to one release", "Give either a RELEASE or --ref.")
    if version is not None and ref is None:
        raise UsageError("a version is given to what is built", "Give --version with --ref only.")
    how = How(strategy=strategy, detach=detach, strict=strict, as_json=as_json)

    async def run(coordinator: "Coordinator") -> int:
        if built is None:
            aim = release or ReleaseName("")
        elif plan:
            planned = await plan_build(coordinator, app, environment, built)
            if not isinstance(planned, str):
                return show_plan(Planned(plan=planned), how)
            aim = planned
        else:
            aim = (await release_built(coordinator, app, environment, built)).release
        state = await coordinator.state(app, environment)
        order = await make_order(coordinator, app, environment, kind="swap", release=aim, state=state)
        if plan:
            return show_plan(await coordinator.plan_rollout(app, environment, seal(order), how.strategy), how)
        return await carry_out(coordinator, order, how)

    with nullcontext() if ref is None else built_here(path, ref, version, app=app) as built:
        return ask(run)


async def make_order(
    coordinator: "Coordinator",
    app: AppName,
    environment: EnvironmentName,
    *,
    kind: OrderKind,
    release: ReleaseName,
    state: State,
) -> Order:
    """The order to run `release` in place of what `state` says is running."""
    shown = await coordinator.release(app, environment, release)
    digest = payload_digest(shown.envelope.encode())
    if digest != shown.digest:
        raise VerificationError(
            f"the coordinator says that {release} has digest {shown.digest}, and it has {digest}",
            "Do not swap to it; make the release again and look at the coordinator's store.",
        )
    return Order(
        kind=kind,
        app=app,
        environment=environment,
        release=release,
        release_digest=digest,
        replaces=state.runs.name if state.runs else None,
        replaces_digest=state.runs.digest if state.runs else None,
        sequence=state.sequence + 1,
    )


def show_plan(planned: Planned, how: How) -> int:
    if how.as_json:
        show_json(planned)
    else:
        for line in planned.plan:
            show(line)
    return 0


async def carry_out(coordinator: "Coordinator", order: Order, how: How) -> int:
    """Start the rollout that `order` asks for and wait for its end, unless detached; gives the exit code."""
    rollout = await coordinator.start_rollout(order.app, order.environment, seal(order), how.strategy)
    if how.detach and rollout.state not in TERMINAL:
        if how.as_json:
            show_json(rollout)
        else:
            show(f"the rollout has begun. Come back to it with: rollway rollout watch {rollout.id}")
        return 0
    if rollout.state not in TERMINAL:
        rollout = await follow(coordinator, rollout, quiet=how.as_json)
    return await show_end(coordinator, rollout, strict=how.strict, as_json=how.as_json)


async def show_end(coordinator: "Coordinator", rollout: RolloutShown, *, strict: bool, as_json: bool) -> int:
    """Say how a rollout ended, and what a release that failed said itself; gives the exit code."""
    if as_json:
        show_json(rollout)
    else:
        for line in ending(rollout):
            show_text(line)
        for line in await last_words(coordinator, rollout):
            show(line)
    return exit_code(rollout, strict=strict)
