"""Health endpoints as Kubernetes' own: every check by name, one left out on request, one word for the whole."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from agent.web.health import Health

pytestmark = pytest.mark.anyio
Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A role that has started, of whose two checks one fails."""
    health, application = Health({"well": lambda: "", "disk": lambda: "it is full"}), web.Application()
    health.started = True
    health.add_routes(application)
    async with TestClient(TestServer(application)) as made:
        yield made


ANSWERS = {
    "what is wrong": ("/readyz", 503, "disk: it is full\n"),
    "every check": (
        "/readyz?verbose",
        503,
        "[+]started ok\n[+]drain ok\n[+]well ok\n[-]disk failed: it is full\nreadyz check failed\n",
    ),
    "without the one that fails": ("/readyz?exclude=disk", 200, "ok\n"),
    "which one was left out": (
        "/readyz?verbose&exclude=disk&exclude=well",
        200,
        "[+]started ok\n[+]drain ok\n[+]well excluded: ok\n[+]disk excluded: ok\nreadyz check passed\n",
    ),
    "alive all the same": ("/livez?verbose", 200, "[+]loop ok\nlivez check passed\n"),
    "started": ("/startupz", 200, "ok\n"),
}


@pytest.mark.parametrize(("path", "status", "text"), ANSWERS.values(), ids=ANSWERS)
async def test_who_asks_is_told(client: Client, path: str, status: int, text: str) -> None:
    """The status is for machines, the text for people."""
    async with client.get(path) as answer:
        assert (answer.status, await answer.text()) == (status, text)
