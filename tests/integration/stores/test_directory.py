"""The directory store's own risks: a writer that is killed, a disk that is full."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from agent.model.ids import AppName, EnvironmentName, ReleaseName
from agent.stores.directory import DirectoryStore

SHOP, LOCAL = AppName("shop"), EnvironmentName("local")

PUT = """
import hashlib, sys
from pathlib import Path
from agent.errors import RollwayError
from agent.stores.directory import DirectoryStore
root, source, digest = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
print("begin", flush=True)
try:
    DirectoryStore(root).put_archive("shop", digest, source)
except RollwayError as error:
    print(error)
print("left", *sorted(path.name for path in root.rglob("*") if path.is_file()))
"""


def put_command(root: Path, source: Path, digest: str = "sha256:" + "a" * 64) -> list[str]:
    return [sys.executable, "-c", PUT, str(root), str(source), digest]


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    """A person finds a release where the documentation says it lies, readable by nobody else."""
    DirectoryStore(tmp_path / "store").put_release(SHOP, LOCAL, ReleaseName("v1"), b"{}")
    file = tmp_path / "store" / "releases" / "shop" / "local" / "v1.json"
    assert file.read_bytes() == b"{}"
    assert file.stat().st_mode & 0o7777 == 0o600
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """Killed in the middle of a put, there is no archive of that name; the leftover is swept at the next start."""
    pipe, root = tmp_path / "pipe", tmp_path / "store"
    os.mkfifo(pipe)
    with (
        subprocess.Popen(put_command(root, pipe), stdout=subprocess.PIPE) as process,
        pipe.open("wb", buffering=0) as feed,
    ):
        for _ in range(100):
            feed.write(bytes(65536))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    left = [path for path in root.rglob("*") if path.is_file()]
    assert [path.name.startswith(".putting-") for path in left] == [True]
    DirectoryStore(root).sweep()
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """On a full disk the person is told so, and what was written is gone."""
    source, root = tmp_path / "source", tmp_path / "store"
    source.write_bytes(bytes(2 << 20))
    root.mkdir()
    mounted = f'mount -t tmpfs -o size=1m none {root} && exec "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", *put_command(root, source)],
        capture_output=True,
        text=True,
        check=True,
    )
    begin, error, left = done.stdout.splitlines()
    assert (begin, left) == ("begin", "left")
    assert "No space left on device. Nothing of it was kept. Free space" in error
