"""`rollway init` in a folder: it writes once, overwrites never, and asks a person only."""

from pathlib import Path

import pytest

from agent.cli import main as cli
from agent.cli.check import check_file
from agent.errors import RefusedError, SettingsError, UsageError
from tests.integration.local.terminal import rollway

FLASK = "from flask import Flask\napp = Flask(__name__)\n"


def test_it_writes_what_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says by what it knew, what to look at, and what comes next; other people's folders are not looked into."""
    (tmp_path / "app.py").write_text(FLASK)
    (tmp_path / "node_modules" / "x").mkdir(parents=True)
    (tmp_path / "node_modules" / "x" / "package.json").write_text("{}")
    cli.run(["init", str(tmp_path)])
    written = capsys.readouterr()
    assert "is written, from Flask: app.py. Next: rollway check; rollway dev" in written.out
    assert "look at it: gunicorn is not among the dependencies" in written.err
    check_file(tmp_path / "rollway.toml")
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file() and entry.name != "app.py"] == [
        "rollway.toml"
    ]


def test_it_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there stays as it is, exit code 4; it can still be shown what would be written."""
    (tmp_path / "rollway.toml").write_text("mine")
    with pytest.raises(RefusedError) as refused:
        cli.run(["init", str(tmp_path)])
    assert refused.value.exit_code == 4
    cli.run(["init", "--print", str(tmp_path)])
    assert "[process.web]" in capsys.readouterr().out
    assert (tmp_path / "rollway.toml").read_text() == "mine"


def test_a_wrong_procfile_is_told(tmp_path: Path) -> None:
    """Nothing is made of a Procfile that says nothing; the line is named."""
    (tmp_path / "Procfile").write_text("web\n")
    with pytest.raises(SettingsError, match="Procfile"):
        cli.run(["init", str(tmp_path)])
    with pytest.raises(UsageError, match="is no folder"):
        cli.run(["init", str(tmp_path / "Procfile")])
    assert not (tmp_path / "rollway.toml").exists()


def test_a_person_is_asked_what_nothing_shows(tmp_path: Path) -> None:
    """On a terminal, and only where nothing was recognised."""
    with rollway(tmp_path, "init") as terminal:
        terminal.until("Which command starts it")
        terminal.press(b"./serve --port $PORT\n")
        assert terminal.end() == 0
    assert 'command = "./serve --port $PORT"' in (tmp_path / "rollway.toml").read_text()
    (tmp_path / "rollway.toml").unlink()
    (tmp_path / "app.py").write_text(FLASK)
    with rollway(tmp_path, "init") as terminal:
        assert terminal.end() == 0
    assert "Which command" not in terminal.output


def test_a_script_gets_the_default(tmp_path: Path) -> None:
    """Without a terminal nothing is asked: a place to put the command into is written, and that is said."""
    with rollway(tmp_path, "init", pipe=True) as terminal:
        assert terminal.end() == 0
    assert "put its command into [process.web]" in terminal.output
    assert 'command = "bin/web"' in (tmp_path / "rollway.toml").read_text()
