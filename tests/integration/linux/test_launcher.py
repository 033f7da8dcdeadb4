"""The process that forks for the agent: it may end at any moment, and ends with us."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from agent.linux import launcher as launching
from agent.linux import pidfd, procfs
from agent.linux.launcher import ANSWER_WITHIN_S, FORKER, Launcher
from agent.linux.spawn import Launch, Launched

pytestmark = pytest.mark.anyio
DEADLINE_S = 20


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    with contextlib.closing(Launcher()) as one:
        yield one


def forkers() -> set[int]:
    """Ours, by their command line: those that live."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_one = (folder / "cmdline").read_bytes() == f"{FORKER}\0".encode()
            process = procfs.process(int(folder.name)) if is_one else None
            if process is not None and process.parent == os.getpid() and process.session == process.pid:
                found.add(process.pid)
    return found


async def another(before: set[int]) -> int:
    """The next one that is on its own: whatever waits at its gate looks like who forked it."""
    while not (begun := forkers() - before):
        await anyio.lowlevel.checkpoint()
    (one,) = begun
    return one


async def code_of(launcher: Launcher, script: str) -> int | None:
    asked = Launch(argv=("/bin/sh", "-c", script), env={}, cwd=Path("/"), stdout=1, stderr=2)
    launched = await launcher.launch(asked)
    assert isinstance(launched, Launched), launched
    status = await pidfd.wait_exit(launched.pidfd)
    os.close(launched.pidfd)
    return status.code


async def test_many_at_once_are_each_what_was_asked_for(launcher: Launcher) -> None:
    """Launches that run into each other give every one its own command and its own end."""
    codes: dict[int, int | None] = {}

    async def one(code: int) -> None:
        codes[code] = await code_of(launcher, f"exit {code}")

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            for code in range(100):
                tasks.start_soon(one, code)
    assert codes == {code: code for code in range(100)}


async def test_what_is_launched_executes_its_command(launcher: Launcher) -> None:
    """Whoever looks at a process that it is told of finds the command and its environment, not what is to become it."""
    for number in range(50):
        asked = Launch(argv=("/bin/sleep", "600"), env={"NUMBER": str(number)}, cwd=Path("/"), stdout=1, stderr=2)
        launched = await launcher.launch(asked)
        assert isinstance(launched, Launched), launched
        folder = Path(f"/proc/{launched.pid}")
        found = (folder / "comm").read_text(), (folder / "environ").read_bytes()
        pidfd.send_signal(launched.pidfd, signal.SIGKILL)
        await pidfd.wait_exit(launched.pidfd)
        os.close(launched.pidfd)
        assert found == ("sleep\n", b"NUMBER=%d\0" % number)


async def test_one_that_was_killed_is_followed_by_another(launcher: Launcher) -> None:
    """Who forks is killed: the next launch starts another and is done."""
    before = forkers()
    assert await code_of(launcher, "exit 3") == 3
    (first,) = forkers() - before
    handle = os.pidfd_open(first)
    os.kill(first, signal.SIGKILL)
    await pidfd.exited(handle)
    os.close(handle)
    assert await code_of(launcher, "exit 4") == 4
    os.waitpid(first, 0)  # noqa: ASYNC222 - it has ended


async def test_one_that_was_killed_is_missed_at_once(launcher: Launcher) -> None:
    """A process that waits at its gate for a launch that never comes does not stand in for who forked it."""
    before = forkers()
    launcher.begin()
    with anyio.fail_after(DEADLINE_S):
        first = await another(before)
        waiting = launcher.ahead(Launch(argv=("/bin/sleep", "600"), env={}, cwd=Path("/"), stdout=1, stderr=2))
        assert waiting is not None
        child = await another({*before, first})
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)  # noqa: ASYNC222 - it was killed
        with anyio.fail_after(ANSWER_WITHIN_S / 2):
            assert await code_of(launcher, "exit 4") == 4
    waiting.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 125  # noqa: ASYNC222 - nobody opens its gate


async def test_what_it_has_no_room_for_is_started_all_the_same(launcher: Launcher) -> None:
    """Who forks is held up, and more is asked of it than waits to be read: the next launch goes another way."""
    before = forkers()
    launcher.begin()
    with anyio.fail_after(DEADLINE_S):
        one = await another(before)
        os.kill(one, signal.SIGSTOP)
        asked = Launch(argv=("/bin/sleep", "600"), env={}, cwd=Path("/"), stdout=1, stderr=2)
        waiting = list(iter(lambda: launcher.ahead(asked), None))
        assert await code_of(launcher, "exit 6") == 6
    os.kill(one, signal.SIGKILL)
    os.waitpid(one, 0)  # noqa: ASYNC222 - it was killed
    for forked in waiting:
        forked.close()


async def test_it_ends_when_nobody_can_ask_any_more(launcher: Launcher) -> None:
    """Nothing of the launcher outlives who has it, however that one ends."""
    before = forkers()
    launcher.begin()
    with anyio.fail_after(DEADLINE_S):
        handle = os.pidfd_open(await another(before))
        launcher.close()
        status = await pidfd.wait_exit(handle)
    os.close(handle)
    assert status.code == 0


async def test_what_fits_no_message_is_started_all_the_same(launcher: Launcher) -> None:
    """A long environment, as a certificate in a variable makes it, reaches the process whole."""
    reader, writer = os.pipe()
    env = {f"V{number}": "x" * 100_000 for number in range(3)}
    words = ("/bin/sh", "-c", "echo ${#V0} ${#V1} ${#V2}")
    launched = await launcher.launch(Launch(argv=words, env=env, cwd=Path("/"), stdout=writer, stderr=2))
    os.close(writer)
    assert isinstance(launched, Launched), launched
    with os.fdopen(reader) as output:
        assert output.read() == "100000 100000 100000\n"
    await pidfd.wait_exit(launched.pidfd)
    os.close(launched.pidfd)


REFUSES_CLONE3 = """#!{python}
import ctypes, os, struct

LOAD, IF_EQUAL, RETURN, ERRNO, ALLOW = 0x20, 0x15, 0x06, 0x00050000, 0x7FFF0000
program = [(LOAD, 0, 0, 0), (IF_EQUAL, 0, 1, 435), (RETURN, 0, 0, ERRNO | {number}), (RETURN, 0, 0, ALLOW)]
text = b"".join(struct.pack("=HBBI", *line) for line in program)
code = ctypes.create_string_buffer(text)
filters = struct.pack("@HP", len(program), ctypes.addressof(code))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filters, 0, 0) == 0
os.execv({forker!r}, [{forker!r}])
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM], ids=errno.errorcode.get)
async def test_where_nobody_may_fork_so_a_shell_starts_it(
    number: int, launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that refuses clone3(2) processes are started all the same, the first one too."""
    refused = tmp_path / "forker"
    refused.write_text(REFUSES_CLONE3.format(python=sys.executable, number=number, forker=str(FORKER)))
    refused.chmod(0o755)
    monkeypatch.setattr(launching, "FORKER", refused)
    assert await code_of(launcher, "exit 5") == 5
    assert await code_of(launcher, "exit 6") == 6
