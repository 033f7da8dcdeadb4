"""The token that brings a host in: what it carries, and that nothing else passes for one."""

import base64

import pytest

from agent.errors import UsageError
from agent.wire.hosttoken import HostToken, decode_token, encode_token

TOKEN = HostToken(coordinators=("https://rollway.example:7070",), fingerprint="ab" * 32, secret="s" * 43)
TEXT = encode_token(TOKEN)


def told(json: bytes) -> str:
    return "rollway-host-1." + base64.urlsafe_b64encode(json).decode().rstrip("=")


WRONG = {
    "nothing": "",
    "a password": "hunter2",
    "its prefix alone": "rollway-host-1.",
    "a later kind of token": TEXT.replace("host-1", "host-2"),
    "a token cut short": TEXT[:-9],
    "a token with a foreign letter": TEXT.replace("e", "\N{CYRILLIC SMALL LETTER IE}"),
    "a token with a sign that base64 has not": TEXT[:40] + "!" + TEXT[41:],
    "no JSON": told(b"{"),
    "a deep JSON": told(b"[" * 5_000),
    "no coordinator": told(b'{"coordinators":[],"fingerprint":"%s","secret":"%s"}' % (b"ab" * 32, b"s" * 43)),
    "a short fingerprint": told(b'{"coordinators":["https://a"],"fingerprint":"ab","secret":"%s"}' % (b"s" * 43)),
    "a short secret": told(b'{"coordinators":["https://a"],"fingerprint":"%s","secret":"s"}' % (b"ab" * 32)),
    "a long text": TEXT + "A" * 10_000,
}


def test_a_token_comes_out_as_it_went_in() -> None:
    """A token is one word, and line ends around it, as a file has them, do no harm."""
    assert len(TEXT.split()) == 1
    assert decode_token(f"  {TEXT}\r\n") == TOKEN


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    """Whatever else is given is refused in words, and none of it stands in the error."""
    with pytest.raises(UsageError) as raised:
        decode_token(text)
    assert str(raised.value).startswith("this is no host token")
    assert len(text) <= len("rollway-host-1.") or text[-12:] not in str(raised.value)
