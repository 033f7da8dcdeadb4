"""Which coordinator a command talks to: environment first, then a file; what is wrong is named."""

from pathlib import Path

import pytest

from agent.client.context import Context, find_context, read_context
from agent.errors import NotFoundError, SettingsError, UsageError
from agent.linux.atomic import write_atomically

FILE = b'coordinator = "https://c.example:7070/"\ntoken = "t"\nca = "ca.pem"\n'


def test_the_environment_comes_first(tmp_path: Path) -> None:
    """In CI no file is needed, and a file does not get in the way."""
    write_atomically(tmp_path / "client.toml", FILE)
    environ = {
        "ROLLWAY_COORDINATOR": "https://ci.example:7070",
        "ROLLWAY_TOKEN": "secret",
        "ROLLWAY_CA": "/ca.pem",
        "ROLLWAY_CONFIG": str(tmp_path / "client.toml"),
    }
    assert find_context(environ) == Context(coordinator="https://ci.example:7070", token="secret", ca="/ca.pem")


def test_a_file_is_found_by_name_or_in_the_config_folder(tmp_path: Path) -> None:
    """ROLLWAY_CONFIG names it, else it lies in the user's config folder; a relative CA lies beside it."""
    (tmp_path / "rollway").mkdir()
    file = tmp_path / "rollway" / "client.toml"
    write_atomically(file, FILE)
    expected = Context(coordinator="https://c.example:7070", token="t", ca=str(tmp_path / "rollway" / "ca.pem"))
    assert find_context({"ROLLWAY_CONFIG": str(file)}) == expected
    assert find_context({"XDG_CONFIG_HOME": str(tmp_path)}) == expected


def test_no_context_says_what_to_do(tmp_path: Path) -> None:
    """Somebody who just installed Rollway learns the next step."""
    with pytest.raises(NotFoundError) as caught:
        find_context({"XDG_CONFIG_HOME": str(tmp_path)})
    assert "rollway up" in caught.value.what_to_do


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """A mistyped ROLLWAY_CONFIG is a wrong word (2), not a coordinator that nobody knows (5)."""
    with pytest.raises(UsageError, match=r"ROLLWAY_CONFIG names .*nowhere\.toml"):
        find_context({"ROLLWAY_CONFIG": str(tmp_path / "nowhere.toml")})


def test_a_coordinator_without_a_token_is_an_error() -> None:
    """Half a context is not completed from somewhere else."""
    with pytest.raises(UsageError, match="without ROLLWAY_TOKEN"):
        find_context({"ROLLWAY_COORDINATOR": "https://c.example"})


WRONG = {
    "no TOML": ("coordinator", "client.toml:1"),
    "an unknown key": ('coordinator = "https://c"\ntoken = "t"\nkey = "x"', "key: expected one of"),
    "no token": ('coordinator = "https://c"', "token: expected text, found nothing"),
    "a token that is no text": ('coordinator = "https://c"\ntoken = 7', "token: expected text, found 7"),
    "a token of two lines": ('coordinator = "https://c"\ntoken = "a\\nb"', "token: expected letters"),
    "an address without a host": ('coordinator = "https://"\ntoken = "t"', "https://coordinator.example"),
    "a host that no name server knows how to spell": (
        'coordinator = "https://a..b"\ntoken = "t"',
        "https://coordinator.example",
    ),
    "a port beyond all ports": ('coordinator = "https://c:99999"\ntoken = "t"', "https://coordinator.example"),
    "half an IPv6 address": ('coordinator = "https://[::1"\ntoken = "t"', "https://coordinator.example"),
    "an address without TLS": ('coordinator = "http://c.example"\ntoken = "t"', "https://coordinator.example"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_with_its_key(case: str) -> None:
    """File, key, what was expected, what was found."""
    text, named = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        read_context(text, "client.toml")
    assert named in caught.value.error
