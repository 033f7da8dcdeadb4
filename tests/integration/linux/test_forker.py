"""The program in C that forks for the agent, asked by us what no agent asks: it understands a request whole or not."""

import array
import errno
import os
import select
import shlex
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from agent.linux import procfs

SOURCE: Final = Path(__file__).parents[3] / "native" / "forker.c"
WATCHED: Final = ("-g", "-O1", "-std=gnu17", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
CLEAN: Final = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
MESSAGE_BYTES_MAX: Final = 1 << 16
FDS_MAX: Final = 64
INPUT: Final = 4
ALL_BITS: Final = 0xFFFFFFFF


class Forker:
    """A forker of our own, that tells of each byte out of bounds by its end, and its standard error."""

    def __init__(self, program: Path, said: Path) -> None:
        self.asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.said = said
        stderr = (os.POSIX_SPAWN_OPEN, 2, str(said), os.O_WRONLY | os.O_CREAT, 0o600)
        null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
        with theirs:
            actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3), null, (os.POSIX_SPAWN_DUP2, 0, 1), stderr]
            actions.append((os.POSIX_SPAWN_DUP2, 0, 9))  # as somebody careless leaves it open
            env = {"ASAN_OPTIONS": "detect_leaks=0"}  # it would trace us for that
            self.pid = os.posix_spawn(program, [str(program)], env, file_actions=actions)

    def ask(self, message: bytes, streams: int = 2) -> tuple[int, socket.socket]:
        """What is answered, once it is; and our end of the channel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, Path(os.devnull).open("r+b", buffering=0) as null:
            fds = array.array("i", [theirs.fileno(), *[null.fileno()] * streams])
            self.asked.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        answer: tuple[int, int] = struct.unpack("=qQ", ours.recv(64))
        return answer[0], ours

    def code(self, message: bytes, word: bytes = b"") -> int:
        """The exit code of what is asked for, once it is told this word, or nothing; or what is answered instead."""
        pid, channel = self.ask(message)
        with channel:
            if pid < 0:
                return pid
            if word:
                channel.send(word)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def holds(self) -> list[str]:
        """What it has open, once it waits to be asked: an answer comes a moment before."""
        while (found := procfs.process(self.pid)) is not None and found.state != "S":
            select.select([], [], [], 0.001)
        return sorted(str(one.readlink()) for one in Path(f"/proc/{self.pid}/fd").iterdir())

    def end(self) -> int:
        self.asked.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("forker") / "forker"
    subprocess.run([*shlex.split(os.environ.get("CC", "cc")), *WATCHED, *CLEAN, "-o", made, SOURCE], check=True)
    return made


@pytest.fixture(scope="module")
def forker(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    """One for all that is asked here: whatever it was asked before, it holds nothing and serves who comes next."""
    one = Forker(program, tmp_path_factory.mktemp("said") / "stderr")
    assert one.code(request(b"/bin/true"), b"g") == 0
    held = one.holds()
    assert len(held) == 4, "three streams, and the socket"
    yield one
    assert one.code(request(b"/bin/true"), b"g") == 0
    assert one.holds() == held
    assert one.end() == 0
    assert one.said.read_text() == ""


def request(
    *argv: bytes,
    env: tuple[bytes, ...] = (),
    flags: int = 0,
    groups: int = 0,
    arguments: int | None = None,
    variables: int | None = None,
) -> bytes:
    """A request as the agent makes it, but for the counts that are given."""
    counts = groups, len(argv) if arguments is None else arguments, len(env) if variables is None else variables
    words = b"".join(word + b"\0" for word in (b"", b"/", b"", *argv, *env))
    return struct.pack("=7I", flags, 0o022, 0, 0, *counts) + words


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


MALFORMED = {
    "a byte": b"x",
    "cut off in its numbers": request(b"/bin/true")[:27],
    "numbers and no words": request(b"/bin/true")[:28],
    "cut off in its last word": request(b"/bin/true")[:-1],
    "a word less than it counts": request(b"/bin/true", arguments=2),
    "a word more than it counts": request(b"/bin/true", b"x", arguments=1),
    "a variable less than it counts": request(b"/bin/true", env=(b"A=1",), variables=2),
    "a byte behind its last word": request(b"/bin/true") + b"x",
    "no command": request(),
    "more groups than it has room for": request(b"/bin/true", groups=7),
    "groups up to the end of all numbers": request(b"/bin/true", groups=ALL_BITS),
    "groups whose bytes make no number": request(b"/bin/true", groups=1 << 30),
    "arguments up to the end of all numbers": request(b"/bin/true", arguments=ALL_BITS),
    "variables up to the end of all numbers": request(b"/bin/true", variables=ALL_BITS),
    "a wish that it does not know": request(b"/bin/true", flags=8),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_understood_is_refused_and_starts_nothing(forker: Forker, message: bytes) -> None:
    """A request that is not what it says it is gets its own error, and no process is made for it."""
    assert forker.code(message) == -errno.EBADMSG


@pytest.mark.parametrize(("streams", "flags"), [(0, 0), (1, 0), (2, INPUT)], ids=str)
def test_who_has_no_streams_is_refused(forker: Forker, streams: int, flags: int) -> None:
    """A process whose output would go to nobody is not started."""
    answered, channel = forker.ask(request(b"/bin/true", flags=flags), streams)
    channel.close()
    assert answered == -errno.EBADMSG


def test_what_is_too_long_is_refused(forker: Forker) -> None:
    """A request that is cut off as it is received is not taken for a shorter one."""
    whole = request(b"/bin/true", b"x" * MESSAGE_BYTES_MAX)
    assert forker.code(whole) == -errno.EMSGSIZE
    assert forker.code(whole[:MESSAGE_BYTES_MAX]) == -errno.EBADMSG


def test_too_many_descriptors_are_refused(forker: Forker) -> None:
    """More than it takes are given back, and as many as it takes are not."""
    answered, channel = forker.ask(request(b"/bin/true"), FDS_MAX)
    channel.close()
    assert answered == -errno.EMFILE
    answered, channel = forker.ask(request(b"/bin/true"), FDS_MAX - 1)
    channel.send(b"g")
    channel.close()
    assert os.waitpid(answered, 0)[1] == 0


def test_nobody_who_hears_it_is_no_harm(forker: Forker) -> None:
    """Who asks without a channel, or is gone before the answer, costs the next one nothing."""
    before = children()
    forker.asked.send(request(b"/bin/true"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno(), 1, 2]))]
    forker.asked.sendmsg([request(b"/bin/true")], rights)
    theirs.close()
    assert forker.code(request(b"/bin/true"), b"g") == 0
    (unheard,) = children() - before
    assert os.waitstatus_to_exitcode(os.waitpid(unheard, 0)[1]) == 125


def test_as_many_words_as_fit_are_words(forker: Forker) -> None:
    """Words of no length are counted as they come, to the last byte of the longest request."""
    least = len(request(b"/bin/true"))
    words = (b"",) * (MESSAGE_BYTES_MAX - least)
    assert forker.code(request(b"/bin/true", *words), b"g") == 0
    assert forker.code(request(b"/bin/true", env=words), b"g") == 0


def test_without_the_agents_word_nothing_runs(forker: Forker) -> None:
    """Who is told nothing, or something else, ends; what cannot be run has the codes of a shell."""
    assert forker.code(request(b"/bin/true")) == 125
    assert forker.code(request(b"/bin/true"), b"x") == 125
    assert forker.code(request(b"/nothing/here"), b"g") == 127
    assert forker.code(request(b"/etc/passwd"), b"g") == 126


WHOLE = request(b"/bin/sh", b"-c", b"exit 3", env=(b"A=1", b"PATH=/bin:/usr/bin"), groups=0)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good request with some of its bytes changed, and perhaps cut off."""
    message = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(1, len(message)))])


@given(message=st.one_of(damaged(), st.binary(min_size=1, max_size=200)))
@examples(max_examples=300)
def test_whatever_is_asked_is_answered(forker: Forker, message: bytes) -> None:
    """Damage in a request is answered, by an error or by a process that waits, and harms nobody who asks after it."""
    answered, channel = forker.ask(message)
    channel.close()
    if answered > 0:
        assert os.waitstatus_to_exitcode(os.waitpid(answered, 0)[1]) in (125, -signal.SIGKILL)
    assert forker.code(WHOLE, b"g") == 3
