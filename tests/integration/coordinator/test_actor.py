"""One rollout's actor when what is around it fails: the database, or Rollway itself."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from agent.coordinator.actor import WORDS_MAX, Actor
from agent.decisions.rollout import begin
from agent.decisions.rollout.state import Abort, Begin, Give, Pause, Reported, RolloutDecision
from agent.errors import FailedError, InvariantBrokenError, RefusedError
from agent.model.assignment import AppReport
from agent.model.environment import EnvironmentSettings
from agent.model.ids import HostName, ReleaseName, RolloutId
from agent.model.release import Order
from agent.model.rollout import HostStep, Rollout
from tests.integration.coordinator.fleet import APP, BUILD, DEADLINE_S, LOCAL, SPEC

pytestmark = pytest.mark.anyio

H1 = HostName("h1")


def planned() -> Rollout:
    order = Order(
        kind="swap",
        app=APP,
        environment=LOCAL,
        release=ReleaseName("v1"),
        release_digest=BUILD,
        replaces=None,
        replaces_digest=None,
        sequence=1,
    )
    return begin.plan(
        rollout_id=RolloutId("r-1"),
        order=order,
        envelope="",
        settings=EnvironmentSettings(),
        spec=SPEC,
        hosts=(HostStep(host=H1),),
        first_generation=1,
        asked_by="ada",
        now_ms=1,
    )


class Commits:
    """A database that fails as often as it is told to, and what it took."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.taken: list[RolloutDecision] = []
        self.happened = anyio.Event()

    async def __call__(self, decision: RolloutDecision) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self.taken.append(decision)
        self.happened.set()
        self.happened = anyio.Event()


async def with_actor(actor: Actor, use: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(actor.run)
        with anyio.fail_after(DEADLINE_S):
            await use()
        tasks.cancel_scope.cancel()


async def test_a_decision_that_could_not_be_stored_is_made_again() -> None:
    """With a full disk nothing is decided and nothing is sent; when there is room again the rollout goes on."""
    commits = Commits(FailedError("the disk is full"))
    actor = Actor(planned(), commits)
    actor.put(Begin())

    async def use() -> None:
        happened = commits.happened
        await happened.wait()
        assert isinstance(commits.taken[0].actions[0], Give)
        assert actor.rollout == commits.taken[0].state

    await with_actor(actor, use)


async def test_an_operator_hears_that_nothing_could_be_stored() -> None:
    """A word that could not be stored is answered with why, and can be said again."""
    actor = Actor(planned(), Commits(FailedError("the disk is full")))

    async def use() -> None:
        with pytest.raises(FailedError, match="the disk is full"):
            await actor.say(Abort(by="ada"))
        assert actor.rollout.state == "planned"
        assert (await actor.say(Abort(by="ada"))).state == "aborted"

    await with_actor(actor, use)


async def test_a_word_that_comes_too_late_is_answered() -> None:
    """Whoever asks while the rollout ends is told that it has ended, and does not wait for ever."""
    actor = Actor(planned(), Commits())

    async def use() -> None:
        answers: list[str] = []

        async def say(by: str) -> None:
            try:
                answers.append((await actor.say(Abort(by=by))).state)
            except RefusedError as error:
                answers.append(error.error)

        async with anyio.create_task_group() as both:
            both.start_soon(say, "ada")
            both.start_soon(say, "bob")
        assert sorted(answers) == ["aborted", "cannot abort: rollout r-1 is aborted"]

    await with_actor(actor, use)


async def test_words_that_wait_are_bounded() -> None:
    """A client that asks without end is refused, not queued without end."""
    actor = Actor(planned(), Commits())
    async with anyio.create_task_group() as tasks:
        for _ in range(WORDS_MAX):
            tasks.start_soon(actor.say, Pause(by="eve"))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RefusedError, match="too many words"):
            await actor.say(Pause(by="eve"))
        tasks.cancel_scope.cancel()


async def test_of_a_hosts_reports_the_newest_waits() -> None:
    """A host that reports faster than the rollout is decided costs one place in its inbox."""
    actor = Actor(planned(), Commits())
    for generation in range(1_000):
        report = AppReport(app=APP, environment=LOCAL, generation=generation, release=None, state="done")
        actor.put(Reported(host=H1, report=report))
    assert len(actor._waiting) == 1


async def test_a_broken_invariant_ends_one_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Rollway itself is wrong the rollout ends as failed, stored, with what was broken."""

    def broken(*_: object) -> RolloutDecision:
        raise InvariantBrokenError("two and two are five")

    monkeypatch.setattr("agent.coordinator.actor.step", broken)
    commits = Commits()
    actor = Actor(planned(), commits)
    actor.put(Begin())
    with anyio.fail_after(DEADLINE_S):
        await actor.run()
    assert (actor.rollout.state, commits.taken[0].state.state) == ("failed", "failed")
    assert "two and two are five" in actor.rollout.reason
