"""`Procfile`: process types as foreman knows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SettingsError
from agent.model.ids import AppName
from agent.settings.procfile import load_procfile

APP = AppName("shop")


def test_web_binds_its_own_port_and_the_others_are_plain_commands() -> None:
    """`web` has one instance that stops before the next one starts; `worker` is started beside the old one."""
    spec = load_procfile("# shop\nweb: node server.js --port $PORT\n\nworker:  bin/work  \n", "Procfile", APP)
    web, worker = spec.processes
    assert (web.command, web.shell, web.count) == ("node server.js --port $PORT", True, 1)
    assert (web.bind, web.swap, web.listen) == ("port", "stop-first", ("0.0.0.0:5000",))
    assert (worker.command, worker.shell, worker.count) == ("bin/work", True, 1)
    assert (worker.bind, worker.swap, worker.listen) == ("fd", "start-first", ())


def test_release_is_the_release_command_and_no_process_type() -> None:
    """What Procfiles call `release` runs once per rollout, in a shell as every line of a Procfile."""
    spec = load_procfile("release: a && b\nweb: c\n", "Procfile", APP)
    assert [process.name for process in spec.processes] == ["web"]
    assert spec.release is not None
    assert spec.release.command == "/bin/sh -c 'a && b'"


WRONG = {
    "an empty file": ("", ("Procfile: process: expected at least one process type",)),
    "only a release": ("release: x\n", ("process: expected at least one process type",)),
    "a line without a colon": ("web: x\nworker y\n", ("Procfile:2: expected a line such as", "worker y")),
    "a type without a command": ("web:\n", ("Procfile:1: web: expected a command, found nothing",)),
    "a type twice": ("web: x\nweb: y\n", ("Procfile:2: web: expected each process type once", "line 1")),
    "a name with a capital": ("Web: x\n", ("Procfile:1: Web: expected a name",)),
    "{fd} where no socket is handed over": (
        "web: x\n\na: y {fd}\n",
        ("Procfile:3: process.a.command: expected no {fd}",),
    ),
    "NUL": ("web: x\0\n", ("Procfile:1: expected a line",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_line_is_refused_by_its_number(case: str) -> None:
    """Nothing in a Procfile is skipped silently."""
    text, fragments = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        load_procfile(text, "Procfile", APP)
    for fragment in fragments:
        assert fragment in caught.value.error


@given(st.text(alphabet=st.sampled_from("web:# \n\t$Aa-_'\"{fd}\0")))
def test_any_text_gives_an_app_or_a_settings_error(text: str) -> None:
    """Whatever a Procfile holds, a person gets an app or an error for people."""
    try:
        spec = load_procfile(text, "Procfile", APP)
    except SettingsError:
        return
    assert spec.processes
