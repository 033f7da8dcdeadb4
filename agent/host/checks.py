"""What is not right on a host, and what to do: each thing that an agent needs, looked at from outside of it.

Rules: nothing here needs an agent that runs; a thing that cannot be looked at is told as such, never as well. Judging
is pure: what was seen comes in, a `Finding` comes out. Looking blocks.
"""

import http.client
import os
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from msgspec import Struct

from agent.errors import RollwayError
from agent.link.tls import client_context
from agent.linux import cgroup, clock, fence, users
from agent.model.assignment import SLOW_START_MS
from agent.model.roles import AgentSettings
from agent.model.units import Milliseconds
from agent.wire.control import AgentStatus, Row

CONNECT_S: Final = 5.0
DAY_S: Final = 86_400
EXPIRES_SOON_DAYS: Final = 7
FREE_SHARE_MIN: Final = 0.05
FREE_BYTES_MIN: Final = 512 << 20
CLOCK_OFF_S_MAX: Final = 30
TOLD_CHARACTERS_MAX: Final = 1_000
CONTROLLERS: Final = frozenset({"memory", "pids", "cpu"})


class Finding(Struct, frozen=True, kw_only=True):
    """One thing, how it was found, and, where that is not right, what to do."""

    check: str
    found: str
    what_to_do: str = ""

    @property
    def well(self) -> bool:
        return not self.what_to_do


class Answer(Struct, frozen=True):
    """What one coordinator said: its clock in seconds since 1970 when we looked; or why nothing came."""

    url: str
    clock_s: float | None = None
    reason: str = ""


def agent(status: AgentStatus) -> Finding:
    found = f"pid {status.pid}, version {status.version}"
    if status.drained:
        return Finding(check="agent", found=f"{found}; the host is drained", what_to_do="`rollway agent undrain`.")
    return Finding(check="agent", found=f"{found}, since {_moment(status.since_ms)}")


def link(status: AgentStatus) -> Finding:
    since = f"since {_moment(status.link_since_ms)}" if status.link_since_ms else "since the agent was started"
    if status.linked:
        return Finding(check="link", found=f"connected {since}")
    why = f": {_printable(status.link_reason)}" if status.link_reason else ""
    return Finding(
        check="link",
        found=f"not connected {since}; what runs goes on{why}",
        what_to_do=_printable(status.link_what_to_do) or "See below whether a coordinator answers.",
    )


def starts(rows: Iterable[Row]) -> list[Finding]:
    """Instances that took long to become ready: so long every swap waits for them, and every restart is felt."""
    return [
        Finding(
            check="start",
            found=f"{row.instance} of {row.app} {row.environment} took {row.start_ms // 1_000} s to become ready",
            what_to_do=f"Let it do less before it is ready: over {SLOW_START_MS // 1_000} s is long.",
        )
        for row in rows
        if row.start_ms is not None and row.start_ms > SLOW_START_MS
    ]


def apps(*, is_started: bool) -> Finding:
    """Instances live in a unit of their own, which nothing starts but a person or the boot."""
    if is_started:
        return Finding(check="apps", found=f"{cgroup.APPS_UNIT} is started")
    return Finding(
        check="apps",
        found=f"{cgroup.APPS_UNIT} is not started: no instance can be",
        what_to_do="`systemctl enable --now rollway-apps`.",
    )


def pins(status: AgentStatus) -> list[Finding]:
    """Apps that stay at a release whatever is assigned: whoever did it may have gone home."""
    return [
        Finding(
            check="pin",
            found=f"{pin.app} {pin.environment} is pinned to {pin.release}: assignments do not count here",
            what_to_do=f"`rollway agent unpin {pin.app} {pin.environment}`, once they are to count again.",
        )
        for pin in status.pins
    ]


def coordinators(answers: list[Answer]) -> Finding:
    told = "; ".join(f"{one.url} {one.reason or 'answers'}" for one in answers) or "none is named"
    if any(one.clock_s is not None for one in answers):
        return Finding(check="coordinator", found=told)
    return Finding(
        check="coordinator", found=told, what_to_do="Look at the network, at `coordinators`, and whether one runs."
    )


def time(answers: list[Answer], now_s: float) -> Finding:
    """Against the first coordinator that answers; its seconds are whole ones."""
    theirs = next((one.clock_s for one in answers if one.clock_s is not None), None)
    if theirs is None:
        return Finding(check="clock", found="not compared: no coordinator answers")
    off_s = now_s - theirs
    found = f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} the coordinator's"
    if abs(off_s) > CLOCK_OFF_S_MAX:
        return Finding(check="clock", found=found, what_to_do="Set it: `timedatectl set-ntp true`.")
    return Finding(check="clock", found=found if abs(off_s) > 1 else "as the coordinator's")


def certificate(not_after_s: float | None, now_s: float, reason: str = "") -> Finding:
    if not_after_s is None:
        return Finding(check="certificate", found=reason, what_to_do="Join the host again: `rollway agent join`.")
    days = (not_after_s - now_s) / DAY_S
    found = f"{'expired' if days < 0 else 'valid until'} {_moment(round(not_after_s * 1000))}"
    if days < EXPIRES_SOON_DAYS:
        return Finding(check="certificate", found=found, what_to_do="Give the host a new one, and restart its agent.")
    return Finding(check="certificate", found=found)


def disk(folder: Path, free_bytes: int, all_bytes: int) -> Finding:
    found = f"{free_bytes / (1 << 30):.1f} GiB free of {all_bytes / (1 << 30):.1f} at {folder}"
    if free_bytes < min(FREE_BYTES_MIN, FREE_SHARE_MIN * all_bytes):
        what_to_do = "Free space (`df -h`): states are not stored, and nothing new is begun, once it is full."
        return Finding(check="disk", found=found, what_to_do=what_to_do)
    return Finding(check="disk", found=found)


def controllers(there: frozenset[str] | None) -> Finding:
    """Limits are the app's own wish: without controllers they are refused, which is not wrong by itself."""
    if there is None:
        return Finding(check="cgroups", found="no cgroup v2: trees are ended by a walk of /proc, limits are refused")
    missing = ", ".join(sorted(CONTROLLERS - there))
    return Finding(check="cgroups", found=f"v2, without {missing}" if missing else "v2, with cpu, memory and pids")


def sandbox(there: fence.Means) -> Finding:
    """As with limits, only who asks for it is refused where it is missing."""
    keeps = "sandbox.writable is kept" if there.suffice else "sandbox.writable is refused"
    return Finding(check="sandbox", found=f"{keeps}: {there}")


def apps_user(name: str | None, *, is_root: bool) -> Finding:
    """Who the apps are that name no user: root where the host was never given one for them, which is not wrong."""
    if not is_root:
        return Finding(check="user", found="not known: only root can tell")
    missing = f"root: this host has no user {users.APPS} (systemd-sysusers makes it)"
    return Finding(check="user", found=f"apps that name no user run as {name or missing}")


def of_settings(settings: AgentSettings) -> list[Finding]:
    """What the agent's settings name, seen without the agent."""
    now_s = clock.now().wall_ms / 1000
    answers = [_ask(url, settings) for url in settings.coordinators]
    return [coordinators(answers), time(answers, now_s), _certificate(Path(settings.tls.certificate), now_s)]


def of_machine(settings: AgentSettings) -> list[Finding]:
    """What the machine gives, seen without the agent."""
    folder = next(one for one in (Path(settings.state_dir), *Path(settings.state_dir).parents) if one.exists())
    space = os.statvfs(folder)
    return [
        disk(folder, space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize),
        controllers(cgroup.controllers()),
        apps_user(users.of_apps(), is_root=os.geteuid() == 0),
        sandbox(fence.means()),
    ]


def _certificate(path: Path, now_s: float) -> Finding:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except PermissionError as error:
        return Finding(check="certificate", found=f"cannot read {path}: {error.strerror}", what_to_do="Ask as root.")
    except OSError as error:
        return certificate(None, now_s, f"cannot read {path}: {error.strerror}")
    except ValueError as error:
        return certificate(None, now_s, f"cannot read {path}: {error}")
    return certificate(found.not_valid_after_utc.timestamp(), now_s)


def _ask(url: str, settings: AgentSettings) -> Answer:
    """Its clock, by an answer to any question, over the TLS that the agent has with it."""
    parts = urlsplit(url)
    try:
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=CONNECT_S, context=client_context(settings.tls)
        )
        connection.request("GET", "/livez")
        date = connection.getresponse().headers["Date"]
        connection.close()
        return Answer(url, parsedate_to_datetime(date).timestamp())
    except ssl.SSLCertVerificationError as error:
        return Answer(url, reason=f"cannot be trusted: {error.verify_message}")
    except RollwayError as error:
        return Answer(url, reason=f"was not asked: {error.error}")
    except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
        return Answer(
            url, reason=f"does not answer: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"
        )


def _printable(told: str) -> str:
    """What another machine said, for a terminal."""
    return "".join(c if c.isprintable() else " " for c in told[:TOLD_CHARACTERS_MAX])


def _moment(moment_ms: Milliseconds) -> str:
    return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
