"""Blocks of loopback addresses: which are accepted, and who has which address in one."""

import pytest

from agent.errors import UsageError
from agent.local.net import parse_block


def test_a_block_has_an_address_for_everybody() -> None:
    """Hosts from .1 on, the coordinator out of their way."""
    block = parse_block("127.12.5.0/24")
    assert [block.host(n) for n in (1, 2, 250)] == ["127.12.5.1", "127.12.5.2", "127.12.5.250"]
    assert block.coordinator == "127.12.5.254"


WRONG = {
    "no network": "here",
    "a host's address": "127.10.0.1/24",
    "too small": "127.10.0.0/25",
    "too large": "127.10.0.0/16",
    "not loopback": "10.0.0.0/24",
    "the router's own addresses": "127.77.3.0/24",
    "IPv6": "::1/128",
}


@pytest.mark.parametrize("case", WRONG)
def test_another_block_is_refused_with_an_example(case: str) -> None:
    """Only whole /24 blocks of loopback can be hosts' addresses."""
    with pytest.raises(UsageError) as caught:
        parse_block(WRONG[case])
    assert "127.10.0.0/24" in caught.value.what_to_do
