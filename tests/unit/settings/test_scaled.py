"""New counts come into a settings file as a person would have written them there."""

import pytest

from agent.errors import RefusedError, SettingsError
from agent.model.ids import ProcessName
from agent.settings.scaled import with_counts

COUNTS = {ProcessName("web"): 3, ProcessName("worker"): 0}
TABLE = "[scale]\nweb = 3\nworker = 0\n"
WRITTEN = {
    "there are no settings": ("", TABLE),
    "there is no table, and the rest stays": (
        '# ours\nhosts = ["h1"]\n[rolling]\nbatch = 1 # slowly\n',
        f'# ours\nhosts = ["h1"]\n[rolling]\nbatch = 1 # slowly\n\n{TABLE}',
    ),
    "a count is changed where it stands, with what is said of it": (
        "[scale]\nweb = 2 # two\njob = 1\n\n[rolling]\nbatch = 1\n",
        "[scale]\nweb = 3 # two\njob = 1\nworker = 0\n\n[rolling]\nbatch = 1\n",
    ),
    "dotted keys": ("scale.web = 2\n", "scale.web = 3\nscale.worker = 0\n"),
    "a table in a line": ("scale = { web = 2 }\n", "scale = { web = 3, worker = 0}\n"),
}


@pytest.mark.parametrize(("before", "after"), WRITTEN.values(), ids=WRITTEN)
def test_a_file_keeps_its_words(before: str, after: str) -> None:
    """Only `[scale]` changes: comments, order and every other key stay as they were written."""
    assert with_counts(before, COUNTS, "settings") == after


def test_a_wrong_count_is_refused_by_its_place() -> None:
    """What the settings would refuse in a file is refused here in the same words."""
    with pytest.raises(SettingsError, match=r"scale\.web: expected an integer from 0 to 500, found 501"):
        with_counts("", {ProcessName("web"): 501}, "settings")


def test_what_cannot_be_written_safely_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the text not say afterwards what was asked for, it is not kept."""
    monkeypatch.setattr("agent.settings.scaled.tomlkit.TOMLDocument.as_string", lambda _document: "")
    with pytest.raises(RefusedError, match="cannot change"):
        with_counts("", COUNTS, "settings")
