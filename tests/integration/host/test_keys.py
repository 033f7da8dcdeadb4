"""Secrets on a host: opened in memory by the right key only, and never repeated by an error."""

import base64
from pathlib import Path

import pyrage  # type: ignore[import-untyped]  # it has no stubs
import pytest
from pyrage import x25519

from agent.errors import VerificationError
from agent.host.keys import HostKey
from agent.model.release import ConfigValue

SECRET = "correct horse battery staple"
ENVIRONMENT_KEY = x25519.Identity.generate()


def sealed(text: str, recipient: object) -> str:
    return base64.b64encode(pyrage.encrypt(text.encode(), [recipient])).decode()


def config(age: str) -> dict[str, ConfigValue]:
    return {"GREETING": ConfigValue(plain="hello"), "TOKEN": ConfigValue(age=age)}


def test_a_secret_passes_through_two_keys_and_the_host_s_key_stays_the_same(tmp_path: Path) -> None:
    """Encrypted to the environment's key, which is wrapped to the host's: opened, also by the agent's next run."""
    path = tmp_path / "state" / "identity.age"
    recipient = x25519.Recipient.from_str(HostKey.of(path).recipient)
    wrapped = sealed(str(ENVIRONMENT_KEY), recipient)
    opened = HostKey.of(path).open_config(config(sealed(SECRET, ENVIRONMENT_KEY.to_public())), wrapped)
    assert opened == {"GREETING": "hello", "TOKEN": SECRET}
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_secrets_no_key_is_needed(tmp_path: Path) -> None:
    """A config of plain values alone opens on a host that was given no environment's key."""
    key = HostKey.of(tmp_path / "identity.age")
    assert key.open_config({"GREETING": ConfigValue(plain="hello")}, None) == {"GREETING": "hello"}


STRANGER = x25519.Identity.generate()
REFUSED = {
    "no environment's key was given": (False, sealed(SECRET, ENVIRONMENT_KEY.to_public()), "was not given"),
    "the value is to another key": (True, sealed(SECRET, STRANGER.to_public()), "cannot open the secret TOKEN"),
    "the value is no base64": (True, "%%%", "cannot open the secret TOKEN"),
    "the value is no age": (True, base64.b64encode(SECRET.encode()).decode(), "cannot open the secret TOKEN"),
}


@pytest.mark.parametrize(("has_key", "age", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_secret_that_cannot_be_opened_is_named_and_not_shown(
    has_key: bool,  # noqa: FBT001 - a column of the table
    age: str,
    reason: str,
    tmp_path: Path,
) -> None:
    """The error says which key of the config it is, and repeats neither value nor key."""
    key = HostKey.of(tmp_path / "identity.age")
    wrapped = sealed(str(ENVIRONMENT_KEY), x25519.Recipient.from_str(key.recipient)) if has_key else None
    with pytest.raises(VerificationError, match=reason) as found:
        key.open_config(config(age), wrapped)
    assert SECRET not in str(found.value)
    assert "AGE-SECRET-KEY" not in str(found.value)


def test_a_file_that_holds_no_key_is_refused_not_replaced(tmp_path: Path) -> None:
    """An unreadable key file is an error naming the file; a new key would make every secret unreadable in silence."""
    path = tmp_path / "identity.age"
    path.write_text("not a key\n")
    with pytest.raises(VerificationError, match=r"identity\.age"):
        HostKey.of(path)
    assert path.read_text() == "not a key\n"
