"""`rollway agent check`: what a person reads who does not know what is wrong."""

import errno
import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli import agent_check, this_host
from agent.host import checks
from agent.host.checks import Answer, Finding
from agent.linux.fence import Means
from agent.model.ids import HostName
from agent.model.roles import AgentSettings
from agent.wire.control import AgentStatus, Pin
from tests.integration.host.test_process import agent, chosen
from tests.integration.host.verbs import rollway, write_settings

__all__ = ["chosen"]

DAY_S = 86_400
NOW_S = 1_765_276_200.0
SEEN: dict[str, tuple[Callable[[], Finding], bool, str]] = {
    "an agent that is drained": (
        lambda: checks.agent(AgentStatus(host="h1", version="1", pid=7, since_ms=0, drained=True)), False, "drained"  # type: ignore[arg-type]
    ),
    "apps whose unit runs": (lambda: checks.apps(is_started=True), True, "rollway-apps.service is started"),
    "apps whose unit nobody started": (lambda: checks.apps(is_started=False), False, "no instance can be"),
    "an app that is pinned": (
        lambda: checks.pins(
            AgentStatus(host="h1", version="1", pid=7, since_ms=0, pins=(Pin("shop", "production", "v1"),))  # type: ignore[arg-type]
        )[0],
        False,
        "shop production is pinned to v1",
    ),
    "a link that is up": (
        lambda: checks.link(
            AgentStatus(host="h1", version="1", pid=7, since_ms=0, linked=True, link_since_ms=1_765_276_200_000)  # type: ignore[arg-type]
        ),
        True,
        "connected since 2025-12-09 10:30:00Z",
    ),
    "a link that was refused": (
        lambda: checks.link(
            AgentStatus(host="h1", version="1", pid=7, since_ms=0, link_reason="h1 was\x1b removed")  # type: ignore[arg-type]
        ),
        False,
        "not connected since the agent was started; what runs goes on: h1 was  removed",
    ),
    "one coordinator of two answers": (
        lambda: checks.coordinators([Answer("https://a", reason="does not answer"), Answer("https://b", NOW_S)]),
        True,
        "https://a does not answer; https://b answers",
    ),
    "no coordinator answers": (
        lambda: checks.coordinators([Answer("https://a", reason="does not answer: refused")]), False, "refused"
    ),
    "a clock a minute ahead": (lambda: checks.time([Answer("https://a", NOW_S - 60)], NOW_S), False, "60 s ahead"),
    "a clock a minute behind": (lambda: checks.time([Answer("https://a", NOW_S + 60)], NOW_S), False, "60 s behind"),
    "a clock that is right": (lambda: checks.time([Answer("https://a", NOW_S - 0.7)], NOW_S), True, "as the coord"),
    "a clock that nobody can tell": (lambda: checks.time([Answer("https://a")], NOW_S), True, "not compared"),
    "a certificate of a week": (lambda: checks.certificate(NOW_S + 8 * DAY_S, NOW_S), True, "until 2025-12-17"),
    "a certificate of a day": (lambda: checks.certificate(NOW_S + DAY_S, NOW_S), False, "until 2025-12-10"),
    "a certificate that is over": (lambda: checks.certificate(NOW_S - DAY_S, NOW_S), False, "expired 2025-12-08"),
    "a disk with room": (lambda: checks.disk(Path("/x"), 5 << 30, 99 << 30), True, "5.0 GiB free of 99.0 at /x"),
    "a disk that is nearly full": (lambda: checks.disk(Path("/x"), 99 << 20, 99 << 30), False, "0.1 GiB free"),
    "a small disk that is half full": (lambda: checks.disk(Path("/x"), 99 << 20, 200 << 20), True, "0.1 GiB free"),
    "no cgroup v2": (lambda: checks.controllers(None), True, "no cgroup v2"),
    "controllers that are missing": (lambda: checks.controllers(frozenset({"cpu"})), True, "without memory, pids"),
    "what keeps an app in": (lambda: checks.sandbox(Means(7, mounts=True)), True, "writable is kept: Landlock 7"),
    "half of it": (lambda: checks.sandbox(Means(2, mounts=False)), True, "writable is refused: Landlock 2, no mounts"),
}  # fmt: skip


@pytest.mark.parametrize("case", SEEN.values(), ids=list(SEEN))
def test_each_thing_is_judged(case: tuple[Callable[[], Finding], bool, str]) -> None:
    """Well or not, in words that say what was seen; what is not well says what to do."""
    found, well, says = case[0](), case[1], case[2]
    assert found.well is well
    assert says in found.found


def test_who_was_refused_is_told_what_to_do_in_the_coordinators_words() -> None:
    """A host that was removed is not sent to look at the network."""
    status = AgentStatus(host=HostName("h1"), version="1", pid=7, since_ms=0, link_what_to_do="Join again.")
    assert checks.link(status).what_to_do == "Join again."


def test_a_host_is_checked_with_a_living_and_with_a_dead_agent(chosen: AgentSettings, tmp_path: Path) -> None:
    """No coordinator: 1, what runs goes on; no agent: 6, and the rest is looked at all the same; wrong settings: 2."""
    file = write_settings(chosen, tmp_path / "agent.toml")
    with agent(chosen) as started:
        started.until("agent started")
        if all(event["event"] != "cannot connect" for event in started.seen):
            started.until("cannot connect")
        said = rollway("agent", "check", "--config", file, code=1).stdout
        assert f"[+] agent: pid {started.process.pid}, version" in said
        assert "[-] link: not connected" in said
        assert "what runs goes on: https://127.0.0.1:1: Cannot connect" in said
        assert "[-] coordinator: https://127.0.0.1:1 does not answer: Connection refused" in said
        assert "[+] certificate: valid until" in said
        assert "[+] disk: " in said
    found = json.loads(rollway("agent", "check", "--json", "--config", file, code=6).stdout)
    assert [one["check"] for one in found if not one["well"]] == ["agent", "coordinator"]
    assert all(one["what_to_do"] for one in found if not one["well"])
    file.write_text('name = "h1"\ncoordinator = "https://c"\n')
    assert "[-] settings:" in rollway("agent", "check", "--config", file, code=2).stdout


def test_a_host_that_has_not_joined_is_told_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is said about coordinators and certificates that no settings name."""
    monkeypatch.setattr(agent_check, "AGENT_FILE", "/nowhere/agent.toml")
    monkeypatch.setattr(this_host, "AGENT_FILE", "/nowhere/agent.toml")
    found = {one.check: one for one in findings(tmp_path)}
    assert "there is no /nowhere/agent.toml" in found["settings"].found
    assert "rollway agent join" in found["settings"].what_to_do
    assert not found.keys() & {"coordinator", "clock", "certificate"}


def test_who_may_not_read_the_settings_is_not_sent_to_join_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A member of the group `rollway` may ask the agent, and not read agent.toml: that alone is said."""
    read = Path.read_text

    def denied(file: Path, *how: str) -> str:
        if file == Path(this_host.AGENT_FILE):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(file, *how)

    monkeypatch.setattr(Path, "read_text", denied)
    found = {one.check: one for one in findings(tmp_path)}
    assert "Permission denied" in found["settings"].found
    assert found["settings"].what_to_do == "Ask as root."
    assert not found.keys() & {"coordinator", "clock", "certificate"}


def findings(folder: Path) -> list[Finding]:
    """Of a host where no agent runs, by the settings that are installed."""
    return agent_check.look(Namespace(config=None, host_socket=str(folder / "agent.sock")))[0]
