"""`rollway` on a host, beside a real agent: its settings as a file, and its verbs as a person there gives them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.model.roles import AgentSettings

DEADLINE_S = 30


def write_settings(chosen: AgentSettings, file: Path) -> Path:
    """`chosen` as agent.toml says it."""
    values: dict[str, object] = {
        "name": chosen.name,
        "coordinators": chosen.coordinators,
        "environments": chosen.environments,
        "state_dir": chosen.state_dir,
        "run_dir": chosen.run_dir,
    }
    tables: dict[str, dict[str, object]] = {
        "http": {"listen": chosen.http_listen},
        "tls": {"ca": chosen.tls.ca, "certificate": chosen.tls.certificate, "key": chosen.tls.key},
        "identity": {"age_key": chosen.age_key},
    }
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    for name, table in tables.items():
        text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    file.write_text(text)
    return file


def rollway(
    *words: str | Path, code: int = 0, before: Sequence[str] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run one verb, after the words `before`; fails unless it exits with `code`."""
    command = [*before, sys.executable, "-m", "agent", *map(str, words)]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), **environ},
        check=False,
        timeout=DEADLINE_S,
    )
    assert done.returncode == code, f"{words}: exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
    return done
