"""Whom a verb asks that a coordinator and an agent can answer."""

import socket
from pathlib import Path

import pytest
from msgspec import Struct

from agent.cli import this_host
from agent.cli.side import agent_asked, agent_only
from agent.errors import NotFoundError, RefusedError, RollwayError


class Case(Struct, frozen=True, kw_only=True):
    agent_here: bool
    context: bool
    named: bool = False
    answers: str | None
    """The folder of the agent that is asked; None: the coordinator is."""
    for_agents_alone: type[RollwayError] | None = None
    """What a verb meets that no coordinator knows."""


CASES = {
    "an agent that is named is asked, whatever else there is": Case(
        agent_here=True, context=True, named=True, answers="named"
    ),
    "a coordinator that is known comes before the agent": Case(
        agent_here=True, context=True, answers=None, for_agents_alone=RefusedError
    ),
    "where no coordinator is known, the agent of the host": Case(agent_here=True, context=False, answers="run"),
    "where there is neither, the coordinator is missed": Case(
        agent_here=False, context=False, answers=None, for_agents_alone=NotFoundError
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_one_rule_says_who_is_asked(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words in the same place always ask the same."""
    for name in ("ROLLWAY_COORDINATOR", "ROLLWAY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if case.context:
        monkeypatch.setenv("ROLLWAY_COORDINATOR", "https://coordinator:7070")
        monkeypatch.setenv("ROLLWAY_TOKEN", "token")
    file = tmp_path / "agent.toml"
    file.write_text(f'name = "h1"\ncoordinators = ["https://coordinator:7070"]\nrun_dir = "{tmp_path}/run"\n')
    monkeypatch.setattr(this_host, "AGENT_FILE", str(file))
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        if case.agent_here:
            listening.bind(str(tmp_path / "run" / "agent.sock"))
        named = str(tmp_path / "named" / "agent.sock") if case.named else None
        asked = agent_asked(named)
        assert (asked.socket.parent.name if asked else None) == case.answers
        if case.for_agents_alone is None:
            assert agent_only("restart", named) == asked
        else:
            with pytest.raises(case.for_agents_alone):
                agent_only("restart", named)
