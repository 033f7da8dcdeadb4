"""Descriptors that a service manager keeps: what is asked of it, and what comes back from it."""

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux import fdstore
from agent.linux.fdstore import FdStore, Inherited
from tests.integration.limits import no_more_fds

FREE_FROM = 3_000


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager hears."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(10)
        yield heard


def test_a_descriptor_is_put_under_a_name_and_never_polled(manager: socket.socket) -> None:
    """The very file arrives, with its name, and with the word that keeps systemd from dropping it at a hang-up."""
    store = FdStore(manager.getsockname())
    reading, writing = os.pipe()
    store.put("shop.production.web.1/pidfd", reading)
    said, fds, _, _ = socket.recv_fds(manager, 4096, 4)
    assert said == b"FDSTORE=1\nFDNAME=shop.production.web.1/pidfd\nFDPOLL=0"
    (kept,) = fds
    assert os.fstat(kept).st_ino == os.fstat(reading).st_ino
    store.drop("shop.production.web.1/pidfd")
    assert manager.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=shop.production.web.1/pidfd"
    for fd in (reading, writing, kept):
        os.close(fd)


def test_what_is_kept_can_be_taken_out_when_no_descriptor_is_left(manager: socket.socket) -> None:
    """An instance that has ended is forgotten by the service manager also then."""
    store = FdStore(manager.getsockname())
    with no_more_fds(above=1):  # poll(2) refuses more entries than the limit
        store.drop("shop.production.web.1/pidfd")
    assert manager.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=shop.production.web.1/pidfd"


def test_a_barrier_is_lifted_when_all_before_it_is_done(manager: socket.socket) -> None:
    """It waits for the manager to close what came with it."""
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(FdStore(manager.getsockname()).barrier()))
    waiting.start()
    said, fds, _, _ = socket.recv_fds(manager, 4096, 4)
    assert (said, results) == (b"BARRIER=1", [])
    os.close(fds[0])
    waiting.join(10)
    assert results == [True]


def test_without_a_manager_nothing_is_kept_and_nothing_fails(tmp_path: Path) -> None:
    """Neither no manager at all nor one that is gone stops anybody."""
    assert not FdStore(None).keeps
    assert not FdStore(None).barrier()
    FdStore(str(tmp_path / "gone")).put("name", 1)


def test_what_comes_back_is_found_by_name_and_is_not_inherited_further() -> None:
    """Names that were given twice come twice; what nobody takes is closed; the words are gone from the environment."""
    with open(os.devnull, "rb") as null:  # noqa: PTH123 - a device
        # Numbers that nobody has: whoever lost one here would close somebody else's later.
        held = [fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, FREE_FROM) for _ in range(3)]
    assert held == list(range(held[0], held[0] + 3))
    words = {"LISTEN_FDS": "3", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "one:two:one"}
    for fd in held:
        os.set_inheritable(fd, True)  # noqa: FBT003 - the standard library's own order
    found = fdstore.inherited(words, held[0])
    assert words == {}
    assert found.names() == ["one", "two"]
    assert {found.take("one"), found.take("one")} == {held[0], held[2]}
    assert found.take("one") is None
    assert not any(map(os.get_inheritable, held))
    found.drop_rest(FdStore(None))
    assert found.names() == []
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(held[1])
    os.close(held[0])
    os.close(held[2])


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_descriptors_of_another_process_are_not_taken(pid: str) -> None:
    """LISTEN_PID says for whom they are."""
    words = {"LISTEN_FDS": "1", "LISTEN_PID": pid, "LISTEN_FDNAMES": "stdin"}
    assert fdstore.inherited(words).names() == Inherited({}).names()
