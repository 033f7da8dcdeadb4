"""Golden transcripts: what a host, and a rollout, decides in the situations that users ask about.

After a change of the decisions `ROLLWAY_REWRITE=1 pytest tests/scripts` writes them anew: read the diff, and commit it
only if you understand what caused it.
"""

import os
from pathlib import Path

import pytest

from tests.scripts.rollout import RolloutScript
from tests.scripts.script import play
from tests.scripts.swap import SwapScript

FOLDER = Path(__file__).parent
SCRIPTS = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_decides_as_written(script: Path) -> None:
    """What is decided is what stands in the transcript, word for word."""
    actor = SwapScript() if script.stem.startswith("swap") else RolloutScript()
    written = script.read_text()
    played = play(written, actor.perform)
    if os.environ.get("ROLLWAY_REWRITE"):
        script.write_text(played)
    assert played == written or os.environ.get("ROLLWAY_REWRITE")
