"""What processes say by sd_notify, and what the agent says to systemd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import sdnotify
from agent.wire.sdnotify import Notice

SAID = {
    "ready": (b"READY=1", Notice(ready=True)),
    "readiness cannot be taken back": (b"READY=0", Notice()),
    "several lines and a newline at the end": (
        b"READY=1\nSTATUS=up = 3\nMAINPID=71\n",
        Notice(ready=True, status="up = 3", main_pid=71),
    ),
    "more time to stop": (
        b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000",
        Notice(stopping=True, extend_timeout_us=2_000_000),
    ),
    "watchdog": (b"WATCHDOG=1\nWATCHDOG_USEC=500", Notice(watchdog="ping", watchdog_us=500)),
    "watchdog pulled": (b"WATCHDOG=trigger", Notice(watchdog="trigger")),
    "an fd to keep": (
        b"FDSTORE=1\nFDNAME=shop/web/1\nFDPOLL=0",
        Notice(fd_store=True, fd_name="shop/web/1", fd_poll=False),
    ),
    "an fd's name with a colon is none": (b"FDSTORE=1\nFDNAME=0.0.0.0:80", Notice(fd_store=True)),
    "unknown keys are passed over": (b"X_SHOP=1\nREADY=1\nnonsense", Notice(ready=True)),
    "numbers that are none": (b"ERRNO=x\nEXIT_STATUS=\nWATCHDOG_USEC=99999999999999999999", Notice()),
    "a main process that is none is heard": (b"MAINPID=-1\nREADY=1", Notice(ready=True, main_pid=0)),
    "the last of two counts": (b"STATUS=a\nSTATUS=b", Notice(status="b")),
    "bytes that are no UTF-8": (b"STATUS=\xff\nREADY=1", Notice(status="\ufffd", ready=True)),
    "nothing": (b"", Notice()),
}
NUMBERS = st.none() | st.integers(0, sdnotify.NUMBER_MAX)


@pytest.mark.parametrize(("datagram", "expected"), SAID.values(), ids=SAID)
def test_what_is_said_is_understood(datagram: bytes, expected: Notice) -> None:
    """A datagram says what the protocol says it does, and nothing else."""
    assert sdnotify.parse(datagram) == expected


@given(st.binary(max_size=5000))
def test_no_datagram_breaks_the_reader(datagram: bytes) -> None:
    """Whatever a process sends, it is read or passed over."""
    assert isinstance(sdnotify.parse(datagram), Notice)


@given(
    st.builds(
        Notice,
        **dict.fromkeys(("ready", "stopping", "fd_store", "fd_store_remove", "fd_poll", "barrier"), st.booleans()),
        **dict.fromkeys(("extend_timeout_us", "main_pid", "errno", "watchdog_us", "monotonic_us"), NUMBERS),
        watchdog=st.none() | st.sampled_from(["ping", "trigger"]),
        status=st.none()
        | st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=99),
        fd_name=st.none() | st.text(alphabet="abc/.-019", min_size=1, max_size=255),
    )
)
def test_what_the_agent_says_is_read_back(notice: Notice) -> None:
    """Everything that can be said survives the way through a datagram."""
    assert sdnotify.parse(sdnotify.build(notice)) == notice


def test_the_short_ways_to_speak_to_the_store_say_the_same() -> None:
    """What is said for each of hundreds of descriptors is understood like any other notice."""
    assert sdnotify.parse(sdnotify.build_store("shop/web/1")) == Notice(
        fd_store=True, fd_name="shop/web/1", fd_poll=False
    )
    assert sdnotify.parse(sdnotify.build_remove("shop/web/1")) == Notice(fd_store_remove=True, fd_name="shop/web/1")
