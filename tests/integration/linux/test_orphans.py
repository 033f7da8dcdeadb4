"""What instances leave behind comes to the agent, and is no zombie of it when it ends."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "apps" / "subreaper.py"
ROOT = Path(__file__).parents[3]


def test_daemons_that_come_to_us_are_reaped_and_nobody_else_is(tmp_path: Path) -> None:
    """Five daemons end after their parents: none is left a zombie. Who is waited for is left to who waits."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        timeout=30,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr) == (
        ["five daemons are ours", "another program of ours: 1", "none is left, nor its zombie", "its own end: 7"],
        "",
    )
