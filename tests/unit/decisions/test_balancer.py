"""What a balancer is told, and when a drain counts: by examples, and against one that forgets at any moment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.decisions import balancer
from agent.decisions.balancer import BUSY_MS, COMMANDS_MAX, REST_MS, BalancerState
from agent.model.balancer import Add, EnableChecks, Remove, Seen, SetAddress, SetAdmin, SetWeight, Standing, Wanted
from tests.unit.decisions.balancer_model import DRAIN_MS, Story, seen, wanted


def test_a_new_server_gets_users_once_it_is_there() -> None:
    """Added, checked, made ready; it counts as admitted when the balancer shows it in use."""
    story = Story()
    story.wish(wanted("h1:web"))
    assert story.look() == [
        Add("h1:web", wanted("h1:web").address, 100), EnableChecks("h1:web"), SetAdmin("h1:web", "ready"),
    ]  # fmt: skip
    assert story.standing("h1:web") == "admitting"
    assert story.look() == []
    assert story.standing("h1:web") == "admitted"
    assert story.pause_ms == REST_MS


def test_a_server_of_the_balancers_file_is_taken_over() -> None:
    """One that its file names, so that a reload leaves no gap, is brought to its weight and otherwise left alone."""
    story = Story(seen("h1:web", weight=1))
    story.wish(wanted("h1:web"))
    assert story.look() == [SetWeight("h1:web", 100)]
    assert story.look() == []


def test_a_drain_waits_for_the_last_session() -> None:
    """Nobody new; those that are there finish; then it is closed, and only then it counts as drained."""
    story = Story(seen("h1:web", sessions=2))
    story.wish(wanted("h1:web", admitted=False))
    assert story.look() == [SetAdmin("h1:web", "drain")]
    assert story.look() == []
    assert story.state.standings["h1:web"] == Standing(state="draining", detail="2 sessions left")
    assert story.pause_ms == BUSY_MS
    story.sessions("h1:web", 0)
    assert story.look() == [], "once without a session may be the moment before one that was picked already"
    assert story.look() == [SetAdmin("h1:web", "maint")]
    assert story.standing("h1:web") == "draining"
    story.look()
    assert story.state.standings["h1:web"] == Standing(state="drained")


def test_a_drain_ends_when_its_time_is_over() -> None:
    """A session that does not end holds a swap up for as long as it may, and is told."""
    story = Story(seen("h1:web", sessions=1))
    story.wish(wanted("h1:web", admitted=False))
    while story.now_ms < DRAIN_MS:
        story.look()
        assert story.standing("h1:web") == "draining"
    story.looks(3)
    assert story.state.standings["h1:web"] == Standing(state="drained", detail="1 sessions left after 3 s")


def test_a_drain_that_the_balancer_refuses_never_counts() -> None:
    """Where a balancer does not do what it is told, no time makes its users safe."""
    story = Story(seen("h1:web"))
    story.wish(wanted("h1:web", admitted=False))
    for _ in range(20):
        story.look()
        story.balancer.servers["h1:web"] = seen("h1:web")
        story.refused = {"h1:web": "Permission denied"}
    assert story.now_ms > 2 * DRAIN_MS
    assert story.state.standings["h1:web"] == Standing(state="draining", detail="Permission denied")
    assert story.pause_ms == REST_MS, "it is not asked ten times a second"


def test_who_gives_no_answer_is_known_by_nobody() -> None:
    """A balancer that is silent neither admits nor drains, whatever it had said before."""
    story = Story(seen("h1:web"))
    story.wish(wanted("h1:web", admitted=False))
    story.looks(5)
    assert story.standing("h1:web") == "drained"
    story.silent()
    states = {"/run/a": story.state}
    assert balancer.overall("h1:web", states, admitted=False) == Standing(
        state="unknown", detail="/run/a: connection refused"
    )
    story.look()
    assert balancer.overall("h1:web", {"/run/a": story.state}, admitted=False).state == "drained"


def test_a_reload_is_made_good_at_the_next_look() -> None:
    """HAProxy forgets what it was told at runtime: servers come back, drained ones are drained again."""
    story = Story(file=(seen("h1:web:1"),))
    story.wish(wanted("h1:web:1", admitted=False), wanted("h1:web:2", 8082))
    story.looks(6)
    assert story.standing("h1:web:1") == "drained"
    story.balancer.reload(story.now_ms)
    assert story.look() == [
        Add("h1:web:2", wanted("h1:web:2", 8082).address, 100), EnableChecks("h1:web:2"),
        SetAdmin("h1:web:2", "ready"), SetAdmin("h1:web:1", "drain"),
    ]  # fmt: skip
    assert story.standing("h1:web:1") != "drained"


def test_after_a_reload_the_sessions_of_the_old_process_get_their_time() -> None:
    """The new process does not see those of the one before: that it has none proves nothing for a while."""
    story = Story(file=(seen("h1:web"),))
    story.balancer.reload(0)
    story.wish(wanted("h1:web", admitted=False))
    story.looks(10)
    assert story.standing("h1:web") == "draining"
    assert "before a reload" in story.state.standings["h1:web"].detail
    while story.now_ms < DRAIN_MS:
        story.look()
    story.looks(4)
    assert story.standing("h1:web") == "drained"


def test_an_address_changes_only_in_maintenance() -> None:
    """A server that is to lead elsewhere is taken out for that moment."""
    story = Story(seen("h1:web", 8080))
    story.wish(wanted("h1:web", 9090))
    story.looks(4)
    address = wanted("h1:web", 9090).address
    assert story.said == [SetAdmin("h1:web", "maint"), SetAddress("h1:web", address), SetAdmin("h1:web", "ready")]
    assert story.balancer.takes_users() == {"h1:web": 9090}


def test_what_nobody_wishes_any_more_goes_and_others_stay() -> None:
    """Servers of this host's name are removed once drained; those of other hosts and of people are not touched."""
    story = Story(seen("h1:web:1"), seen("h1:web:2"), seen("h10:web:1"), seen("static1"))
    story.wish(wanted("h1:web:2"))
    story.looks(8)
    assert set(story.balancer.servers) == {"h1:web:2", "h10:web:1", "static1"}
    assert {command.server for command in story.said} == {"h1:web:1"}
    assert balancer.overall("h1:web:1", {"a": story.state}, admitted=False).state == "gone"
    assert story.said[-1] == Remove("h1:web:1")


def test_before_anything_is_wished_nothing_is_taken_away() -> None:
    """An agent that has just started knows nothing yet, and says nothing."""
    story = Story(seen("h1:web:1"))
    assert story.look() == []
    assert story.balancer.takes_users() == {"h1:web:1": 8080}


def test_who_comes_in_comes_before_who_goes_out() -> None:
    """There is always somebody for users."""
    story = Story(seen("h1:web:1"))
    story.wish(wanted("h1:web:1", admitted=False), wanted("h1:web:2", 8082))
    said = story.look()
    assert said.index(SetAdmin("h1:web:2", "ready")) < said.index(SetAdmin("h1:web:1", "drain"))


NOT_ADMITTED = {
    "its checks fail": (replace(seen("h1:web"), up=False), "the balancer's own health checks fail"),
    "held back": (replace(seen("h1:web"), held=True), "held back by the balancer's own configuration"),
}


@pytest.mark.parametrize(("server", "why"), NOT_ADMITTED.values(), ids=NOT_ADMITTED)
def test_why_a_server_gets_no_users_is_said(server: Seen, why: str) -> None:
    """What the agent cannot change is told, and not commanded again and again."""
    story = Story(server)
    story.wish(wanted("h1:web"))
    assert story.look() == []
    assert story.state.standings["h1:web"] == Standing(state="admitting", detail=why)


def test_a_new_wish_is_no_answer_yet() -> None:
    """What was drained for one wish does not count for the next until the balancer was looked at."""
    story = Story(seen("h1:web"))
    story.wish(wanted("h1:web"))
    story.look()
    assert story.standing("h1:web") == "admitted"
    story.wish(wanted("h1:web", admitted=False))
    assert balancer.overall("h1:web", {"a": story.state}, admitted=False).state == "unknown"
    story.look()
    assert balancer.overall("h1:web", {"a": story.state}, admitted=False).state == "draining"


def test_of_several_balancers_the_slowest_counts() -> None:
    """Behind two of them a server is drained when both have drained it."""
    slow = BalancerState(standings={"s": Standing(state="draining", detail="2 sessions left")}, is_fresh=True)
    done = BalancerState(standings={"s": Standing(state="drained")}, is_fresh=True)
    assert balancer.overall("s", {"a": done, "b": slow}, admitted=False) == Standing(
        state="draining", detail="b: 2 sessions left"
    )
    assert balancer.overall("s", {"a": done}, admitted=False) == Standing(state="drained")
    assert balancer.overall("s", {"a": done, "b": BalancerState()}, admitted=False).state == "unknown"
    assert balancer.overall("s", {}, admitted=True).state == "admitted"


NAMES = ("h1:web:1", "h1:web:2", "h1:web:3", "h2:web:1")
SERVERS = st.builds(
    lambda name, port, sessions, weight, out: replace(
        seen(name, port, sessions=sessions, weight=weight), maintenance=out == "maint", draining=out == "drain"
    ),
    st.sampled_from(NAMES), st.sampled_from((8080, 8081)), st.integers(0, 3), st.sampled_from((1, 100)),
    st.sampled_from(("", "maint", "drain")),
)  # fmt: skip
WISHES = st.lists(
    st.builds(lambda name, port, admitted: wanted(name, port, admitted=admitted), st.sampled_from(NAMES[:3]),
              st.sampled_from((8080, 8081)), st.booleans()),
    unique_by=lambda one: one.name,
)  # fmt: skip
DISTURBANCES = st.lists(
    st.sampled_from(("look", "look", "look", "reload", "silent", "finish", "begin")) | WISHES, max_size=25
)


def _disturbed(story: Story, disturbance: object) -> None:
    match disturbance:
        case "reload":
            story.balancer.reload(story.now_ms)
        case "silent":
            story.silent()
        case "finish" | "begin":
            for name in story.balancer.servers:
                in_use = name in story.balancer.takes_users()
                story.sessions(name, 1 if disturbance == "begin" and in_use else 0)
        case list(wishes):
            story.wish(*wishes)
        case _:
            story.look()


@given(st.lists(SERVERS), st.lists(SERVERS), DISTURBANCES, WISHES)
def test_it_becomes_as_wished_whatever_happens_before(
    servers: list[Seen], file: list[Seen], disturbances: list[object], wishes: list[Wanted]
) -> None:
    """Whatever there was, and however often it was reloaded: in the end just who is wished in gets users."""
    story = Story(*servers, file=tuple(file))
    others = story.balancer.servers.get("h2:web:1"), story.balancer.file.get("h2:web:1")
    for disturbance in disturbances:
        _disturbed(story, disturbance)
    story.wish(*wishes)
    story.balancer.servers = {name: replace(one, sessions=0) for name, one in story.balancer.servers.items()}
    until_ms = story.now_ms + DRAIN_MS + 20 * REST_MS
    while story.now_ms < until_ms:
        story.look()
    users = {name: port for name, port in story.balancer.takes_users().items() if name.startswith("h1:")}
    assert users == {one.name: one.address.port for one in wishes if one.admitted}
    assert {name for name in story.balancer.servers if name.startswith("h1:")} <= {one.name for one in wishes}
    for one in wishes:
        assert story.standing(one.name) == ("admitted" if one.admitted else "drained")
    assert not story.look(), "it is left in peace"
    assert not [command for command in story.said if command.server == "h2:web:1"]
    assert others[0] is None or "h2:web:1" in story.balancer.servers or others[1] is None


@given(st.lists(SERVERS), DISTURBANCES, WISHES)
def test_drained_is_said_only_of_who_gets_nobody(
    servers: list[Seen], disturbances: list[object], wishes: list[Wanted]
) -> None:
    """Never does a drain count while the balancer still sends users there, or before they had their time."""
    story = Story(*servers)
    story.wish(*wishes)
    for disturbance in disturbances:
        before = dict(story.balancer.servers)
        began_ms = story.now_ms
        _disturbed(story, disturbance)
        if not story.state.is_fresh or disturbance != "look":
            continue
        for name, standing in story.state.standings.items():
            server = before.get(name)
            if standing.state == "drained" and server is not None:
                assert server.maintenance
                since = story.state.drains[name].since.boottime_ms
                assert not server.sessions or began_ms - since >= DRAIN_MS
            if standing.state == "admitted":
                assert server is not None
                assert not server.maintenance
                assert not server.draining


def test_a_hundred_servers_are_told_in_portions() -> None:
    """One turn says only so much: a balancer that was restarted is filled over a few looks."""
    story = Story()
    story.wish(*(wanted(f"h1:web:{slot}") for slot in range(100)))
    assert len(story.look()) == COMMANDS_MAX
    story.looks(6)
    assert len(story.balancer.takes_users()) == 100
