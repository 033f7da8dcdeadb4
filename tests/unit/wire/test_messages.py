"""Words of the link between peers that are not of one age."""

import msgspec
import pytest
from msgspec.structs import replace

from agent.errors import VerificationError
from agent.model.assignment import AppReport, HostReport
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName
from agent.model.lease import WITHOUT_END, LeaseAnswer, LeaseAsk, LeaseName
from agent.wire.messages import (
    AnswerLeases,
    AskLeases,
    Hello,
    Report,
    Welcome,
    decode_from_agent,
    decode_from_coordinator,
    encode,
)

NAME = LeaseName(AppName("shop"), EnvironmentName("local"), ProcessName("clock"))
APP = AppReport(app=AppName("shop"), environment=EnvironmentName("local"), generation=1, release=None, state="done")


def test_an_older_agent_says_nothing_of_standing_aside_and_takes_part() -> None:
    """A report without the word is one of a host that takes part in rollouts."""
    told = msgspec.to_builtins(Report(report=HostReport(host=HostName("h1"), boot_id="1", sequence=1, apps=(APP,))))
    del told["report"]["apps"][0]["aside"]
    assert decode_from_agent(msgspec.json.encode(told)) == Report(
        report=HostReport(host=HostName("h1"), boot_id="1", sequence=1, apps=(APP,))
    )


def test_a_newer_agent_may_stand_aside_for_reasons_that_are_not_known_yet() -> None:
    """Whatever the word is, it arrives, and so does a field that nobody knows."""
    report = Report(
        report=HostReport(host=HostName("h1"), boot_id="1", sequence=1, apps=(replace(APP, aside="on fire"),))
    )
    told = msgspec.json.decode(encode(report))
    told["report"]["apps"][0]["colour"] = "red"
    assert decode_from_agent(msgspec.json.encode(told)) == report


def test_leases_cross_the_link_as_they_are() -> None:
    """Question and answer arrive whole, the name of a lease among them."""
    question = AskLeases(number=7, asks=(LeaseAsk(name=NAME, hold_ms=WITHOUT_END, bound_ms=5, wants=False, total=3),))
    assert decode_from_agent(encode(question)) == question
    answer = AnswerLeases(number=7, answers=(LeaseAnswer(name=NAME, granted=False, holder="h2", share=1),))
    assert decode_from_coordinator(encode(answer)) == answer


@pytest.mark.parametrize("name", [["shop", "local"], ["shop", "local", "clock", "x"], "shop.local.clock", [1, 2, 3]])
def test_what_names_no_lease_is_refused(name: object) -> None:
    """A name has three parts, and is no other thing."""
    frame = {"type": "ask_leases", "number": 1, "asks": [{"name": name, "hold_ms": 1}]}
    with pytest.raises(VerificationError):
        decode_from_agent(msgspec.json.encode(frame))


def test_an_older_coordinator_grants_no_leases_and_an_older_agent_asks_for_none() -> None:
    """Each says so by saying nothing."""
    assert Welcome(protocol=1, epoch=1).lease_ms == 0
    said = {"type": "hello", "protocol": 1, "host": "h1", "boot_id": "b", "version": "0", "age_recipient": ""}
    hello = decode_from_agent(msgspec.json.encode(said))
    assert isinstance(hello, Hello)
    assert not hello.leases
