"""What `rollway check` remarks about an app that is right but could be smoother."""

import pytest

from agent.model.ids import AppName
from agent.settings.appfile import load_app
from agent.settings.procfile import load_procfile
from agent.settings.remarks import remarks

READY = '[process.web.probe.readiness]\nhttp = "/ready"\n'


def app(web: str, rest: str = READY, command: str = "serve") -> str:
    """An app whose `web` listens and has these keys besides."""
    return f"app = 'shop'\n[process.web]\ncommand = '{command}'\nlisten = ['0.0.0.0:80']\n{web}\n{rest}"


CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "an app without fault": (app(""), ()),
    "an app without a readiness probe": (app("", ""), ("process.web: no readiness probe",)),
    "a shell before a socket": (
        app("shell = true"),
        ("process.web: with shell = true the stop signal and LISTEN_PID",),
    ),
    "a shell that is replaced": (app("shell = true", command="exec serve"), ()),
    "a command for a shell without one": (
        app("", command="serve --port $PORT"),
        ("process.web: the command looks like one",),
    ),
    "a short linger": (app("stop.linger = '4999ms'"), ("process.web.stop: a linger of 4999ms",)),
    "a linger just long enough": (app("stop.linger = '5s'"), ()),
    "a short linger of what has no connections": (
        app("", f"{READY}[process.worker]\ncommand = 'work'\nstop.linger = '0s'\n"),
        (),
    ),
    "a key that may be missing": (app("", f"{READY}[config.URL]\n"), ("config.URL: declared without required",)),
    "a secret that is not declared one": (
        app("", f"{READY}[config.API_TOKEN]\nrequired = true\n"),
        ("config.API_TOKEN: looks like a secret",),
    ),
    "a secret that is declared one": (app("", f"{READY}[config.API_TOKEN]\nrequired = true\nsecret = true\n"), ()),
    "a release command among several users": (
        app("sandbox.user = 'shop'", f"{READY}[process.jobs]\ncommand = 'work'\n[release]\ncommand = 'migrate'\n"),
        ("release: process types run as several users",),
    ),
    "a release command that says which": (
        app(
            "sandbox.user = 'shop'",
            f"{READY}[process.jobs]\ncommand = 'work'\n[release]\ncommand = 'migrate'\nsandbox.user = 'shop'\n",
        ),
        (),
    ),
    "a key that only sounds like one": (app("", f"{READY}[config.MONKEY]\nrequired = true\n"), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_each_remark_is_made_when_it_holds_and_only_then(case: str) -> None:
    """A remark names the key path and says what will be felt."""
    text, beginnings = CASES[case]
    made = remarks(load_app(text, "rollway.toml"))
    assert len(made) == len(beginnings)
    for remark, beginning in zip(made, beginnings, strict=True):
        assert remark.startswith(beginning)


def test_a_procfile_app_is_told_of_the_gap_at_each_swap() -> None:
    """Whoever brings a Procfile learns from `rollway check` what a swap will cost."""
    made = remarks(load_procfile("web: exec serve\n", "Procfile", AppName("shop")))
    assert any("each swap leaves a gap" in remark for remark in made)
