"""What a bench says of where, and of what, it was measured: without names of hosts or people."""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

from msgspec import Struct

ROOT: Final = Path(__file__).parents[2]


class Machine(Struct, frozen=True, kw_only=True):
    """Where it was measured, without names."""

    processor: str
    cores: int
    kernel: str
    python: str

    def __str__(self) -> str:
        return f"{self.processor}, {self.cores} cores, {self.kernel}, Python {self.python}"


def machine() -> Machine:
    with open("/proc/cpuinfo") as file:  # noqa: PTH123 - one short read
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return Machine(
        processor=models[0] if models else platform.machine(),
        cores=os.cpu_count() or 1,
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def commit() -> str:
    """Which Rollway this is."""
    if shutil.which("git") is None:
        return "this checkout"
    words = ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "this checkout"
