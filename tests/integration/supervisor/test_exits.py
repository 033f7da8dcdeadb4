"""How an instance ended is told with all that is known of it, whoever started it, and what it leaves delays nothing."""

import os
import resource

import pytest
from anyio import to_thread
from msgspec.structs import replace

from agent.linux.pidfd import ExitStatus
from agent.model.process import ProcessType, StopPolicy
from agent.model.process import RestartPolicy as Restart
from agent.supervisor import exits
from tests.integration.limits import no_more_fds
from tests.integration.supervisor.conftest import House, lives, script, worker
from tests.integration.supervisor.keeper import Keeper
from tests.integration.supervisor.test_adopt import an_agent, left_by_one

pytestmark = pytest.mark.anyio
NEVER = Restart(policy="never")
ENDS: dict[str, tuple[str, dict[str, object]]] = {
    "it comes to its end": ("exit 0", {"code": 0, "clean": True}),
    "it fails": ("exit 3", {"code": 3, "clean": False}),
    "it is told to end by somebody else": ("kill -TERM $$", {"signal": "SIGTERM", "core": False, "clean": True}),
    "it is interrupted": ("kill -INT $$", {"signal": "SIGINT", "core": False, "clean": True}),
    "it hangs up": ("kill -HUP $$", {"signal": "SIGHUP", "core": False, "clean": True}),
    "nobody reads what it writes": ("kill -PIPE $$", {"signal": "SIGPIPE", "core": False, "clean": True}),
    "it is killed": ("kill -KILL $$", {"signal": "SIGKILL", "core": False, "clean": False}),
    "it crashes": ("ulimit -c 0; kill -SEGV $$", {"signal": "SIGSEGV", "core": False, "clean": False}),
}


def exited(told: dict[str, str | int], *names: str) -> dict[str, object]:
    return {name: told[name] for name in names if name in told}


@pytest.mark.parametrize(("command", "expected"), ENDS.values(), ids=ENDS)
async def test_an_end_is_told_by_code_or_signal(house: House, command: str, expected: dict[str, object]) -> None:
    """Code or signal, whether a core was left, and clean by systemd's list."""
    house.launch(script(f"read go < go; {command}", restart=NEVER))
    os.mkfifo(house.folder / "go")
    pid = (await house.state("ready")).pid
    await to_thread.run_sync((house.folder / "go").write_text, "go\n")
    told = await house.exit_of(pid)
    assert exited(told, "code", "signal", "core", "clean") == expected
    assert (told["expected"], told["ordered"]) == (False, False)


async def test_an_end_is_told_with_what_it_has_used(house: House) -> None:
    """How long it ran, its processor time, and its most memory."""
    block = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 + (1 << 28)
    burn = f"import time\nblock = bytearray({block})\nwhile time.process_time() < 0.3: pass"
    (house.folder / "burn.py").write_text(burn)
    house.launch(worker("/usr/bin/env python3 burn.py", restart=NEVER))
    pid = (await house.state("ready")).pid
    told = await house.exit_of(pid)
    assert 300 <= int(told["cpu_ms"]) < int(told["uptime_ms"]) + 100, "what it used before it was told of counts too"
    assert block <= int(told["max_rss_bytes"]) < block + (1 << 28)


async def test_an_end_that_was_asked_for_is_told_as_such(house: House) -> None:
    """An ordered stop is no surprise, however the process takes it."""
    key = house.launch(worker("sleep 600"))
    pid = (await house.state("ready")).pid
    await house.end(key)
    told = await house.exit_of(pid)
    assert (told["signal"], told["clean"], told["expected"], told["ordered"]) == ("SIGTERM", True, True, True)


async def test_an_end_is_seen_where_no_descriptor_is_left_to_see_more(in_leaves: House) -> None:
    """Of who is no child what it has used is read from its cgroup: for want of a descriptor that is left out."""
    in_leaves.launch(worker("sleep 600"))
    await in_leaves.state("ready")
    running = in_leaves.supervisor._instances[next(iter(in_leaves.supervisor._instances))]._process
    assert running is not None
    with no_more_fds():
        assert exits.exited(ExitStatus(code=4), running, 0.0).used == {}


async def test_of_who_is_no_child_the_cgroup_tells_what_its_tree_has_used(in_leaves: House) -> None:
    """Of what an earlier agent started its leaf knows the time of the whole tree; without a leaf nothing is said."""
    house = in_leaves
    key = house.launch(script("(while [ $((n+=1)) -lt 300000 ]; do :; done); echo burnt; exec sleep 600"))
    await house.until(lambda: "burnt" in house.messages())
    running = house.supervisor._instances[key].measured
    assert running is not None
    used = exits.used_by(ExitStatus(code=4), running.tree)
    assert used["tree_cpu_ms"] > 50
    assert set(used) <= {"tree_cpu_ms", "tree_memory_peak_bytes"}
    assert exits.used_by(ExitStatus(code=4), replace(running.tree, cgroup=None)) == {}
    await house.end(key)


async def test_the_time_that_a_start_took_outlives_the_agent(house: House, keeper: Keeper) -> None:
    """It is measured once, from the launch to the first readiness, and the next agent knows it."""
    key = await left_by_one(house, script("sleep 600"))
    start_ms = house.view().start_ms
    assert start_ms is not None
    assert 0 <= start_ms < 10_000
    async with an_agent(house, keeper.inherited()):
        await house.state("ready")
        assert house.view().start_ms == start_ms
        await house.end(key)


HOLDS = "(sleep 600 & echo left $!); "


async def test_who_holds_the_output_delays_no_restart(house: House) -> None:
    """A process that an instance leaves behind with its output open is ended, and the instance is back at once."""
    process: ProcessType = script(f"{HOLDS} [ -e again ] && exec sleep 600; touch again; exit 1")
    key = house.launch(process)
    await house.until(lambda: house.view().restarts == 1 and house.view().state == "ready")
    told = [fields for text, fields in house.told if text == "exited"]
    assert told[0]["code"] == 1
    first = int(str(house.messages()[0]).split()[1])
    assert not lives(first)
    await house.end(key)


async def test_who_holds_the_output_delays_no_stop(house: House) -> None:
    """The same at a stop: nobody waits for the grace of a process that is not the main one."""
    key = house.launch(script(f"{HOLDS} exec sleep 600", stop=StopPolicy(linger_ms=0, grace_ms=60_000)))
    await house.until(lambda: bool(house.messages()) and house.view().state == "ready")
    await house.end(key)
    assert not lives(int(str(house.messages()[0]).split()[1]))
    assert "outlived its grace" not in house.texts()
