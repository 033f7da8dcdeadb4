"""Files that are whole or not there, and pipes that do not break."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.linux import atomic, clock, fifo
from agent.linux.removal import remove_tree
from agent.linux.spawn import SETPRIV
from tests.integration.linux.conftest import Start


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """A record has its new content and mode, and nothing else is left in the folder."""
    record = tmp_path / "record"
    atomic.write_atomically(record, b"one")
    atomic.write_atomically(record, b"two", mode=0o644)
    assert atomic.read(record) == b"two"
    assert record.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["record"]


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    """A failure leaves the old state, without litter."""
    (tmp_path / "record" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="record"):
        atomic.write_atomically(tmp_path / "record", b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["record"]


def test_a_page_is_the_old_or_the_new_wherever_its_writer_is_killed(tmp_path: Path) -> None:
    """Never half of either: a process writes one after the other without end, and is killed again and again."""
    record, pages = tmp_path / "record", [letter * atomic.PAGE_BYTES for letter in (b"a", b"b")]
    atomic.write_atomically(record, pages[0], lasting=False)
    seen: set[bytes] = set()
    for looks in range(200):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                os.write(writing, b"x")
                while True:
                    for page in pages:
                        atomic.write_page(str(record), page)
            finally:
                os._exit(1)
        assert os.read(reading, 1) == b"x"
        for _ in range(looks % 50):
            record.stat()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        seen.add(atomic.read(record))
        os.close(reading)
        os.close(writing)
    assert seen <= set(pages)


def test_of_two_who_create_one_wins(tmp_path: Path) -> None:
    """What must not be there yet is made once; the second is told so and changes nothing."""
    atomic.create_exclusive(tmp_path / "key", b"first")
    with pytest.raises(FileExistsError):
        atomic.create_exclusive(tmp_path / "key", b"second")
    assert atomic.read(tmp_path / "key") == b"first"
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    """A bound is kept, whatever somebody has put there."""
    atomic.write_atomically(tmp_path / "file", b"12345")
    assert atomic.read(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        atomic.read(tmp_path / "file", 4)


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    """Deeper than a path may be long, and than calls may nest."""
    before = Path.cwd()
    (tmp_path / "top").mkdir()
    os.chdir(tmp_path / "top")
    try:
        for _ in range(3_000):
            Path("deeper").mkdir()
            Path("deeper/file").touch()
            os.chdir("deeper")
    finally:
        os.chdir(before)
    remove_tree(tmp_path / "top")
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_a_tree_is_removed_though_it_is_closed_and_nothing_is_that_it_leads_to(tmp_path: Path) -> None:
    """A plain user removes read-only folders, as caches leave them; what links lead to stays as it is."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "inside").mkdir(parents=True)
    elsewhere.chmod(0o500)
    top = tmp_path / "top"
    (top / "cache" / "module" / "inside").mkdir(parents=True)
    (top / "cache" / "module" / "file").touch()
    (top / "link").symlink_to(elsewhere)
    (top / "loop").symlink_to("loop")
    for folder, mode in {"cache/module": 0o555, "cache": 0, ".": 0}.items():
        (top / folder).chmod(mode)
    program = f"from pathlib import Path; from agent.linux.removal import remove_tree; remove_tree(Path({str(top)!r}))"
    plain = [SETPRIV, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    words = [*(plain if os.geteuid() == 0 else ()), sys.executable, "-c", program]
    subprocess.run(words, check=True, cwd=Path(__file__).parents[3])
    assert [one.name for one in tmp_path.iterdir()] == ["elsewhere"]
    assert elsewhere.stat().st_mode & 0o777 == 0o500
    remove_tree(tmp_path / "elsewhere")


def test_an_instance_outlives_the_reader_of_its_log(tmp_path: Path, start: Start) -> None:
    """An app writes on while nobody reads, is not ended by it, and the next reader gets every line."""
    fifo.make(tmp_path / "log")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    first = fifo.open_reader(tmp_path / "log")
    writer = fifo.open_for_child(tmp_path / "log")
    assert fifo.enlarge(writer) == fifo.PIPE_BYTES
    go = tmp_path / "go"
    fifo.make(go)
    fifo.make(tmp_path / "go.never")
    process = start(
        "/bin/sh",
        "-c",
        'echo one >&2; echo up; read _ <"$0"; echo two >&2; echo done; read _ <"$0.never"',
        str(go),
        stderr=writer,
    )
    os.close(writer)
    assert process.line() == "up"
    os.close(first)
    with go.open("wb") as gate:
        gate.write(b"\n")
    assert process.line() == "done"
    second = fifo.open_reader(tmp_path / "log")
    assert os.read(second, 100) == b"one\ntwo\n"
    os.close(second)


def test_a_pipe_that_the_kernel_refuses_to_enlarge_is_reported(tmp_path: Path) -> None:
    """Where a larger pipe is not to be had, the size that it has is told."""
    fifo.make(tmp_path / "log")
    writer = fifo.open_for_child(tmp_path / "log")
    os.write(writer, b"x" * 60_000)
    assert fifo.enlarge(writer, 4096) == 65_536
    os.close(writer)


def test_the_clock_tells_the_boot_and_does_not_go_back() -> None:
    """Two looks at the clock of one boot are in order, and the text is UTC in milliseconds."""
    first, second = clock.now(), clock.now()
    assert first.boot_id == second.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert first.boottime_ms <= second.boottime_ms
    assert len(clock.timestamp()) == len("2025-12-09T10:30:00.123Z")
    assert clock.timestamp().endswith("Z")
