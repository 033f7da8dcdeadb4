"""Words of the link between peers that are not of one age."""

import msgspec
from msgspec.structs import replace

from agent.model.assignment import AppReport, HostReport
from agent.model.ids import AppName, EnvironmentName, HostName
from agent.wire.messages import Report, decode_from_agent, encode

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
