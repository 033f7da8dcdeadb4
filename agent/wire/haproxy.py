"""HAProxy's Runtime API: commands as it reads them, its answers as values; and the line that its agent-check reads.

Rules: one connection says one line, and its answer ends with the connection. An answer has no status: each command has
words that mean success, and everything else is a refusal whose first line is told. Columns are found by their names,
for newer versions have more of them. Not handled here: the socket, time, what to say.
"""

import csv
import re
from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

from agent.model.balancer import (
    WEIGHT_MAX,
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

ANSWER_BYTES_MAX: Final = 1 << 20
LINE_BYTES_MAX: Final = 8_192
"""HAProxy cuts a command at the size of its buffer, 16 KiB unless it was built or set otherwise."""
SERVERS_MAX: Final = 4_096
_REASON_CHARACTERS_MAX: Final = 200
_NUMBER_MAX: Final = 2**63 - 1

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_OPTION: Final = re.compile(r"[A-Za-z0-9_./:%,@=+~-]{1,128}")
_SETS_ITSELF: Final = frozenset({"weight", "disabled", "enabled", "backup", "track", "cookie", "id"})
"""Words after `server` that are not the operator's to give: the agent's own, or such that a server is never alone."""

# Bits of srv_admin_state. What is inherited (from a server that is tracked, a name that does not resolve) stays.
_FORCED_MAINTENANCE: Final = 0x01 | 0x04
_FORCED_DRAIN: Final = 0x08
_HELD: Final = 0x02 | 0x10 | 0x20 | 0x40
# srv_op_state: stopped, starting (slowstart: it has users), running, stopping (no new ones).
_UP: Final = frozenset({1, 2})
# Bits of srv_check_state.
_CHECK_CONFIGURED: Final = 0x02
_CHECK_ENABLED: Final = 0x04

_STATE_FORMAT: Final = "1"
_STATE_COLUMNS: Final = (
    "srv_name",
    "srv_addr",
    "srv_port",
    "srv_op_state",
    "srv_admin_state",
    "srv_uweight",
    "srv_check_state",
)


class Refusal(Struct, frozen=True):
    """HAProxy's own words for why not, and what a person does about it."""

    reason: str
    what_to_do: str = "See `show servers state` on HAProxy's stats socket."


_DONE: Final = {
    Add: ("New server registered",),
    Remove: ("Server deleted", "No such server"),
    SetAddress: ("IP changed from", "no need to change the addr", "nothing changed"),
}

_ADVICE: Final = (
    ("permission denied", "Give the stats socket `level admin` in HAProxy's configuration."),
    ("can't find backend", "Name a backend of HAProxy's configuration in [load_balancer]."),
    ("no such backend", "Name a backend of HAProxy's configuration in [load_balancer]."),
    ("dynamic load balancing", "Give the backend `balance roundrobin` or `balance leastconn`."),
    ("unknown command", "Use HAProxy 2.6 or newer: it adds and removes servers at runtime."),
    ("unknown keyword", "Take the word out of `options` in [load_balancer]."),
)


def is_server_name(text: str) -> bool:
    """Whether HAProxy takes `text` as the name of a backend or a server, and its command line as one word."""
    return _NAME.fullmatch(text) is not None


def is_server_option(text: str) -> bool:
    """Whether `text` can be a word of `options`: one word of the command line that the agent does not say itself."""
    return _OPTION.fullmatch(text) is not None and text not in _SETS_ITSELF


# What is said


def look_line(backend: str) -> bytes:
    """Ask for all that `parse_look` reads, by one line: so that one process answers it, not two of a reload."""
    return _line(f"show info;show servers state {_named(backend)};show stat {_named(backend)} 4 -1")


def command_line(backend: str, command: BalancerCommand, options: Sequence[str] = ()) -> bytes:
    """Say one command; `options` are the words that a new server gets. Raises ValueError for what is no word."""
    place = f"{_named(backend)}/{_named(command.server)}"
    match command:
        case Add(address=address, weight=weight):
            if wrong := [option for option in options if not is_server_option(option)]:
                raise ValueError(f"no word for a server: {wrong[0]!r}")
            return _line(" ".join((f"add server {place} {address} weight {_weight(weight)}", *options)))
        case SetAdmin(state=state):
            return _line(f"set server {place} state {state}")
        case SetWeight(weight=weight):
            return _line(f"set server {place} weight {_weight(weight)}")
        case SetAddress(address=address):
            return _line(f"set server {place} addr {address.host} port {address.port}")
        case EnableChecks():
            return _line(f"enable health {place}")
        case Remove():
            return _line(f"del server {place}")


def agent_check_line(state: Literal["ready", "drain", "down"], reason: str = "") -> bytes:
    """Answer HAProxy's agent-check. `ready` takes back what drain or maintenance said before; a reason goes to its log.

    Only `down` carries one: HAProxy reads words up to `#`, and the others need nobody's attention.
    """
    if state == "ready":
        return b"up ready 100%\n"
    if state == "drain":
        return b"drain\n"
    told = " ".join("".join(one if " " <= one <= "~" else " " for one in reason).split())[:_REASON_CHARACTERS_MAX]
    return f"down #{told}\n".encode() if told else b"down\n"


def _named(text: str) -> str:
    if not is_server_name(text):
        raise ValueError(f"no name of a backend or server: {text!r}")
    return text


def _weight(weight: int) -> int:
    if not 0 <= weight <= WEIGHT_MAX:
        raise ValueError(f"no weight of a server: {weight}")
    return weight


def _line(text: str) -> bytes:
    line = text.encode("ascii") + b"\n"
    if len(line) > LINE_BYTES_MAX:
        raise ValueError(f"a command of {len(line)} bytes")
    return line


# What is heard


def parse_done(command: BalancerCommand, answer: bytes) -> Refusal | None:
    """Read the answer to a command: None where it was done, or was done before."""
    text = _text(answer).strip()
    if isinstance(command, SetAdmin | SetWeight | EnableChecks):
        return _refusal(text) if text else None
    return None if text.startswith(_DONE[type(command)]) else _refusal(text)


def parse_look(answer: bytes) -> Look | Refusal:
    """Read the answer to `look_line`. What is no such answer, or too much of one, is a refusal."""
    if len(answer) > ANSWER_BYTES_MAX:
        return Refusal(f"an answer of more than {ANSWER_BYTES_MAX} bytes", "See that `sockets` names a stats socket.")
    parts = [part for part in _text(answer).split("\n\n") if part.strip()]
    if len(parts) != 3:  # noqa: PLR2004 - one part for each of the three questions
        return _refusal(parts[0] if parts else "")
    said = dict(_pair(line) for line in parts[0].splitlines())
    process, uptime_s = _number(said.get("Pid", "")), _number(said.get("Uptime_sec", ""))
    if process is None or uptime_s is None:
        return _refusal(parts[0])
    if said.get("Stopping", "0") != "0":
        return Refusal("this process of HAProxy is stopping", "Start HAProxy, or take it out of `sockets`.")
    sessions = _sessions(parts[2])
    servers = _servers(parts[1], sessions or {})
    if servers is None or sessions is None:
        return _refusal(parts[1] if servers is None else parts[2])
    return Look(process=process, uptime_ms=uptime_s * 1000, servers=servers)


def _servers(text: str, sessions: dict[str, int]) -> tuple[Seen, ...] | None:
    lines = text.strip().splitlines()
    if len(lines) < 2 or lines[0] != _STATE_FORMAT or not lines[1].startswith("# "):  # noqa: PLR2004 - format, columns
        return None
    columns = lines[1][2:].split()
    if any(column not in columns for column in _STATE_COLUMNS) or len(lines) - 2 > SERVERS_MAX:
        return None
    servers: list[Seen] = []
    for line in lines[2:]:
        fields = line.split(" ")
        server = _server(dict(zip(columns, fields, strict=True)), sessions) if len(fields) == len(columns) else None
        if server is None:
            return None
        servers.append(server)
    return tuple(servers)


def _server(said: dict[str, str], sessions: dict[str, int]) -> Seen | None:
    numbers = [_number(said[column]) for column in _STATE_COLUMNS[2:]]
    if None in numbers or not said["srv_name"]:
        return None
    port, operational, admin, weight, check = (number or 0 for number in numbers)
    return Seen(
        name=said["srv_name"],
        host=said["srv_addr"],
        port=port,
        weight=weight,
        maintenance=bool(admin & _FORCED_MAINTENANCE),
        draining=bool(admin & _FORCED_DRAIN),
        held=bool(admin & _HELD),
        up=operational in _UP,
        checks_off=check & (_CHECK_CONFIGURED | _CHECK_ENABLED) == _CHECK_CONFIGURED,
        # Of a server that appeared between the two questions nothing is known yet: as if somebody were there.
        sessions=sessions.get(said["srv_name"], 1),
    )


def _sessions(text: str) -> dict[str, int] | None:
    """Sessions of each server: those that it serves, and those that wait in its own queue."""
    if not text.lstrip().startswith("# pxname,"):
        return None
    try:
        rows = list(csv.DictReader(text.strip()[2:].splitlines()))
    except csv.Error:
        return None
    found: dict[str, int] = {}
    for row in rows:
        current, queued = _number(row.get("scur") or ""), _number(row.get("qcur") or "")
        if not row.get("svname") or current is None or queued is None:
            return None
        found[row["svname"]] = current + queued
    return found


def _refusal(text: str) -> Refusal:
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    reason = "".join(one if one.isprintable() else "?" for one in first)[:_REASON_CHARACTERS_MAX]
    advice = next((advice for words, advice in _ADVICE if words in reason.lower()), None)
    if not reason:
        return Refusal("an empty answer", "See that `sockets` names a stats socket of HAProxy.")
    return Refusal(reason, advice) if advice else Refusal(reason)


def _text(answer: bytes) -> str:
    return answer[: ANSWER_BYTES_MAX + 1].decode("utf-8", errors="replace").replace("\r", "")


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_NUMBER_MAX))):
        return None
    return int(text)
