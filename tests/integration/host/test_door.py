"""Who may speak with an agent over its socket, and who is told why not."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio import to_thread

from agent.client.agent import Agent, AgentGoneError
from agent.errors import RefusedError
from agent.host.byhand import serving
from agent.host.control import Control
from agent.linux import unixsocket
from agent.model.roles import AgentSettings
from tests.integration.host.rig import running
from tests.integration.host.source import FolderSource
from tests.integration.host.test_process import agent, chosen

__all__ = ["chosen"]

pytestmark = pytest.mark.anyio
NOBODY, GROUP = 65534, 54321
ASK = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from agent.client.agent import Agent
    from agent.errors import RollwayError
    agent, gid, groups = Agent(Path(sys.argv[1])), int(sys.argv[2]), [int(one) for one in sys.argv[3].split(",") if one]
    agent.ask("POST", "/v1/undrain", dict)  # as root, so that all is imported that another user could not read
    os.setgroups(groups), os.setresgid(gid, gid, gid), os.setresuid(65534, 65534, 65534)
    try:
        print(agent.ask("POST", "/v1/undrain", dict))
    except RollwayError as error:
        print(error)
""")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can walk through."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def asked_as(path: Path, gid: int, groups: str) -> str:
    """What a process of another user, in these groups, hears."""
    words = [sys.executable, "-c", ASK, str(path), str(gid), groups]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3], timeout=30)
    return done.stdout.strip()


WHO = {
    "a member of the group by its first group": ("{}", 0o660, GROUP, ""),
    "a member of the group by another group": ("{}", 0o660, NOBODY, f"7,{GROUP}"),
    "somebody else": ("nobody may not speak with the agent at", 0o660, NOBODY, "7"),
    "somebody else where the file lets everybody in": (f"user {NOBODY} may not", 0o666, NOBODY, "7"),
}


@pytest.mark.parametrize("case", WHO.values(), ids=list(WHO))
async def test_only_root_and_members_of_the_group_are_answered(
    case: tuple[str, int, int, str], open_folder: Path, tmp_path: Path
) -> None:
    """By the groups of the process that connects, supplementary ones too; others are told what to do."""
    expected, mode, gid, groups = case
    (tmp_path / "source").mkdir()
    control = Control(open_folder, GROUP)
    path = open_folder / "agent.sock"
    async with running(tmp_path, FolderSource(tmp_path / "source")) as rig, serving(control, rig.host):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        path.chmod(mode)
        said = await to_thread.run_sync(asked_as, path, gid, groups)
    control.close()
    assert expected in said
    assert expected == "{}" or "member of the group rollway" in said
    assert not path.exists()


async def test_where_there_is_no_group_the_socket_is_its_owners(open_folder: Path) -> None:
    """Nobody else gets as far as to ask."""
    control = Control(open_folder, None)
    assert stat.S_IMODE((open_folder / "agent.sock").stat().st_mode) == 0o600
    control.close()


async def test_a_dead_agents_socket_is_replaced_and_a_living_ones_is_not(tmp_path: Path) -> None:
    """What a killed agent left behind is no hindrance; an agent that answers is."""
    left = unixsocket.listen(tmp_path / "agent.sock", None)
    left.close()
    assert (tmp_path / "agent.sock").exists()
    control = Control(tmp_path, None)
    with pytest.raises(RefusedError, match="another agent answers there"):
        Control(tmp_path, None)
    control.close()


async def test_a_path_longer_than_a_kernel_address_is_served_too(tmp_path: Path) -> None:
    """A fleet may lie as deep in a home as it likes."""
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    made = unixsocket.listen(folder / "agent.sock", None)
    with unixsocket.connect(folder / "agent.sock", 5):
        made.accept()[0].close()
    made.close()


async def test_who_asks_where_no_agent_runs_is_told_so(tmp_path: Path) -> None:
    """The error is of its own kind, and names the path and what to look at."""
    with pytest.raises(AgentGoneError, match=r"no agent answers at .*agent.sock: nobody listens there"):
        Agent(tmp_path / "agent.sock").ask("POST", "/v1/undrain", dict[str, object])


def test_who_waits_for_an_agent_that_hangs_is_told_so(chosen: AgentSettings) -> None:
    """After a few seconds that it does not answer, and after ten that it is waited for no longer, with exit code 6."""
    socket = f"{chosen.run_dir}/agent.sock"
    with agent(chosen) as stopped:
        stopped.until("agent started")
        os.kill(stopped.process.pid, signal.SIGSTOP)
        begun_s = time.monotonic()
        words = [sys.executable, "-m", "agent", "ps", "--host-socket", socket, "--json"]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
        ) as asking:
            assert asking.stderr is not None
            first, first_s = asking.stderr.readline(), time.monotonic() - begun_s
            shown, rest = asking.communicate(timeout=30)
            took_s = time.monotonic() - begun_s
    assert first == f"rollway: the agent at {socket} has not answered yet; waiting up to 10 s\n"
    assert (asking.returncode, shown) == (6, "")
    assert json.loads(rest)["error"] == f"the agent at {socket} does not answer, though it runs"
    assert first_s < took_s - 5 < 10
