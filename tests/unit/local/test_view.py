"""What a person sees of the demo on a terminal."""

import io

import anyio
from rich.console import Console

from agent.local.load import Tally
from agent.local.view import View
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName, ReleaseName
from agent.wire.control import Row

INSTANCE = Row(
    host=HostName("h1"),
    app=AppName("shop"),
    environment=EnvironmentName("local"),
    release=ReleaseName("v2"),
    process=ProcessName("web"),
    instance="web.1",
    pid=None,
    state="exec_failed",
    since="",
    restarts=0,
)


def drawn(view: View) -> str:
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(view.drawn(), soft_wrap=True)
    return capture.get()


async def the_story() -> list[str]:
    view = View(live=False, beside=True)
    pictures = [drawn(view)]
    view.fleet([INSTANCE], Tally())
    pictures.append(drawn(view))
    view.away(Tally())
    pictures.append(drawn(view))
    view.event("an event that is " + "very " * 20 + "long")
    view.fleet([INSTANCE], Tally())
    pictures.append(drawn(view))
    return pictures


def test_the_picture_says_what_is_so_at_each_moment() -> None:
    """An empty fleet is said to be empty, states are words, and a coordinator that is down is no old picture."""
    empty, running, down, again = anyio.run(the_story)
    assert "no instance yet" in empty
    assert "─" not in empty
    assert "v2 exec failed" in running
    assert "coordinator: up" in running
    assert "coordinator: down" in down
    assert "v2 exec failed" in down
    assert "coordinator: up" in again
    assert all(len(line.rstrip()) <= 80 for line in again.splitlines())
    assert "very long" in again
