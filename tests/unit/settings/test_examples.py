"""The files of `config/`: each loads, as it stands and with every alternative uncommented, and leaves no key out."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli

from agent.model.environment import EnvironmentSettings
from agent.model.roles import CoordinatorSettings
from agent.settings import agentfile, appfile, coordinatorfile, environment
from agent.settings.source import KeyPath
from agent.settings.tables import Schema, matches

CONFIG = Path(__file__).parents[3] / "config"
EXAMPLES: dict[str, tuple[Callable[[str, str], object], Schema]] = {
    "rollway.toml": (appfile.load_app, appfile.SCHEMA),
    "production.toml": (environment.load_environment, environment.SCHEMA),
    "agent.toml": (agentfile.load_agent, agentfile.SCHEMA),
    "coordinator.toml": (coordinatorfile.load_coordinator, coordinatorfile.SCHEMA),
}


def uncommented(text: str) -> str:
    """`#key = …` without its sign; prose, which begins with "# ", stays a comment."""
    return re.sub(r"(?m)^#(?=\S)", "", text)


def key_paths(table: dict[str, object], above: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key in `table` and in the tables within it."""
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from key_paths(value, (*above, key))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_as_it_stands(name: str) -> None:
    """Whoever copies an example has a file that works."""
    load, _ = EXAMPLES[name]
    assert load((CONFIG / name).read_text(), name) is not None


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_with_every_alternative_uncommented(name: str) -> None:
    """What stands in a comment is as right as what does not."""
    load, _ = EXAMPLES[name]
    text = (CONFIG / name).read_text()
    assert load(uncommented(text), name) is not None


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_every_key_that_is_known(name: str) -> None:
    """An example is the reference of its file: no key is missing from it."""
    _, schema = EXAMPLES[name]
    written = list(key_paths(tomli.loads(uncommented((CONFIG / name).read_text()))))
    missing = [
        ".".join(pattern)
        for pattern in schema.known
        if not any(len(path) == len(pattern) and matches(path, pattern) for path in written)
    ]
    assert missing == []


def test_what_an_example_comments_out_as_a_default_is_the_default() -> None:
    """Uncommenting a default of the agent or the coordinator changes nothing, but for what is a machine's own."""
    agent = (CONFIG / "agent.toml").read_text()
    plain = agentfile.load_agent(agent, "")
    full = agentfile.load_agent(re.sub(r"(?m)^(address|launches).*$", "", uncommented(agent)), "")
    assert plain == full
    coordinator = (CONFIG / "coordinator.toml").read_text()
    bare = re.sub(r"(?m)^advertise.*$", "", uncommented(coordinator))
    assert coordinatorfile.load_coordinator(bare, "") == CoordinatorSettings.below()


def test_the_paces_of_the_example_environment_are_the_defaults() -> None:
    """The example shows the defaults, so that copying it changes no pace."""
    shown = environment.load_environment((CONFIG / "production.toml").read_text(), "")
    assert (shown.rolling, shown.rollback) == (EnvironmentSettings().rolling, EnvironmentSettings().rollback)
