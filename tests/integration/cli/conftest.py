"""The coordinator that every verb under test talks to."""

from collections.abc import Iterator

import pytest

from tests.integration.cli.coordinator import TOKEN, FakeCoordinator, serving


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCoordinator]:
    """The coordinator that the environment names."""
    with serving() as fake:
        monkeypatch.setenv("ROLLWAY_COORDINATOR", fake.url)
        monkeypatch.setenv("ROLLWAY_TOKEN", TOKEN)
        monkeypatch.delenv("ROLLWAY_CONFIG", raising=False)
        yield fake
