"""HAProxy's Runtime API, word for word as HAProxy 2.6 speaks it, and as nobody should."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.address import Address
from agent.model.balancer import (
    Add,
    BalancerCommand,
    EnableChecks,
    Look,
    Remove,
    Seen,
    SetAddress,
    SetAdmin,
    SetWeight,
)
from agent.wire import haproxy
from agent.wire.haproxy import Refusal

HERE, SIX = Address("10.0.0.7", 8080), Address("::1", 8080)
INFO = "Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nPid: 27965\nUptime: 0d 0h00m03s\nUptime_sec: 3\nStopping: 0\n\n"
COLUMNS = (
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
    " srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state"
    " bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr"
    " srv_agent_addr srv_agent_port\n"
)
STAT = "# pxname,svname,qcur,qmax,scur,smax,\n"
SEEN = Seen(
    name="h1:web", host="10.0.0.7", port=8080, weight=100, maintenance=False, draining=False, held=False, up=True,
    checks_off=False, sessions=0,
)  # fmt: skip


def state(name: str = "h1:web", *, up: int = 2, admin: int = 0, weight: int = 100, check: int = 6) -> str:
    return f"3 shop 1 {name} 10.0.0.7 {up} {admin} {weight} 1 0 8 2 0 {check} 0 0 0 - 8080 - 0 0 - - 0\n"


def answer(states: str = "", stat: str = "", *, info: str = INFO, columns: str = COLUMNS) -> bytes:
    return f"{info}1\n{columns}{states}\n{STAT}{stat}\n".encode()


SAID: dict[str, tuple[BalancerCommand, bytes]] = {
    "a new server": (Add("h1:web", HERE, 100), b"add server shop/h1:web 10.0.0.7:8080 weight 100 check inter 1s\n"),
    "a new server by IPv6": (Add("h1:web", SIX, 0), b"add server shop/h1:web [::1]:8080 weight 0 check inter 1s\n"),
    "users may come": (SetAdmin("h1:web:2", "ready"), b"set server shop/h1:web:2 state ready\n"),
    "nobody new": (SetAdmin("h1:web", "drain"), b"set server shop/h1:web state drain\n"),
    "a weight": (SetWeight("h1:web", 25), b"set server shop/h1:web weight 25\n"),
    "another address": (SetAddress("h1:web", SIX), b"set server shop/h1:web addr ::1 port 8080\n"),
    "checks": (EnableChecks("h1:web"), b"enable health shop/h1:web\n"),
    "no more": (Remove("h1:web"), b"del server shop/h1:web\n"),
}


@pytest.mark.parametrize(("command", "line"), SAID.values(), ids=SAID)
def test_a_command_is_one_line(command: BalancerCommand, line: bytes) -> None:
    """Each command is what HAProxy's manual calls it; a new server gets the operator's options."""
    assert haproxy.command_line("shop", command, ("check", "inter", "1s")) == line


NEVER_SAID: dict[str, tuple[str, BalancerCommand, tuple[str, ...]]] = {
    "a second command in a name": ("shop", Remove("h1;shutdown sessions server"), ()),
    "a line in a backend": ("shop\nshow env", Remove("h1"), ()),
    "a place in a name": ("shop", Remove("other/h1"), ()),
    "a second command in an option": ("shop", Add("h1", HERE, 1), ("check;show",)),
    "a space in an option": ("shop", Add("h1", HERE, 1), ("check inter",)),
    "a weight of the operator's beside the agent's": ("shop", Add("h1", HERE, 1), ("weight",)),
    "a weight that HAProxy has not": ("shop", SetWeight("h1", 257), ()),
    "no name": ("shop", Remove(""), ()),
    "more than HAProxy reads": ("shop", Add("h1", HERE, 1), ("a" * 128,) * 70),
}


@pytest.mark.parametrize(("backend", "command", "options"), NEVER_SAID.values(), ids=NEVER_SAID)
def test_nothing_else_is_slipped_in(backend: str, command: BalancerCommand, options: tuple[str, ...]) -> None:
    """A name or an option that would end the command, or begin another, is said to nobody."""
    with pytest.raises(ValueError, match=r"no name|no word|no weight|a command of"):
        haproxy.command_line(backend, command, options)


ANSWERED: dict[str, tuple[BalancerCommand, bytes, Refusal | None]] = {
    "added": (Add("h", HERE, 1), b"New server registered.\n\n", None),
    "there already": (
        Add("h", HERE, 1),
        b"Already exists a server with the same name in backend.\n\n",
        Refusal("Already exists a server with the same name in backend."),
    ),
    "done in silence": (SetAdmin("h", "drain"), b"\n", None),
    "gone meanwhile": (SetAdmin("h", "drain"), b"No such server.\n\n", Refusal("No such server.")),
    "removed": (Remove("h"), b"Server deleted.\n", None),
    "removed before": (Remove("h"), b"No such server.\n", None),
    "moved": (SetAddress("h", HERE), b"IP changed from '::1' to '10.0.0.7', no need to change the port by 'x'\n", None),
    "another port": (SetAddress("h", HERE), b"no need to change the addr, port changed from '1' to '2' by 'x'\n", None),
    "not allowed": (
        SetWeight("h", 1),
        b"Permission denied\n\n",
        Refusal("Permission denied", "Give the stats socket `level admin` in HAProxy's configuration."),
    ),
    "static algorithm": (
        Add("h", HERE, 1),
        b"Backend must use a dynamic load balancing to support dynamic servers.\n\n",
        Refusal(
            "Backend must use a dynamic load balancing to support dynamic servers.",
            "Give the backend `balance roundrobin` or `balance leastconn`.",
        ),
    ),
    "nothing where words are due": (
        Add("h", HERE, 1),
        b"",
        Refusal("an empty answer", "See that `sockets` names a stats socket of HAProxy."),
    ),
}


@pytest.mark.parametrize(("command", "told", "expected"), ANSWERED.values(), ids=ANSWERED)
def test_an_answer_is_done_or_a_reason(command: BalancerCommand, told: bytes, expected: Refusal | None) -> None:
    """What HAProxy says to a command is success, or its own words with what to do."""
    assert haproxy.parse_done(command, told) == expected


SEEN_AS: dict[str, tuple[str, str, dict[str, object]]] = {
    "in use": (state(), "shop,h1:web,0,0,3,9,\n", {"sessions": 3}),
    "waiting in its queue counts": (state(), "shop,h1:web,2,0,3,9,\n", {"sessions": 5}),
    "just added": (state(up=0, admin=1, check=2), "shop,h1:web,0,0,0,0,\n",
                   {"up": False, "maintenance": True, "checks_off": True}),
    "disabled in the file": (state(up=0, admin=5), "shop,h1:web,0,0,0,0,\n", {"up": False, "maintenance": True}),
    "drained": (state(admin=8), "shop,h1:web,0,0,0,0,\n", {"draining": True}),
    "its name does not resolve": (state(up=0, admin=0x20), "shop,h1:web,0,0,0,0,\n", {"up": False, "held": True}),
    "its checks fail": (state(up=0), "shop,h1:web,0,0,0,0,\n", {"up": False}),
    "slow start": (state(up=1), "shop,h1:web,0,0,0,0,\n", {}),
    "added between the questions": (state(), "", {"sessions": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("states", "stat", "expected"), SEEN_AS.values(), ids=SEEN_AS)
def test_a_server_is_seen_as_it_is(states: str, stat: str, expected: dict[str, object]) -> None:
    """State, weight, checks and sessions of a server, from one answer of one process."""
    fields = {name: getattr(SEEN, name) for name in Seen.__struct_fields__}
    told = haproxy.parse_look(answer(states, stat))
    assert told == Look(process=27965, uptime_ms=3000, servers=(msgspec.convert(fields | expected, Seen),))


def test_columns_that_newer_versions_have_change_nothing() -> None:
    """HAProxy adds columns at the end from version to version."""
    states, columns = state().replace("\n", " 1 -\n"), COLUMNS.replace("\n", " srv_check_x srv_y\n")
    told = haproxy.parse_look(answer(states, "shop,h1:web,0,0,0,0,\n", columns=columns))
    assert isinstance(told, Look)
    assert told.servers == (SEEN,)


NO_LOOK: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "an empty answer"),
    "no such backend": (f"{INFO}Can't find backend.\n\nNo such proxy.\n\n".encode(), "Can't find backend."),
    "not allowed": (b"Permission denied\n\n", "Permission denied"),
    "a web server": (b"HTTP/1.0 400 Bad request\r\n\r\n<html>\n", "HTTP/1.0 400 Bad request"),
    "a process that ends": (answer(info=INFO.replace("Stopping: 0", "Stopping: 1")), "is stopping"),
    "another format": (answer().replace(b"\n1\n#", b"\n2\n#"), "2"),
    "a column is missing": (answer(columns=COLUMNS.replace("srv_admin_state", "x")), "1"),
    "a line that is cut off": (answer(state()[:40] + "\n"), "1"),
    "a number that is none": (answer(state().replace(" 100 ", " many ")), "1"),
    "no end": (b"x" * (haproxy.ANSWER_BYTES_MAX + 1), "more than"),
    "too many servers": (answer(state() * (haproxy.SERVERS_MAX + 1)), "1"),
}


@pytest.mark.parametrize(("told", "reason"), NO_LOOK.values(), ids=NO_LOOK)
def test_what_is_no_answer_is_refused_in_few_words(told: bytes, reason: str) -> None:
    """Whatever listens there instead of HAProxy, the reason is short and says what to do."""
    refusal = haproxy.parse_look(told)
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason
    assert len(refusal.reason) <= 200
    assert refusal.what_to_do


@given(st.binary(max_size=3000) | st.text(max_size=900).map(lambda text: answer(text, text)))
def test_no_answer_breaks_the_reader(told: bytes) -> None:
    """Hostile bytes are a refusal, or a look; never an error."""
    assert isinstance(haproxy.parse_look(told), Look | Refusal)
    assert isinstance(haproxy.parse_done(Remove("h"), told), Refusal | None)


@given(st.integers(0, len(answer(state(), "shop,h1:web,0,0,0,0,\n"))))
def test_half_an_answer_is_never_a_server_without_sessions(cut: int) -> None:
    """A connection that breaks in the middle drains nobody."""
    whole = answer(state(), "shop,h1:web,0,0,7,0,\n")
    told = haproxy.parse_look(whole[:cut])
    if isinstance(told, Look):
        assert all(server.sessions for server in told.servers)


def test_the_agent_check_hears_one_line() -> None:
    """Ready takes users, drain takes nobody new, down says why in one printable line."""
    assert haproxy.agent_check_line("ready") == b"up ready 100%\n"
    assert haproxy.agent_check_line("drain", "because") == b"drain\n"
    assert haproxy.agent_check_line("down", "no instance\nis ready \xff") == b"down #no instance is ready\n"
    assert haproxy.agent_check_line("down") == b"down\n"
    assert len(haproxy.agent_check_line("down", "x" * 9999)) < 256
