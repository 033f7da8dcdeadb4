"""The disk of a test's hosts: a small Debian 12, made once on a machine and kept below /var/tmp.

Rules: named by a digest of all that goes in, so that another wish is another image; whole or not there. Hosts lay
their own changes over it and never write to it. Its kernel is for the one that is booted as a virtual machine.
"""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

KEPT: Final = Path("/var/tmp/rollway-test-hosts")
SUITE: Final = "bookworm"
PACKAGES: Final = "systemd,systemd-sysv,dbus,python3,python3-venv,procps,curl,git,linux-image-cloud-amd64"
HOOKS: Final = (
    ': >"$1/etc/machine-id"',  # each host makes its own
    'rm -f "$1"/etc/systemd/system/timers.target.wants/*',  # no apt and no fsck in the midst of a test
)


def image() -> Path:
    """Give the folder of the image; the first to ask makes it (half a minute), others wait."""
    digest = hashlib.sha256(repr((SUITE, PACKAGES, HOOKS)).encode()).hexdigest()[:16]
    made = KEPT / f"image-{digest}"
    KEPT.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (KEPT / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _make(made)
    return made


def _make(made: Path) -> None:
    half = made.with_name("image-half")
    shutil.rmtree(half, ignore_errors=True)
    hooks = [word for hook in HOOKS for word in ("--customize-hook", hook)]
    debian = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *hooks, SUITE, str(half)]
    done = subprocess.run(debian, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"cannot make the image of the hosts:\n{done.stderr[-4000:]}"
    half.rename(made)
