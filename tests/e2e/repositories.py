"""Git repositories of small apps, made on the spot: one commit and one tag a version."""

import os
import shutil
import subprocess
from pathlib import Path

_IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_AUTHOR_DATE": "2025-12-09T10:30:00Z",
    "GIT_COMMITTER_DATE": "2025-12-09T10:30:00Z",
}


def git(repository: Path, *words: str) -> str:
    environment = {**os.environ, **_IDENTITY, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", *words], cwd=repository, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(folder: Path, versions: dict[str, dict[str, str]], source: Path | None = None) -> Path:
    """A repository at `folder`; each version is a commit and a tag, and its files (path -> text) lie over `source`."""
    if source is None:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "-q", "-b", "main")
    for version, files in versions.items():
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if text.startswith("#!"):
                path.chmod(0o755)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", version)
        git(folder, "tag", version)
    return folder
