"""The load of the demo as tests use it: a process beside the fleet, spoken to by lines."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from tests.e2e.fleet import ROOT, wait_for

Tally = dict[str, Any]


class Load:
    """Users of one port on all addresses. What they saw is asked for with `tally`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def say(self, *words: str) -> Tally:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return cast("Tally", json.loads(self._process.stdout.readline()))

    def tally(self) -> Tally:
        return self.say("tally")

    def expect(self, *versions: str) -> None:
        """From now on an answer of any other version is wrong."""
        self.say("expect", *versions)

    def wait_for(self, fresh: int, kept: int) -> Tally:
        """Go on until so many requests were answered, on new connections and on kept ones."""
        wait_for(
            f"{fresh} + {kept} requests", lambda: self.tally()["fresh"] >= fresh and self.tally()["kept"] >= kept, 240
        )
        return self.tally()

    def end(self) -> Tally:
        """Nobody asks any more; what all have seen."""
        return self.say("end")


@contextmanager
def load(port: int, addresses: list[str], *versions: str, pause_ms: float = 10, orders: bool = False) -> Iterator[Load]:
    """Users of the port on each address, until the block ends; answers of other versions than these are wrong."""
    words = [sys.executable, "-m", "agent.local.load", str(port), *addresses, "--pause-ms", str(pause_ms)]
    with subprocess.Popen(
        [*words, *(["--orders"] if orders else [])], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        users = Load(process)
        users.expect(*versions)
        try:
            yield users
        finally:
            process.communicate(timeout=30)
