"""What one process wrote and a next one finds: every record once, in order, in a bounded memory."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux import intake as intake_module
from agent.linux import journal as journal_module
from agent.linux import memfd
from agent.linux import passage as passage_module
from agent.linux.intake import INTAKE_BYTES, Intake
from agent.linux.journal import Journal
from agent.linux.passage import Passage

KEPT = 64 * 1024


def adopted(journal: Journal) -> Journal:
    """As a next process sees it: nothing is known of it but its descriptor."""
    found = Journal.adopt(journal.fd)
    assert found is not None
    return found


def sent(journal: Journal, passage: Passage, count: int = 1 << 30) -> bytes:
    """What comes out when the journal has its turn, until nothing or at least so much is sent."""
    reading, writing = os.pipe()
    seen = b""
    while (left := journal.left(passage)) and len(seen) < count:
        if not passage.level:
            journal.hand_over(passage, left)
        seen += os.read(reading, passage.send(writing, min(count, 1 << 16)))
    if not left:
        journal.end_turn()
    os.close(reading)
    os.close(writing)
    return seen


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 60_000), st.booleans()), max_size=60))
def test_every_record_comes_once_and_in_order(steps: list[tuple[int, int, bool]]) -> None:
    """However much is written and sent at a time, and wherever a next process takes over."""
    journal, passage, written, seen = Journal.create("test", KEPT), Passage.create(), b"", b""
    for step, (count, bytes_sent, dies) in enumerate(steps):
        records = [b"%d.%d\n" % (step, number) for number in range(count)]
        if journal.is_full:
            seen += sent(journal, passage)
        journal.append(records, b"%d" % step)
        written += b"".join(records)
        if bytes_sent:
            seen += sent(journal, passage, bytes_sent)
        if dies:
            journal, passage = adopted(journal), Passage(passage.fd)
            if journal.has_turn:
                journal.resume_turn(passage)
            assert journal.note == b"%d" % step
    assert seen + sent(journal, passage) == written
    passage.close()
    journal.close()


def test_memory_stays_bounded_and_the_last_records_are_kept() -> None:
    """After a hundred MiB no more is held than at first, with the newest records whole."""
    journal, passage = Journal.create("test", kept_bytes=100_000), Passage.create()
    records = b"".join(b"%06d %s\n" % (number, b"x" * 93) for number in range(5_000))
    for _ in range(200):
        journal.append((records,))
        assert sent(journal, passage) == records
    assert os.fstat(journal.fd).st_blocks * 512 < 1 << 20
    last = journal.last()
    assert 100_000 <= len(last) <= 110_000
    assert records.endswith(last)
    assert {len(line) for line in last.splitlines()} == {100}
    passage.close()
    journal.close()


def test_what_is_written_while_nobody_reads_keeps_what_is_unsent() -> None:
    """A full journal says so, and what was appended until then is all there."""
    journal, passage, written = Journal.create("test", KEPT), Passage.create(), b""
    while not journal.is_full:
        record = b"%d" % len(written) + b"x" * 10_000 + b"\n"
        journal.append((record,))
        written += record
    assert len(written) > KEPT
    assert sent(journal, passage) == written


def test_a_record_that_was_sent_in_part_is_completed_or_sent_again() -> None:
    """A next process with the same reader sends the rest; one with another reader the whole record."""
    journal, passage = Journal.create("test"), Passage.create()
    journal.append((b"first\nsecond\n",))
    assert sent(journal, passage, 9) == b"first\nsec"
    for same_reader, expected in ((True, b"ond\n"), (False, b"second\n")):
        journal, passage = adopted(journal), Passage(passage.fd)
        journal.resume_turn(passage)
        if not same_reader:
            journal.take_back(passage, whole_records=True)
            assert sent(journal, passage) == expected
        else:
            assert passage.level == len(expected)


@pytest.mark.parametrize(
    ("size", "head"),
    {
        "empty": (0, b""),
        "zeros": (1 << 20, b"\0" * 8192),
        "text": (1 << 20, b"something else altogether, of no journal" * 200),
        "handed over beyond the end": (1 << 20, b"".join(word.to_bytes(8, "little") for word in (1 << 20, 1 << 40))),
    }.values(),
    ids=str,
)
def test_what_is_no_journal_is_not_trusted(size: int, head: bytes) -> None:
    """A descriptor whose content cannot be right is refused, whatever its name promises."""
    fd = memfd.create("test", memfd.PAGE_BYTES + size if size else 0)
    os.pwrite(fd, head, 0)
    assert Journal.adopt(fd) is None
    assert Intake.adopt(fd) is None
    if size:
        os.pwrite(fd, journal_module._MAGIC.to_bytes(8, "little") + head, 0)
        assert Journal.adopt(fd) is None
    os.close(fd)


def test_what_somebody_could_cut_off_is_not_mapped() -> None:
    """A file whose size can change would end us when it does: it is no journal."""
    journal = Journal.create("test")
    copy = os.memfd_create("test")
    os.pwrite(copy, os.pread(journal.fd, os.fstat(journal.fd).st_size, 0), 0)
    assert Journal.adopt(copy) is None
    os.close(copy)
    journal.close()


def test_an_intake_gives_what_was_taken_wherever_its_memory_begins_anew() -> None:
    """Lines that are taken bit by bit, and used up to the last whole one, are all there: many times its memory."""
    reading, writing = os.pipe()
    intake, used, taken = Intake.create("test"), 0, b""
    line = b"x" * 999 + b"\n"
    for number in range(8 * INTAKE_BYTES // 40_000):
        written = (line * 41)[number % 1_000 : number % 1_000 + 40_000]
        os.write(writing, written)
        intake.take(reading, 1 << 20)
        data = intake.since(used)
        assert data is not None
        assert bytes(data).endswith(written)
        end = bytes(data).rfind(b"\n") + 1
        used, taken = used + end, taken + bytes(data[:end])
        intake.forget(used)
        if number % 7 == 0:
            found = Intake.adopt(intake.fd)
            assert found is not None
            intake = found
    assert intake.taken == 8 * INTAKE_BYTES // 40_000 * 40_000
    assert len(taken) == used
    for fd in (reading, writing):
        os.close(fd)
    intake.close()


def kill_at(number: int) -> Callable[[FrameType, str, object], object]:
    """A trace function that kills this process before the line of that number, counting those of the three modules."""
    files = {module.__file__ for module in (intake_module, journal_module, passage_module)}
    left = number

    def line(_frame: FrameType, event: str, _argument: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    return lambda frame, _event, _argument: line if frame.f_code.co_filename in files else None


def work(pipe: int, intake: Intake, journal: Journal, passage: Passage, out: int) -> None:
    """What an agent does for one instance, from the FIFO to its reader, until nothing is left."""
    if journal.has_turn:
        journal.resume_turn(passage)
    used = int.from_bytes(journal.note, "little")
    while True:
        if (data := intake.since(used)) is not None and (count := bytes(data).rfind(b"\n") + 1):
            journal.room[:count] = data[:count]
            used += count
            journal.commit(count, used.to_bytes(8, "little"))
            intake.forget(used)
        while left := journal.left(passage):
            if not passage.level:
                journal.hand_over(passage, left)
            passage.send(out, 3_000)
        journal.end_turn()
        try:
            intake.take(pipe, 50_000)
        except BlockingIOError:
            return


@pytest.mark.parametrize("first", range(4))
def test_killed_before_any_line_of_it_nothing_is_lost_or_doubled(first: int) -> None:
    """Wherever a process is killed between the pipe and the reader, the next ones bring every byte, once."""
    reading, writing = os.pipe2(os.O_NONBLOCK)
    seen_from, out = os.pipe2(os.O_NONBLOCK)
    for pipe in (writing, out):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
    intake, journal, passage = Intake.create("test"), Journal.create("test"), Passage.create()
    written = seen = b""
    kills, rounds = 0, 120
    for number in range(rounds):
        # The last line of a round ends in the next; some rounds write nothing, so that all memory begins anew.
        lines = b"\n".join(b"%d.%d %s" % (number, line, b"x" * (line % 90)) for line in range(200 * (number % 5 > 0)))
        os.write(writing, lines + b"\n" * (number % 5 == 1))
        written += lines + b"\n" * (number % 5 == 1)
        if (pid := os.fork()) == 0:
            try:  # a child that fails must not go on as a second run of all tests
                if number < rounds - 1:
                    sys.settrace(kill_at(first + 4 * (number * 7 % 40)))  # type: ignore[arg-type]  # its form has no name
                found, kept = Intake.adopt(intake.fd), Journal.adopt(journal.fd)
                assert found is not None
                assert kept is not None
                work(reading, found, kept, Passage(passage.fd), out)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        with suppress(BlockingIOError):
            seen += os.read(seen_from, 1 << 20)
        assert status in (0, signal.SIGKILL), "what was left was not trusted"
        kills += status == signal.SIGKILL
    assert kills > rounds // 2
    assert seen == written[: written.rfind(b"\n") + 1]
    for fd in (reading, writing, seen_from, out):
        os.close(fd)


WITHOUT_MEMORY = """
import os, resource, sys
from agent.linux.intake import Intake
from agent.linux.journal import Journal
kind = {"intake": Intake, "journal": Journal}[sys.argv[1]]
def pages(): return int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages() * resource.getpagesize() + 400_000, resource.RLIM_INFINITY))
mapped, opened, refused = pages(), os.listdir("/proc/self/fd"), 0
for _ in range(400):
    try:
        kind.create("x")
    except OSError:
        refused += 1
print(refused, os.listdir("/proc/self/fd") == opened, pages() - mapped < 50)
"""


@pytest.mark.parametrize("kind", ["intake", "journal"])
def test_what_finds_no_memory_leaves_nothing(kind: str) -> None:
    """It is tried again and again: descriptors and addresses that are taken and not given back would end it."""
    said = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY, kind], check=True, capture_output=True, text=True)
    assert said.stdout == "400 True True\n"
