"""What one process wrote and a next one finds: every record once, in order, in little memory."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux import memfd
from agent.linux.journal import Journal

MIB = 1 << 20


def adopted(journal: Journal) -> Journal:
    """As a next process sees it: nothing is known of it but its descriptor."""
    found = Journal.adopt(journal.fd)
    assert found is not None
    return found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 9_000), st.booleans()), max_size=60))
def test_every_record_comes_once_and_in_order(steps: list[tuple[int, int, bool]]) -> None:
    """However much is written and sent at a time, and wherever a next process takes over."""
    reading, writing = os.pipe()
    journal, written, seen = Journal.create("test"), b"", b""
    for step, (count, sent, dies) in enumerate(steps):
        records = [b"%d.%d\n" % (step, number) for number in range(count)]
        journal.append(records, b"%d" % step)
        written += b"".join(records)
        if sent and journal.unsent:
            journal.send(writing, sent)
            seen += os.read(reading, 1 << 16)
        if dies:
            journal = adopted(journal)
            assert journal.note == b"%d" % step
    while journal.unsent:
        journal.send(writing, 1 << 14)
        seen += os.read(reading, 1 << 16)
    assert seen == written
    for fd in (reading, writing, journal.fd):
        os.close(fd)


def test_memory_stays_bounded_and_the_last_records_are_kept() -> None:
    """After a hundred MiB some hundred KiB are left, with the newest records whole."""
    journal, out = Journal.create("test", kept_bytes=100_000), os.open(os.devnull, os.O_WRONLY)
    records = b"".join(b"%06d %s\n" % (number, b"x" * 93) for number in range(10_000))
    for _ in range(100):
        journal.append((records,))
        while journal.unsent:
            journal.send(out, MIB)
    assert os.fstat(journal.fd).st_blocks * 512 < MIB
    last = journal.last()
    assert 90_000 < len(last) <= 256 * 1024
    assert records.endswith(last)
    assert {len(line) for line in last.splitlines()} == {100}
    os.close(out)
    journal.close()


def test_a_record_that_was_sent_in_part_is_completed_or_sent_again() -> None:
    """The next process knows that it stands inside a record, and can go back to its start."""
    reading, writing = os.pipe()
    journal = Journal.create("test")
    journal.append((b"first\nsecond\n",))
    journal.send(writing, 9)
    journal = adopted(journal)
    assert journal.inside_record
    assert journal.next_unsent(100) == b"ond\n"
    journal.send_record_again()
    assert not adopted(journal).inside_record
    assert adopted(journal).next_unsent(100) == b"second\n"
    for fd in (reading, writing, journal.fd):
        os.close(fd)


def test_a_cut_at_the_end_of_a_page_is_seen_however_much_waits() -> None:
    """A position in the middle of a record is known as such, wherever it is, though most before it was given back."""
    out = os.open(os.devnull, os.O_WRONLY)
    journal = Journal.create("test", kept_bytes=10_000)
    record = b"x" * 8_191 + b"\n"
    for _ in range(300):
        journal.append((record,))
    journal.send(out, 256 * 8_192 + memfd.PAGE_BYTES)
    assert journal.inside_record
    assert adopted(journal).inside_record
    journal.send_record_again()
    assert adopted(journal).next_unsent(8_192) == record
    os.close(out)
    journal.close()


@pytest.mark.parametrize(
    ("head", "place"),
    {
        "empty": (b"", 0),
        "zeros": (b"\0" * 8192, 4096),
        "text": (b"something else altogether, of no journal" * 200, 4096),
        "sent beyond the end": (b"rollway1" + (5000).to_bytes(8, "little") + (4096).to_bytes(8, "little"), 6000),
    }.values(),
    ids=str,
)
def test_what_is_no_journal_is_not_trusted(head: bytes, place: int) -> None:
    """A descriptor whose content cannot be right is refused, whatever its name promises."""
    fd = memfd.create("test")
    os.pwrite(fd, head, 0)
    memfd.set_position(fd, place)
    assert Journal.adopt(fd) is None
    os.close(fd)
