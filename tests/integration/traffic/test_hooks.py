"""A load balancer told by a command of the operator's: what it may do, and what it may not do to a rollout."""

import json
import shlex
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from agent.cli import agent_main
from agent.errors import UsageError
from agent.model.address import Address
from agent.model.balancer import Standing, Wanted, Wish
from agent.model.ids import HostName
from agent.traffic import hooks
from agent.traffic.conformance import Changes
from agent.traffic.hooks import Hooks

HOOK = Path(__file__).parent / "apps" / "hook.py"
WEB = Wanted(name="h1:web", address=Address("10.0.0.7", 8080))
WITHIN_S = 20


def command(state: Path, *fault: str) -> tuple[str, ...]:
    return (sys.executable, str(HOOK), str(state), *fault)


def test_a_hook_that_keeps_the_protocol_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The trial is the same for every driver: admitted, drained, twice, and gone; nothing is left behind."""
    state = tmp_path / "state"
    state.write_text(json.dumps({"h2:web": "10.0.0.8:8080"}))
    words = ["balancer", "--exec", shlex.join(command(state)), "--server", "10.0.0.7:8080"]
    assert agent_main.run(words) == 0
    told = [line.rpartition(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert told[0] == "[+] admit: admitted"
    assert told[-1] == "[+] remove: gone"
    assert json.loads(state.read_text()) == {"h2:web": "10.0.0.8:8080"}, "others' servers are not touched"


async def stood(words: tuple[str, ...]) -> Standing:
    """What a driver says of a server that is wished out, once its command has ended."""
    changes = Changes()
    driver = Hooks(HostName("h1"), words, on_change=changes.tell)
    standing = Standing(state="unknown", detail="not asked yet")
    async with anyio.create_task_group() as tasks:
        driver.wish(Wish(servers=(Wanted(name=WEB.name, address=WEB.address, admitted=False),), drain_ms=1_000))
        tasks.start_soon(driver.run)
        with anyio.fail_after(WITHIN_S):
            while standing.detail == "not asked yet":
                await changes.wait()
                standing = driver.standing(WEB.name, admitted=False)
        tasks.cancel_scope.cancel()
    return standing


async def gone(*pids: int) -> None:
    """Wait until whoever adopted what was killed has collected it."""
    with anyio.fail_after(WITHIN_S):
        while any(psutil.pid_exists(pid) for pid in pids):
            await anyio.lowlevel.checkpoint()


FAULTS = {
    "fails": "the command exited with code 1: no route to the balancer at all",
    "floods": "the command",
    "mumbles": "its answer cannot be read: JSON is malformed: invalid character (byte 0)",
    "hangs": "the command did not end within 1 s",
}


@pytest.mark.anyio
@pytest.mark.parametrize("fault", FAULTS)
async def test_one_that_fails_drains_nobody(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that fails, hangs, floods or says nonsense makes its servers unknown, with why."""
    monkeypatch.setattr(hooks, "WITHIN_S", 1.0)
    state = tmp_path / "state"
    standing = await stood(command(state, fault))
    assert standing.state == "unknown"
    assert standing.detail.startswith(FAULTS[fault])
    if fault == "hangs":
        await gone(*map(int, state.read_text().split()))


@pytest.mark.anyio
async def test_one_that_is_not_there_says_so() -> None:
    """A command that cannot be started is named with the reason."""
    standing = await stood(("/nowhere/hook",))
    assert standing.state == "unknown"
    assert "/nowhere/hook" in standing.detail


WRONG = {
    "nothing": [],
    "both": ["--exec", "x", "--socket", "/run/h.sock", "--backend", "shop"],
    "half of HAProxy": ["--socket", "/run/h.sock"],
    "an empty command": ["--exec", ""],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_one_load_balancer_is_named(words: list[str]) -> None:
    """HAProxy or a hook, not both and not neither: exit 2."""
    with pytest.raises(UsageError):
        agent_main.run(["balancer", "--server", "10.0.0.7:8080", *words])
