"""`rollway host`: what is asked of the coordinator, what is shown, what is refused before anybody is asked."""

import json

import pytest

from tests.integration.cli.coordinator import FakeCoordinator
from tests.integration.cli.story import rollway

MEMBER = {"host": "web1", "environments": ["production"], "labels": {"zone": "b"}}
TOKEN = {
    "token": "rollway-host-1.abc",
    "name": None,
    "environments": ["production"],
    "labels": {"zone": "a"},
    "expires": "2026-11-26T12:00:00.000+00:00",
}
LISTED = {"address": "", "connected": False, "since": "2026-11-26T12:00:00.000+00:00", "version": "", **MEMBER}

WRONG = {
    "a token for no environment": ["token"],
    "a label without a value": ["token", "--environment", "production", "--label", "zone"],
    "a label that is removed from nothing": ["token", "--environment", "production", "--label", "zone-"],
    "a time to live without a unit": ["token", "--environment", "production", "--ttl", "60"],
    "a name that no host has": ["remove", "Web_1"],
    "no label": ["label", "web1"],
    "a label with a wrong key": ["label", "web1", "Zone=a"],
}


def test_a_token_is_all_that_is_printed(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is the token alone, so that it can be piped to the host; the rest is said beside it."""
    fake.answers["POST", "/v1/host-tokens"] = (201, TOKEN)
    words = ("token", "--environment", "production", "--label", "zone=a", "--ttl", "10m")
    assert rollway(monkeypatch, "host", *words) == 0
    shown = capsys.readouterr()
    assert (shown.out, "until 2026-11-26T12:00" in shown.err) == ("rollway-host-1.abc\n", True)
    asked = {"environments": ["production"], "labels": {"zone": "a"}, "name": "", "ttl_ms": 600_000}
    assert fake.bodies("POST") == [asked]
    assert rollway(monkeypatch, "host", *words, "--json") == 0
    assert json.loads(capsys.readouterr().out) == TOKEN


def test_labels_are_set_and_removed(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """KEY=VALUE sets a label and KEY- removes one; what the host then has is shown."""
    fake.answers["PATCH", "/v1/hosts/web1/labels"] = (200, MEMBER)
    assert rollway(monkeypatch, "host", "label", "web1", "zone=b", "old-") == 0
    assert fake.bodies("PATCH") == [{"labels": {"zone": "b", "old": None}}]
    assert capsys.readouterr().out == "web1: zone=b\n"


def test_a_removal_names_whose_secrets_the_host_could_read(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of the fleet is not out of what it knew: the environments are named."""
    fake.answers["DELETE", "/v1/hosts/web1"] = (200, MEMBER)
    assert rollway(monkeypatch, "host", "remove", "web1") == 0
    shown = capsys.readouterr()
    assert "web1 is out of the fleet" in shown.out
    assert "secrets of: production" in shown.err
    assert rollway(monkeypatch, "host", "remove", "web2") == 5


def test_hosts_are_listed(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host that has joined and not connected yet is in the list."""
    fake.answers["GET", "/v1/hosts"] = (200, [LISTED])
    assert rollway(monkeypatch, "host", "list") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["web1", "away"]
    assert rollway(monkeypatch, "host", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0].items() >= LISTED.items()


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_wrong_words_ask_nobody(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """What cannot be meant exits 2, and the coordinator is not asked."""
    assert rollway(monkeypatch, "host", *words) == 2
    assert fake.asked == []
