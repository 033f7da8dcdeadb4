"""Builds what is written in C into the package, for a wheel and for a checkout alike; each source says what it is for.

Needs a C compiler (`CC`, else cc) and the C library's headers; a host that installs a wheel needs neither.
"""

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS: Final = ("-std=gnu17", "-O2", "-Wall", "-Wextra", "-fstack-protector-strong")
BUILT: Final = {
    "agent/wire/libtextlines.so": ("native/textlines.c", "-shared", "-fPIC"),
    "agent/linux/forker": ("native/forker.c", "-static"),
}
"""What is built, of which source, and how."""


class Native(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's own words
        for target, (source, *flags) in BUILT.items():
            compile_c(Path(self.root, source), Path(self.root, target), flags)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"] += BUILT


def compile_c(source: Path, target: Path, flags: list[str]) -> None:
    """Make `target`; whoever has the one before mapped keeps it. Raises SystemExit with what to do."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    made = target.with_name(f"{target.name}.new")
    try:
        subprocess.run([*compiler, *FLAGS, *flags, "-o", made, source], check=True)
    except FileNotFoundError:
        raise SystemExit(
            f"{source.name} is to be compiled, and there is no {compiler[0]!r}: apt-get install gcc libc6-dev"
        ) from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{source.name} cannot be compiled: {compiler[0]} exits with {error.returncode}") from None
    made.replace(target)
