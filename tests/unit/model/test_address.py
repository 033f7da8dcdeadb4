"""Addresses to listen on: which spellings there are, and when two mean one connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.address import Address, parse_address

OVERLAPS = {
    "the same address": ("127.0.0.1:80", "127.0.0.1:80", True),
    "another port": ("127.0.0.1:80", "127.0.0.1:81", False),
    "another address": ("127.0.0.1:80", "127.0.0.2:80", False),
    "the wildcard of the family": ("0.0.0.0:80", "127.0.0.1:80", True),
    "the wildcard of both families": ("[::]:80", "127.0.0.1:80", True),
    "both wildcards": ("[::]:80", "0.0.0.0:80", True),
    "the IPv4 wildcard and IPv6": ("0.0.0.0:80", "[::1]:80", False),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_two_addresses_overlap_when_one_connection_could_mean_both(case: str) -> None:
    """A wildcard covers what a connection to it could reach, whichever is named first."""
    one, other, overlap = OVERLAPS[case]
    assert parse_address(one).overlaps(parse_address(other)) is overlap
    assert parse_address(other).overlaps(parse_address(one)) is overlap


WRONG = {
    "nothing": "",
    "a port alone": "80",
    "no host": ":80",
    "a name": "localhost:80",
    "half an address": "1.2.3:80",
    "no port": "1.2.3.4:",
    "port 0": "1.2.3.4:0",
    "a port too high": "1.2.3.4:65536",
    "a signed port": "1.2.3.4:+1",
    "a port in other digits": "1.2.3.4:\uff18\uff10",
    "IPv6 without brackets": "::1:80",
    "IPv4 in brackets": "[1.2.3.4]:80",
    "IPv6 without a port": "[::1]",
    "IPv6 of one interface": "[fe80::1%eth0]:80",
    "a space": " 1.2.3.4:80",
    "an octal number": "01.2.3.4:80",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Names, missing parts and ports out of range are refused by what was expected."""
    with pytest.raises(ValueError, match="an address such as"):
        parse_address(text)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(1, 65_535))
def test_an_address_comes_back_as_it_was_written(host: object, port: int) -> None:
    """What is shown can be read again."""
    address = Address(str(host), port)
    assert parse_address(str(address)) == address
