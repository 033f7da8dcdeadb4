"""How an agent comes onto a host without a network: the README's own words, so that both are proven at once."""

import re
from typing import Final

from tests.e2e.fleet import ROOT

WHEELS: Final = "/mnt/wheels"
SECTION: Final = re.compile(r"^## Three Debian hosts\n(.*?)^## ", re.DOTALL | re.MULTILINE)
BLOCK: Final = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def blocks() -> list[str]:
    """The blocks of the README's section, in their order."""
    found = SECTION.search((ROOT / "README.md").read_text())
    assert found is not None
    return BLOCK.findall(found[1])


INSTALL: Final = next(block for block in blocks() if "install --no-index" in block and "rollway[all]" not in block)
