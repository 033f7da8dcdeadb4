"""`rollway demo`, as `make demo` runs it: the proofs hold, and nothing is left."""

import subprocess

import pytest

from tests.e2e.fleet import ROOT, rollway_command


@pytest.mark.timeout(300)
def test_demo() -> None:
    """From nothing: swaps under load, kills, a bad release undone; no request fails, exit 0, one line per event."""
    done = subprocess.run(rollway_command("demo"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    proofs = [line.split() for line in done.stdout.splitlines() if line.strip().startswith(("held", "broken"))]
    assert len(proofs) >= 5
    assert {words[0] for words in proofs} == {"held"}
