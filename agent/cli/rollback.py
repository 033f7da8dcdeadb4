"""`rollway rollback`: back to stable, without a fetch and at a pace of its own."""

from typing import TYPE_CHECKING

import rich_click as click

from agent.cli.arguments import RELEASE, app_argument, environment_argument, json_option
from agent.cli.session import ask
from agent.cli.swap import How, carry_out, make_order
from agent.client.answers import State
from agent.decisions.rollout import stable
from agent.errors import RefusedError
from agent.model.ids import AppName, EnvironmentName, ReleaseName

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


@click.command("rollback")
@app_argument
@environment_argument
@click.option("--to", type=RELEASE, help="Instead of the last release that was healthy before this one.")
@click.option("--from", "seen", type=RELEASE, help="Only if this release runs: nobody else was quicker.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.option("--strict", is_flag=True, help="Fail (1) when hosts could not be reached.")
@json_option
def command(
    app: AppName,
    environment: EnvironmentName,
    *,
    to: ReleaseName | None,
    seen: ReleaseName | None,
    detach: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Bring APP in ENVIRONMENT back to the last release that was healthy. Config goes back with it.

    Examples: rollway rollback shop local; rollway rollback shop production --from v1.3.0
    """

    async def run(coordinator: "Coordinator") -> int:
        state = await coordinator.state(app, environment)
        if seen is not None and (state.runs is None or state.runs.name != seen):
            runs = state.runs.name if state.runs else "nothing"
            raise RefusedError(f"{environment} runs {runs}, not {seen}", "Look at `rollway status` and decide again.")
        order = await make_order(
            coordinator, app, environment, kind="rollback", release=to or target(state, app, environment), state=state
        )
        return await carry_out(coordinator, order, How(detach=detach, strict=strict, as_json=as_json))

    return ask(run)


def target(state: State, app: AppName, environment: EnvironmentName) -> ReleaseName:
    """The release that a rollback without words leads to."""
    found = stable.target(state.stable, state.runs)
    if found is None:
        raise stable.dead_end(app, environment, state.stable, state.runs)
    return found.name
