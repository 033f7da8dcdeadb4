"""Bad input gets a clear error and the exit code that scripts depend on; nothing half done is left."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import ROOT, Fleet, fleet, rollway_command
from tests.e2e.repositories import git, repository
from tests.e2e.test_lives import deploy, plain

GOOD = 'app = "shop"\n[process.web]\ncommand = "true"\n'


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("bad"), hosts=1) as one:
        yield one


def rollway(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ROLLWAY_CONFIG": str(cwd / "none.toml")}
    return subprocess.run(
        rollway_command(*words), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


FILES = {
    "an unknown key": (GOOD + "cuont = 2\n", "cuont"),
    "a wrong type": (GOOD + 'count = "two"\n', "process.web.count"),
    "a bad duration": (GOOD + '[process.web.stop]\ngrace = "10 parsecs"\n', "process.web.stop.grace"),
    "a missing command": ('app = "shop"\n[process.web]\ncount = 1\n', "process.web.command"),
    "broken TOML": ('app = "shop\n', "rollway.toml"),
}


@pytest.mark.parametrize(("text", "named"), FILES.values(), ids=list(FILES))
def test_app_file(tmp_path: Path, text: str, named: str) -> None:
    """A wrong rollway.toml is refused with the file and the key path, by `check` and by `build`, exit 2."""
    source = repository(tmp_path / "r", {"v1": {"rollway.toml": text}})
    for words in (["check", str(source)], ["build", str(source), "--output", str(tmp_path / "out")]):
        done = rollway(*words, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "rollway.toml" in done.stderr
        assert named in done.stderr
    assert not list(tmp_path.glob("out*/**/*")), "nothing half done"


def test_neither_file(tmp_path: Path) -> None:
    """A repository with neither rollway.toml nor Procfile is told so."""
    source = repository(tmp_path / "r", {"v1": {"README": "hello"}})
    done = rollway("build", str(source), "--output", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 2
    assert "rollway.toml" in done.stderr
    assert "Procfile" in done.stderr


def test_unknown_ref(tmp_path: Path) -> None:
    """An unknown ref is named, exit 2."""
    source = repository(tmp_path / "r", {"v1": {"rollway.toml": GOOD}})
    done = rollway("build", str(source), "--ref", "nonesuch", "--output", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 2
    assert "nonesuch" in done.stderr


def test_errors_as_json(tmp_path: Path) -> None:
    """With --json an error is an object with error, what_to_do and code, in the last line of stderr."""
    source = repository(tmp_path / "r", {"v1": {"README": "hello"}})
    done = rollway("build", str(source), "--output", str(tmp_path / "out"), "--json", cwd=tmp_path)
    error = json.loads(done.stderr.splitlines()[-1])
    assert error["code"] == done.returncode == 2
    assert error["error"]
    assert error["what_to_do"]


def test_no_coordinator(tmp_path: Path) -> None:
    """Nobody answers: exit 6."""
    (tmp_path / "none.toml").write_text('coordinator = "https://127.0.0.1:9"\ntoken = "t"\n')
    assert rollway("status", cwd=tmp_path).returncode == 6


def test_unknown_names(one_host: Fleet) -> None:
    """An app, an environment or a release that does not exist: exit 5."""
    source = plain(one_host.folder / "names", "names", 9201, {"v1": "good"})
    deploy(one_host, "names", source, "v1")
    one_host.rollway("ps", "nonesuch", code=5)
    one_host.rollway("swap", "nonesuch", "local", "v1", code=5)
    one_host.rollway("swap", "names", "nonesuch", "v1", code=5)
    assert "v9" in one_host.rollway("swap", "names", "local", "v9", code=5).stderr
    one_host.rollway("release", "show", "names", "local", "v9", code=5)


def test_release_is_never_rewritten(one_host: Fleet) -> None:
    """A release name that is taken is refused, exit 4, and the release stays as it was."""
    source = plain(one_host.folder / "twice", "twice", 9202, {"v1": "good", "v2": "good"})
    deploy(one_host, "twice", source, "v1")
    before = one_host.rollway("release", "show", "twice", "local", "v1", "--json").stdout
    one_host.rollway("build", str(source), "--ref", "v2")
    words = ("release", "create", "twice", "local", "--ref", "v2", "--path", str(source), "--name", "v1")
    assert "v1" in one_host.rollway(*words, code=4).stderr
    assert one_host.rollway("release", "show", "twice", "local", "v1", "--json").stdout == before


def test_port_in_use(one_host: Fleet) -> None:
    """A port in use, also by the same user, fails the swap naming the port and who listens there."""
    with socket.create_server((one_host.address(), 9203), reuse_port=True):
        source = plain(one_host.folder / "port", "port", 9203, {"v1": "good"})
        said = deploy(one_host, "port", source, "v1", code=1)
    assert "9203" in said
    assert str(os.getpid()) in said


def test_required_config(one_host: Fleet) -> None:
    """A release that lacks a required key is refused before anything starts."""
    text = GOOD.replace("shop", "needy") + "[config.DATABASE_URL]\nrequired = true\n"
    source = repository(one_host.folder / "needy", {"v1": {"rollway.toml": text}})
    one_host.rollway("build", str(source), "--ref", "v1")
    words = ("release", "create", "needy", "local", "--ref", "v1", "--path", str(source), "--name", "v1")
    done = one_host.rollway(*words, code=4)
    assert "DATABASE_URL" in done.stderr
    assert one_host.rows("release", "list", "needy", "local") == []
    one_host.rollway("config", "set", "needy", "local", "DATABASE_URL=sqlite:///x")
    one_host.rollway(*words)


def test_dirty_tree_is_not_built(tmp_path: Path) -> None:
    """What lies in the work tree but not in the ref is not in the build, and the build says so."""
    source = repository(tmp_path / "r", {"v1": {"rollway.toml": GOOD, "a": "committed"}})
    (source / "a").write_text("dirty")
    clean = rollway("build", str(source), "--output", str(tmp_path / "one"), "--json", cwd=tmp_path)
    git(source, "checkout", "-q", ".")
    again = rollway("build", str(source), "--output", str(tmp_path / "two"), "--json", cwd=tmp_path)
    assert json.loads(clean.stdout)["id"] == json.loads(again.stdout)["id"]
    assert "uncommitted" in clean.stderr
    assert "uncommitted" not in again.stderr
