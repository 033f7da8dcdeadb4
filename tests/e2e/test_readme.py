"""The README's tutorial, followed literally: every block is run, and says what it promises.

Not handled here: the section about real hosts (`tests/hosts/test_readme_hosts.py`).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.fleet import ROOT, fleet
from tests.integration.coordinator.fleet import free_port
from tests.integration.local.terminal import dev

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
SAYS = {
    "rollway status": ["h1", "h2", "h3"],
    "git tag v1.0.0": [],
    "rollway release create": ["hello from v1.0.0", "web.2"],
    "git tag v2.0.0": ["hello again from v2.0.0"],
    "git tag v3.0.0": ["exit code 3", "hello again from v2.0.0"],
    "rollway rollback": ["hello from v1.0.0", "rolled back"],
    "rollway scale": ["web=3 on each host", "web.3"],
    "rollway run": ["run in v1.0.0"],
}


@pytest.mark.timeout(300)
def test_tutorial(tmp_path: Path) -> None:
    """A person who copies the blocks into two terminals sees what the text says."""
    tutorial, _, _ = (ROOT / "README.md").read_text().partition("## While you write it")
    blocks = BLOCK.findall(tutorial)
    first, *rest = blocks
    assert "rollway up --hosts 3 --dir /tmp/rollway-tutorial" in first
    with fleet(tmp_path, hosts=3) as one:
        block_of = one.address().rpartition(".")[0]
        places = {"/tmp/rollway-tutorial": str(tmp_path / "up"), "/tmp/hello": str(tmp_path / "hello")}
        folder = ROOT
        for block, (mark, said) in zip(rest, SAYS.items(), strict=True):
            assert mark in block
            script = block.replace("127.10.0", block_of)
            for place, mine in places.items():
                script = script.replace(place, mine)
            environment = {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ROLLWAY_CONFIG": str(tmp_path / "up" / "client.toml"),
            }
            done = subprocess.run(
                ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            assert [words for words in said if words not in done.stdout] == [], done.stdout
            assert "uncommitted" not in done.stdout + done.stderr
            folder = tmp_path / "hello" if (tmp_path / "hello").exists() else ROOT


def test_while_you_write_it(tmp_path: Path) -> None:
    """The app of the tutorial runs from its working tree, and answers at the address that is told."""
    readme = (ROOT / "README.md").read_text()
    tutorial, _, rest = readme.partition("## While you write it")
    section, _, _ = rest.partition("## Three Debian hosts")
    begin, ask, propose = BLOCK.findall(section)
    (make,) = (block for block in BLOCK.findall(tutorial) if "git tag v1.0.0" in block)
    checkout, told = begin.replace("\nrollway dev\n", "\n"), section.partition("```\nrollway | ")[2].partition("```")[0]
    assert checkout != begin, "the block ends with the command"
    places = {"/tmp/hello": str(tmp_path / "hello"), "8080": str(free_port())}

    def here(text: str) -> str:
        for place, mine in places.items():
            text = text.replace(place, mine)
        return text

    def run(script: str, folder: Path) -> str:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path}
        return subprocess.check_output(["bash", "-e", "-c", here(script)], cwd=folder, env=environment, text=True)

    run(make + checkout, tmp_path)
    with dev(tmp_path / "hello") as terminal:
        for line in f"rollway | {told}".replace("4711", "").splitlines():
            terminal.until(here(line).removeprefix("rollway ").strip())
        assert run(ask, tmp_path) == "hello from dev\n"
        terminal.ctrl_c()
        assert terminal.end() == 0
    assert 'app = "hello"' in run(propose, tmp_path / "hello")
