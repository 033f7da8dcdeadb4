"""What `rollway dev` decides: which types, how many, in what order, with which environment, in which words."""

import pytest
from msgspec.structs import replace

from agent.decisions.swap.state import InstanceView, Route
from agent.errors import RollwayError, UsageError
from agent.local.dev import plan
from agent.local.dev.environment import File, environment, refuse_missing
from agent.local.dev.plan import Asked, chosen
from agent.local.dev.words import told
from agent.model.address import Address
from agent.model.assignment import InstanceState
from agent.model.ids import AppName, ProcessName, ReleaseName
from agent.model.process import AppSpec, ConfigKey, HttpCheck, Probe, Probes, ProcessType, RestartPolicy
from agent.model.units import Instant

WEB, WORKER, DB = ProcessName("web"), ProcessName("worker"), ProcessName("db")
SHOP = AppSpec(
    app=AppName("shop"),
    processes=(
        ProcessType(name=WEB, command="serve", count=4, listen=("0.0.0.0:8080", "[::]:8443"), after=(DB, WORKER)),
        ProcessType(name=WORKER, command="work", count=2),
        ProcessType(name=DB, command="store", listen=("127.0.0.1:5432",)),
    ),
)
ANYWHERE = "0.0.0.0"  # noqa: S104 - compared, not bound
PORT = replace(SHOP, processes=(ProcessType(name=WEB, command="serve", listen=("0.0.0.0:5000",), bind="port"),))


def at(ms: int) -> Instant:
    return Instant(boot_id="b", boottime_ms=ms, wall_ms=ms)


def view(process: ProcessName, state: InstanceState, slot: int = 1, detail: str = "", since: int = 0) -> InstanceView:
    return InstanceView(
        process=process, slot=slot, release=ReleaseName("dev"), state=state, since=at(since), launched=at(0),
        detail=detail,
    )  # fmt: skip


CHOICES = {
    "all types, one each": (Asked(), {WEB: 1, WORKER: 1, DB: 1}),
    "all types, as many as is declared": (Asked(every=True), {WEB: 4, WORKER: 2, DB: 1}),
    "one type": (Asked(types=("worker",)), {WORKER: 1}),
    "a count over the one that is declared": (Asked(every=True, counts={"web": 3}), {WEB: 3, WORKER: 2, DB: 1}),
    "none of a type": (Asked(counts={"worker": 0}), {WEB: 1, DB: 1}),
}


@pytest.mark.parametrize(("asked", "counts"), CHOICES.values(), ids=list(CHOICES))
def test_types_and_counts(asked: Asked, counts: dict[ProcessName, int]) -> None:
    """What runs is what was asked for, in the order of the file."""
    assert {process.name: process.count for process in chosen(SHOP, asked)} == counts


REFUSED = {
    "a type that is not there": (SHOP, Asked(types=("sheduler",)), "web, worker, db"),
    "a count for a type that is not to run": (SHOP, Asked(types=("web",), counts={"db": 1}), "db has a count"),
    "two that bind one port": (PORT, Asked(counts={"web": 2}), "a port has one owner"),
    "too many": (SHOP, Asked(counts={"web": 1000}), "0 to 64"),
    "nothing at all": (SHOP, Asked(types=("web",), counts={"web": 0}), "nothing is to be run"),
}


@pytest.mark.parametrize(("spec", "asked", "said"), REFUSED.values(), ids=list(REFUSED))
def test_refused(spec: AppSpec, asked: Asked, said: str) -> None:
    """What cannot be run is refused, and says why."""
    with pytest.raises(UsageError, match=said):
        chosen(spec, asked)


def test_addresses_are_ones_own() -> None:
    """A wildcard becomes loopback, or what --host says; --port moves the first address alone."""
    web, _, db = chosen(SHOP, Asked(port=9000))
    assert plan.addresses(web, "127.0.0.1") == (Address("127.0.0.1", 9000), Address("127.0.0.1", 8443))
    assert plan.addresses(db, ANYWHERE) == (Address("127.0.0.1", 5432),)
    (own,) = chosen(PORT, Asked(port=9000))
    assert plan.addresses(own, "127.0.0.1") == (Address(ANYWHERE, 9000),)


def test_where_it_is_found() -> None:
    """A person can follow the address that is told; what speaks no HTTP is no link."""
    web, _, db = SHOP.processes
    probe = Probes(readiness=Probe(check=HttpCheck(path="/")))
    assert plan.url(web, Address(ANYWHERE, 80)) == "http://127.0.0.1:80"
    assert plan.url(db, Address("127.0.0.1", 5432)) == "127.0.0.1:5432"
    assert plan.url(replace(db, probes=probe), Address("::", 80)) == "http://[::1]:80"


def test_nobody_waits_minutes_for_the_next_try() -> None:
    """Restarts are those of the file, but never more than ten seconds away."""
    slow = RestartPolicy(base_delay_ms=60_000, max_delay_ms=300_000, policy="on-failure")
    spec = replace(SHOP, processes=(ProcessType(name=WEB, command="x", restart=slow),))
    (web,) = chosen(spec, Asked())
    assert (web.restart.base_delay_ms, web.restart.max_delay_ms, web.restart.policy) == (10_000, 10_000, "on-failure")


def names(types: tuple[ProcessType, ...]) -> list[str]:
    return [one.name for one in types]


def test_order() -> None:
    """A type begins when all before it were ready, and is stopped when none after it is left."""
    types = chosen(SHOP, Asked(counts={"worker": 2}))
    assert names(plan.beginning(types, (), ())) == [WORKER, DB]
    assert names(plan.beginning(types, (WORKER, DB), {(WORKER, 1), (DB, 1)})) == []
    assert names(plan.beginning(types, (WORKER, DB), {(WORKER, 1), (WORKER, 2), (DB, 1)})) == [WEB]
    running = [view(WEB, "ready"), view(WORKER, "backoff"), view(DB, "ready")]
    assert [one.process for one in plan.ending(types, running)] == [WEB]
    stopped = [view(WEB, "stopped"), view(WORKER, "backoff"), view(DB, "draining")]
    assert [one.process for one in plan.ending(types, stopped)] == [WORKER, DB]
    (alone,) = chosen(SHOP, Asked(types=("web",)))
    assert names(plan.beginning((alone,), (), ())) == [WEB]


def test_connections() -> None:
    """They go to who is ready, wait a while for who is starting, and are refused then, or where that is declared."""
    web = SHOP.processes[0]
    starting = [view(WEB, "starting", 1), view(WEB, "backoff", 2), view(DB, "ready")]
    assert plan.route(web, starting, at(9_000)) == Route(process=WEB, admitted=(), waiting=(1, 2))
    assert plan.route(web, starting, at(10_000)) == Route(process=WEB, admitted=(), waiting=())
    some = [*starting, view(WEB, "ready", 3)]
    assert plan.route(web, some, at(9_000)) == Route(process=WEB, admitted=(3,), waiting=())
    refusing = replace(web, when_none_ready="refuse")
    assert plan.route(refusing, starting, at(0)) == Route(process=WEB, admitted=(), waiting=())


def test_environment() -> None:
    """The shell's stands over the files, a later file over an earlier; what only an agent gives stays out."""
    shell = {
        "HOME": "/h", "A": "shell", "NOTIFY_SOCKET": "/run/x", "LISTEN_FDS": "1", "BASH_FUNC_x%%": "()", "SHLVL": "2"
    }  # fmt: skip
    files = [File("a.env", "A=1\nB=1\nC=1\nPORT=81\n"), File("b.env", "B=2\n")]
    seen = environment(shell, files, coloured=False)
    assert seen.config == {"HOME": "/h", "A": "shell", "B": "2", "C": "1", "PYTHONUNBUFFERED": "1"}
    assert seen.port == 81
    assert environment({"PORT": "82"}, files, coloured=False).port == 82
    assert environment({}, [], coloured=True).config["FORCE_COLOR"] == "1"
    assert environment({"FORCE_COLOR": "0"}, [], coloured=True).config["FORCE_COLOR"] == "0"


@pytest.mark.parametrize(("shell", "text"), [({"PORT": "x"}, ""), ({}, "PORT=70000"), ({}, "a b c"), ({}, "lower=1")])
def test_a_wrong_environment_is_refused(shell: dict[str, str], text: str) -> None:
    """A port that is none, a line that is none, a name that config cannot have."""
    with pytest.raises(RollwayError):
        environment(shell, [File(".env", text)], coloured=False)


def test_missing_config() -> None:
    """All that is required and has no value is named at once; what is declared only is not needed."""
    spec = replace(SHOP, config={"A": ConfigKey(required=True), "B": ConfigKey(), "C": ConfigKey(required=True)})
    with pytest.raises(UsageError, match="A, C are required and have no value"):
        refuse_missing(spec, {}, ".env")
    refuse_missing(spec, {"A": "", "C": "1"}, ".env")


ENDS: dict[str, tuple[InstanceState, str, str]] = {
    "at once": ("starting", "", "exited with code 1; starts again"),
    "later": ("backoff", "exited with code 1; starts again after 2s", "exited with code 1; starts again after 2s"),
    "asked to": ("draining", "", "exited with code 1"),
    "for good": ("ready", "", "exited with code 1; not started again (restart policy always)"),
}


@pytest.mark.parametrize(("state", "detail", "said"), ENDS.values(), ids=list(ENDS))
def test_words_of_an_end(state: InstanceState, detail: str, said: str) -> None:
    """It is said how a process ended, and what comes now."""
    fields: dict[str, str | int] = {"pid": 7, "how": "exited with code 1"}
    assert told("exited", fields, SHOP.processes[0], view(WEB, state, detail=detail), "") == said


def test_words() -> None:
    """What a person needs is said in a sentence; what says nothing new is not said."""
    web, worker, _ = SHOP.processes
    shell = replace(worker, shell=True)  # noqa: S604 - nothing runs here
    assert told("ready", {"after_ms": 5}, web, None, "http://127.0.0.1:80") == "is ready, http://127.0.0.1:80"
    assert told("ready", {"after_ms": 5}, worker, None, "") is None
    assert told("draining", {}, web, None, "") is None
    assert told("survives", {"pids": "7"}, web, None, "") == "survives pids=7"
    assert told("exited", {"pid": 7, "how": "exited with code 127"}, shell, view(WORKER, "starting"), "") == (
        "exited with code 127 (command not found); starts again"
    )
