"""The API as a client meets it: who may, what is there, what is refused and in which words."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest
from msgspec.structs import replace

from agent.artifacts import sign
from agent.artifacts.manifest import write_manifest
from agent.coordinator.api.routes import ROUTES
from agent.coordinator.db import fleet as rows
from agent.coordinator.db.engine import Database
from agent.coordinator.logs import ANSWER_S
from agent.coordinator.main import run
from agent.coordinator.tokens import _hash
from agent.errors import NotFoundError, RefusedError, RollwayError, UsageError, VerificationError
from agent.link.tls import client_context
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName
from agent.model.release import ConfigValue, Order
from tests.integration.coordinator.fleet import (
    ADMIN,
    APP,
    ARCHIVE,
    BUILD,
    DEADLINE_S,
    LOCAL,
    SPEC,
    VIEWER,
    FakeAgent,
    Fleet,
    build,
    order,
    release,
    running,
    swap,
    upload,
)

pytestmark = pytest.mark.anyio

V1 = f"/v1/apps/{APP}/environments/{LOCAL}"


@pytest.fixture(scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A coordinator with one app that has a build and a release, h1 connected, and a viewer's token."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "state").mkdir()
    database = Database(f"sqlite:///{folder}/state/coordinator.db")
    viewer = rows.TokenRow(hash=_hash(VIEWER), name="vera", role="viewer")
    await database.run(lambda connection: rows.store_token(connection, viewer, 0))
    database.close()
    async with running(folder) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        await upload(fleet, client)
        await client.create_release(APP, LOCAL, release("v1"))
        agent = FakeAgent(fleet, "h1")
        agent.answers = False
        tasks.start_soon(agent.dialer.run)
        await agent.until(lambda agent: agent.dialer.connected)
        yield fleet
        tasks.cancel_scope.cancel()


async def ask(fleet: Fleet, method: str, path: str, token: str = ADMIN, **sent: Any) -> tuple[int, dict[str, Any]]:
    async with fleet.http(token) as http, http.request(method, path, **sent) as answer:
        return answer.status, json.loads(await answer.read())


def concrete(path: str) -> str:
    names = {
        "app": APP,
        "environment": LOCAL,
        "digest": BUILD,
        "release": "v1",
        "rollout": "r-1",
        "host": "h1",
        "process": "clock",
    }
    return path.format(**names)


CLOSED = [route for route in ROUTES if route.role != "anyone"]


@pytest.mark.parametrize("route", CLOSED, ids=lambda route: f"{route.method} {route.path}")
async def test_nobody_comes_in_without_a_token(fleet: Fleet, route: Any) -> None:
    """Every route but the way in of hosts asks who is there.

    No token, a wrong one, another scheme give 401 in JSON, with what to do.
    """
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}):
        status, error = await ask(fleet, route.method, concrete(route.path), token="", headers=headers)
        assert (status, error["code"]) == (401, 4)
        assert error["error"]
        assert error["what_to_do"]


WRITING = [route for route in ROUTES if route.role in ("operator", "admin")]


@pytest.mark.parametrize("route", WRITING, ids=lambda route: f"{route.method} {route.path}")
async def test_a_viewer_changes_nothing(fleet: Fleet, route: Any) -> None:
    """What changes something needs more than a viewer's token, and the answer says which role."""
    status, error = await ask(fleet, route.method, concrete(route.path), token=VIEWER)
    assert (status, error["code"]) == (403, 4)
    assert f"vera is viewer, and this needs the role {route.role}" in error["error"]


async def test_a_viewer_reads(fleet: Fleet) -> None:
    """A viewer's token opens what only shows."""
    status, shown = await ask(fleet, "GET", "/v1/status", token=VIEWER)
    assert (status, [host["host"] for host in shown["hosts"]]) == (200, ["h1"])


async def test_an_agents_certificate_is_not_a_token_and_a_coordinators_is_no_agents(fleet: Fleet) -> None:
    """A host's certificate opens the agents' routes and nothing else; the coordinator's own opens none."""
    async with aiohttp.ClientSession(fleet.url) as http:
        agent = fleet.agent_tls("h7")
        async with http.get(f"/agent/v1/releases/{APP}/{LOCAL}/v1", ssl=agent) as answer:
            assert (answer.status, await answer.read()) == (200, release("v1"))
        async with http.get("/v1/status", ssl=agent) as answer:
            assert answer.status == 401
        other = client_context(fleet.certificate("coordinator-2", "coordinator"))
        async with http.get(f"/agent/v1/builds/{APP}/{BUILD}/archive", ssl=other) as answer:
            assert answer.status == 403


async def test_an_agent_fetches_builds(fleet: Fleet) -> None:
    """What was uploaded comes out byte for byte."""
    async with aiohttp.ClientSession(fleet.url) as http:
        agent = fleet.agent_tls("h7")
        async with http.get(f"/agent/v1/builds/{APP}/{BUILD}/archive", ssl=agent) as answer:
            assert (await answer.read(), answer.content_length) == (ARCHIVE, len(ARCHIVE))
        async with http.get(f"/agent/v1/builds/{APP}/{BUILD}/manifest", ssl=agent) as answer:
            assert await answer.read() == write_manifest(build())


ABSENT = {
    "an app": ("GET", "/v1/apps/blog/builds", "no app blog"),
    "an environment": ("GET", f"/v1/apps/{APP}/environments/staging", "no environment staging"),
    "a release": ("GET", f"{V1}/releases/v9", "no release v9"),
    "a rollout": ("GET", "/v1/rollouts/r-9", "no rollout r-9"),
    "a rollout to abort": ("POST", "/v1/rollouts/r-9/abort", "no rollout r-9"),
    "a build": ("GET", f"/v1/apps/{APP}/builds/sha256:{'0' * 64}", "no build sha256:000"),
    "a config version": ("GET", f"{V1}/config?version=7", "no version 7"),
    "a route": ("GET", "/v1/nothing", "Not Found"),
}


@pytest.mark.parametrize(("method", "path", "text"), ABSENT.values(), ids=ABSENT)
async def test_what_is_not_there_is_named(fleet: Fleet, method: str, path: str, text: str) -> None:
    """What does not exist gives 404 and exit code 5, in words that name it."""
    status, error = await ask(fleet, method, path)
    assert (status, error["code"]) == (404, 5)
    assert text in error["error"]


WRONG: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "a name with dots": ("GET", "/v1/apps/%2e%2e%2fetc/builds", {}, 400, "a name of 1 to 32"),
    "a digest that is none": ("GET", f"/v1/apps/{APP}/builds/latest", {}, 400, "expected a digest"),
    "a body that is no JSON": ("POST", f"{V1}/config", {"data": b"{"}, 400, "cannot read the body"),
    "a body as deep as the sea": ("POST", f"{V1}/config", {"data": b"[" * 100_000}, 400, "cannot read the body"),
    "a number that is none": ("GET", f"{V1}/config?version=-1", {}, 400, "expected a number"),
    "a wrong method": ("DELETE", "/v1/apps", {}, 405, "Method Not Allowed"),
    "settings with an unknown key": (
        "PUT", V1, {"json": {"file": "[rolling]\nbatsh = 1\n"}}, 400, "batsh",
    ),
    "an archive that is another": (
        "PUT", f"/v1/apps/{APP}/builds/sha256:{'1' * 64}/archive", {"data": b"x"}, 422, "digest",
    ),
    "a manifest of another build": (
        "PUT", f"/v1/apps/{APP}/builds/sha256:{'1' * 64}", {"data": write_manifest(build())}, 409, "describes build",
    ),
    "a release that is none": ("POST", f"{V1}/releases", {"data": b"{}"}, 422, "cannot"),
    "a release whose name is taken": ("POST", f"{V1}/releases", {"data": release("v1")}, 409, "taken"),
    "a release sent to another environment": (
        "POST", f"/v1/apps/{APP}/environments/staging/releases", {"data": release("v1")}, 409, "in local, not of",
    ),
    "a config key that is none": (
        "POST", f"{V1}/config", {"json": {"base_version": 0, "set": {"LD-PATH": {"plain": "x"}}}}, 400, "config key",
    ),
    "a strategy to come": (
        "POST", f"{V1}/rollouts", {"json": {"order": "", "strategy": "canary"}}, 400, "not supported",
    ),
    "an order that is none": ("POST", f"{V1}/rollouts", {"json": {"order": "{}"}}, 422, "cannot"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "sent", "status", "text"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_is_said(  # noqa: PLR0917 - columns of the table
    fleet: Fleet, method: str, path: str, sent: dict[str, Any], status: int, text: str
) -> None:
    """A wrong request is answered with what was expected, and changes nothing."""
    found, error = await ask(fleet, method, path, **sent)
    assert (found, text in error["error"]) == (status, True), error


async def test_a_body_over_the_bound_is_not_read(fleet: Fleet) -> None:
    """Who sends more than a request may have is refused, whatever it is."""
    status, error = await ask(fleet, "POST", f"{V1}/config", data=io.BytesIO(b" " * (3 << 20)))
    assert (status, error["code"]) == (400, 2)
    assert "more than the 2097152 bytes" in error["error"]


async def test_a_secret_stays_secret(fleet: Fleet) -> None:
    """A key that was once secret takes no plain value, and a change made from an old version is refused."""
    async with fleet.client() as client:
        sealed, newest = ConfigValue(age="c2VjcmV0"), (await client.config(APP, LOCAL)).version
        assert (await client.config(APP, LOCAL)).recipient.startswith("age1")
        first = await client.change_config(APP, LOCAL, newest, {"KEY": sealed, "MODE": ConfigValue(plain="a")})
        assert first == newest + 1
        with pytest.raises(RefusedError, match="KEY is secret"):
            await client.change_config(APP, LOCAL, first, {"KEY": ConfigValue(plain="x")})
        with pytest.raises(RefusedError, match=f"from version {newest}, but the newest is {first}"):
            await client.change_config(APP, LOCAL, newest, {"MODE": ConfigValue(plain="b")})
        second = await client.change_config(APP, LOCAL, first, {}, ["KEY", "MODE"])
        with pytest.raises(RefusedError, match="KEY is secret"):
            await client.change_config(APP, LOCAL, second, {"KEY": ConfigValue(plain="x")})
        config = await client.config(APP, LOCAL)
        assert (config.version, config.values, config.secrets) == (second, {}, ("KEY",))


ORDERS: dict[str, tuple[dict[str, object], type[RollwayError], str]] = {
    "for another app": ({"app": AppName("blog")}, RefusedError, "for blog in local, not for shop"),
    "for another environment": ({"environment": EnvironmentName("dev")}, RefusedError, "for shop in dev"),
    "for a release that is not there": ({"release": ReleaseName("v9")}, NotFoundError, "no release v9"),
    "for other bytes of the release": ({"release_digest": Digest(BUILD)}, RefusedError, "is not the one"),
    "after a release that does not run": (
        {"replaces": ReleaseName("v0"), "replaces_digest": BUILD}, RefusedError, "replaces v0, but .* runs nothing now",
    ),
    "with a number of the future": ({"sequence": 9}, RefusedError, "has number 9, but the next one is 1"),
    "to go back where nothing was": ({"kind": "rollback"}, RollwayError, "nothing to roll back to"),
    "that is no order": ({"sequence": 0}, VerificationError, "wrong sequence"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "text"), ORDERS.values(), ids=ORDERS)
async def test_an_order_that_does_not_fit_is_refused(
    fleet: Fleet, changed: dict[str, Any], error: type[RollwayError], text: str
) -> None:
    """An order is for exactly one change, and is refused with what is otherwise."""
    async with fleet.client() as client:
        wanted: Order = replace((await order(client, "v1")).order, **changed)
        sealed = sign.seal(wanted)
        with pytest.raises(RollwayError, match=text) as raised:
            await client.start_rollout(APP, LOCAL, sealed, None)
        assert raised.value.exit_code == error.exit_code
        assert (await client.state(APP, LOCAL)).rollout is None


async def test_a_plan_stores_nothing(fleet: Fleet) -> None:
    """A plan says what would be done, host by host, and does none of it."""
    async with fleet.client() as client:
        asked = await order(client, "v1")
        planned = await client.plan_rollout(APP, LOCAL, asked.envelope, None)
        assert any("h1" in line for line in planned.plan)
        state = await client.state(APP, LOCAL)
        assert (state.sequence, state.rollout) == (0, None)


async def test_settings_of_a_process_type_that_no_build_has_are_refused(tmp_path: Path) -> None:
    """A mistyped type is told when the settings are given, not at the next swap; one that any build has may be set."""
    async with running(tmp_path) as fleet, fleet.client() as client:
        await upload(fleet, client)
        await client.set_settings(APP, LOCAL, "[scale]\nweb = 2\n")
        for table, value in (("scale", "3"), ("listen", '["127.0.0.1:1"]')):
            with pytest.raises(UsageError, match=f'{table}.wob: expected a process type of shop: web, found "wob"'):
                await client.set_settings(APP, LOCAL, f"[{table}]\nwob = {value}\n")
        assert (await client.settings(APP, LOCAL)).file == "[scale]\nweb = 2\n"
        newer = replace(SPEC.processes[0], name=ProcessName("worker"))
        await upload(fleet, client, replace(SPEC, processes=(newer,)), b"a newer archive")
        await client.set_settings(APP, LOCAL, "[scale]\nworker = 2\n")
        await client.set_settings(APP, LOCAL, "[scale]\nweb = 3\n")
        with pytest.raises(UsageError, match="a process type of shop: worker, web"):
            await client.set_settings(APP, LOCAL, "[scale]\nwob = 3\n")


async def test_an_environment_without_hosts_is_refused(tmp_path: Path) -> None:
    """A swap where no host has joined says so, and how a host joins."""
    async with running(tmp_path) as fleet, fleet.client() as client:
        await upload(fleet, client)
        dev = EnvironmentName("dev")
        await client.set_settings(APP, dev, "")
        shown = msgspec.structs.replace(sign.verify_release(release("v1")), environment=dev)
        await client.create_release(APP, dev, sign.seal(shown))
        wanted = replace(
            (await order(client, "v1")).order,
            environment=dev,
            release_digest=sign.payload_digest(sign.seal(shown)),
        )
        with pytest.raises(RefusedError, match="no host has joined environment dev"):
            await client.start_rollout(APP, dev, sign.seal(wanted), None)


async def test_one_rollout_at_a_time(tmp_path: Path) -> None:
    """A second order is refused with who is at it; nothing is done twice; a word too late is refused."""
    async with running(tmp_path) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        agent = FakeAgent(fleet, "h1")
        tasks.start_soon(agent.dialer.run)
        await agent.until(lambda agent: agent.dialer.connected)
        await upload(fleet, client)
        await client.set_settings(APP, LOCAL, '[rolling]\nmin_ready = "0s"\n')
        agent.answers = False
        for name in ("v1", "v2"):
            await client.create_release(APP, LOCAL, release(name))
        first = await client.start_rollout(APP, LOCAL, (await order(client, "v1")).envelope, None)
        with pytest.raises(
            RefusedError, match=f"bootstrap is bringing v1 to shop in local since .*: rollout {first.id}"
        ):
            await client.start_rollout(APP, LOCAL, (await order(client, "v2")).envelope, None)
        with pytest.raises(RefusedError, match="cannot resume"):
            await client.tell_rollout(first.id, "resume")
        await agent.until(lambda agent: bool(agent.assigned))
        agent.answers = True
        agent.report()
        with anyio.fail_after(DEADLINE_S):
            async for _ in client.watch(first.id):
                pass
        again = await client.start_rollout(APP, LOCAL, (await order(client, "v1")).envelope, None)
        assert (again.id, again.state, again.reason) == ("", "done", "nothing done: v1 runs already")
        assert (await swap(client, "v2")).state == "done"
        with pytest.raises(RefusedError, match="cannot abort"):
            await client.tell_rollout(first.id, "abort")
        listed = await client.rollouts(APP, LOCAL)
        assert [(shown.release, shown.state) for shown in listed] == [("v2", "done"), ("v1", "done")]
        status = await client.status(APP)
        assert [(app.release, app.state, app.ready, app.wanted) for app in status.apps] == [("v2", "stable", 1, 1)]
        assert [(row.host, row.instance, row.state) for row in await client.ps()] == [("h1", "web.0", "ready")]
        tasks.cancel_scope.cancel()


async def test_logs_of_all_hosts_come_as_one_stream(tmp_path: Path) -> None:
    """Each record says which host it is from; a reader that leaves ends the following on the hosts."""
    async with running(tmp_path) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        await upload(fleet, client)
        agents = [FakeAgent(fleet, name) for name in ("h1", "h2")]
        for agent in agents:
            agent.records = [('{"message":"hello"}',)]
            tasks.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
        found = [json.loads(line) async for line in client.logs(APP, LOCAL, None, None, lines=10, follow=False)]
        assert sorted((record["host"], record["message"]) for record in found) == [("h1", "hello"), ("h2", "hello")]
        ended = [agent.tail_ended for agent in agents]
        for agent in agents:
            agent.tail_ended = anyio.Event()
        async with fleet.http() as http, http.get(f"{V1}/logs?follow=1") as answer:
            with anyio.fail_after(DEADLINE_S):
                assert await answer.content.readline()
        with anyio.fail_after(DEADLINE_S):
            for agent in agents:
                await agent.tail_ended.wait()
        assert all(event.is_set() for event in ended)
        tasks.cancel_scope.cancel()


async def test_a_host_that_leaves_is_named_to_who_follows_its_logs(tmp_path: Path) -> None:
    """Following goes on without a host that goes away, and says so."""
    async with running(tmp_path) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        await upload(fleet, client)
        agent = FakeAgent(fleet, "h1")
        async with anyio.create_task_group() as while_there:
            while_there.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
            async with fleet.http() as http, http.get(f"{V1}/logs?follow=1") as answer:
                with anyio.fail_after(DEADLINE_S):
                    await agent.tailing.wait()
                    while_there.cancel_scope.cancel()
                with anyio.CancelScope(shield=True), anyio.fail_after(DEADLINE_S):
                    said = json.loads(await answer.content.readline())
        assert said == {"host": "h1", "error": "is no longer connected"}
        tasks.cancel_scope.cancel()


async def test_logs_are_in_order_and_say_who_is_silent(tmp_path: Path) -> None:
    """Records of all hosts are merged by time; hosts that are gone or say nothing are named, and hold up nobody."""
    async with running(tmp_path) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        await upload(fleet, client)
        agents = [FakeAgent(fleet, name) for name in ("h1", "h2", "h3")]
        for number, agent in enumerate(agents, 1):
            agent.records = [
                tuple(f'{{"ts":"2026-11-23T12:00:{second:02}.000Z","n":{second}}}' for second in seconds)
                for seconds in ((number, number + 10), (number + 20,))
            ]
            tasks.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
        async with anyio.create_task_group() as while_there:
            gone = FakeAgent(fleet, "h4")
            while_there.start_soon(gone.dialer.run)
            await gone.until(lambda agent: agent.dialer.connected)
            while_there.cancel_scope.cancel()
        agents[2].silent = True
        with anyio.fail_after(DEADLINE_S):
            while (await client.status()).hosts[3].connected:
                pass
            begun = anyio.current_time()
            found = [json.loads(line) async for line in client.logs(APP, LOCAL, None, None, lines=10, follow=False)]
        assert anyio.current_time() - begun < 2 * ANSWER_S
        assert found[:2] == [
            {"host": "h4", "error": "is not connected"},
            {"host": "h3", "error": "did not answer within 3 s"},
        ]
        assert [(record["host"], record["n"]) for record in found[2:]] == [
            ("h1", 1), ("h2", 2), ("h1", 11), ("h2", 12), ("h1", 21), ("h2", 22),
        ]  # fmt: skip
        tasks.cancel_scope.cancel()


async def test_health_needs_no_token(fleet: Fleet) -> None:
    """A balancer or systemd may ask whether the coordinator lives, has started and is ready."""
    async with fleet.http("") as http:
        for path in ("/livez", "/readyz", "/startupz"):
            async with http.get(f"{path}?verbose") as answer:
                told = await answer.text()
            assert answer.status == 200
            assert all(line.startswith("[+]") for line in told.splitlines()[:-1])
            assert told.endswith(f"ok\n{path[1:]} check passed\n")


async def test_a_second_coordinator_does_not_start(fleet: Fleet) -> None:
    """Two coordinators never share a state folder: the second says who has it."""
    with pytest.raises(RefusedError, match=r"coordinator with pid [0-9]+ already runs"):
        await anyio.to_thread.run_sync(run, fleet.settings)
