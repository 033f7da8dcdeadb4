"""`--ref`: a plan writes nothing, and the same build with the same config is one release."""

import json
from pathlib import Path

import pytest

from agent.artifacts.build import Built, build_ref
from agent.artifacts.sign import payload_digest, seal
from agent.cli.draft import draft
from agent.client.answers import Config
from agent.model.ids import AppName, EnvironmentName, ReleaseName
from tests.e2e.repositories import repository
from tests.integration.cli.coordinator import FakeCoordinator
from tests.integration.cli.story import LOCAL, rollout, rollway

APP_FILE = 'app = "shop"\n[process.web]\ncommand = "./serve"\n'
CONFIG = {"version": 3, "values": {"COLOUR": {"plain": "red"}}, "secrets": [], "recipient": ""}
HOSTS = [
    {"host": "h1", "address": "127.0.0.1", "connected": True, "environments": ["local"]},
    {"host": "h2", "address": "127.0.0.2", "connected": True, "environments": ["local"]},
    {"host": "h3", "address": "127.0.0.3", "connected": True, "environments": ["staging"]},
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return repository(tmp_path / "shop", {"v1.2.0": {"rollway.toml": APP_FILE, "serve": "#!/bin/sh\n"}})


def known(fake: FakeCoordinator, source: Path, *, config_version: int, name: str = "louder") -> Built:
    """A coordinator that has the build of v1.2.0, and one release of it, made with that version of the config."""
    built = build_ref(source, "v1.2.0", None, source.parent / "out", lambda _: None)
    config = Config(version=config_version, values={}, secrets=(), recipient="")
    release = draft(
        AppName("shop"),
        EnvironmentName("local"),
        build=built.build,
        manifest=built.manifest,
        config=config,
        taken=(),
        name=ReleaseName(name),
    )
    envelope = seal(release)
    digest = payload_digest(envelope)
    entry = {"app": "shop", "environment": "local", "release": name, "build": built.build.id, "digest": digest}
    rest = {"version": "1.2.0", "commit": built.build.commit, "created_at_s": 0, "state": ""}
    builds = f"/v1/apps/shop/builds/{built.build.id}"
    made = {"id": built.build.id, "app": "shop", "version": "1.2.0", "commit": built.build.commit}
    fake.answers |= {
        ("GET", "/v1/apps/shop/builds"): (200, []),
        ("GET", builds): (200, built.manifest),
        ("PUT", builds): (200, made),
        ("PUT", f"{builds}/archive"): (200, {}),
        ("GET", f"{LOCAL}/config"): (200, CONFIG),
        ("GET", LOCAL): (200, {"file": "", "settings": {}}),
        ("GET", f"{LOCAL}/releases"): (200, [entry | rest]),
        ("GET", f"{LOCAL}/releases/{name}"): (200, {"envelope": envelope.decode(), "digest": digest}),
        ("GET", f"{LOCAL}/state"): (200, {"runs": None, "stable": [], "sequence": 0}),
        ("GET", "/v1/status"): (200, {"apps": [], "hosts": HOSTS}),
        ("POST", f"{LOCAL}/rollouts"): (200, {"plan": ["as planned there"], "rollout": rollout()}),
    }
    return built


def written(fake: FakeCoordinator) -> list[str]:
    """What was asked that is no question; an order that is only to be planned is one."""
    plans = f"{LOCAL}/rollouts"
    return [a.path for a in fake.asked if a.method != "GET" and not (a.path == plans and b'"plan":true' in a.body)]


def test_the_plan_of_a_ref_writes_nothing(
    source: Path, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No build, no release, no config: what would be made is named, and the steps of the swap follow."""
    known(fake, source, config_version=2)
    assert rollway(monkeypatch, "swap", "shop", "local", "--ref", "v1.2.0", "--path", str(source), "--plan") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("would build 1.2.0 (")
    assert lines[0].endswith(" and release it as v1.2.0, then:")
    assert lines[1] == "swap shop in local: nothing -> v1.2.0"
    assert any(line.startswith("swap h1") for line in lines)
    assert not any("h3" in line for line in lines)
    assert written(fake) == []


def test_the_first_plan_of_an_app_needs_no_coordinator_that_knows_it(
    source: Path, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before its first build an app is nowhere, and one can still see what would happen."""
    fake.answers["GET", "/v1/status"] = (200, {"apps": [], "hosts": HOSTS})
    words = ("swap", "shop", "local", "--ref", "main", "--path", str(source), "--version", "9.0.0", "--plan", "--json")
    assert rollway(monkeypatch, *words) == 0
    (first, second, *_) = json.loads(capsys.readouterr().out)["plan"]
    assert first.endswith("release it as v9.0.0, then:")
    assert second == "swap shop in local: nothing -> v9.0.0"
    assert written(fake) == []


def test_the_plan_of_a_ref_that_is_released_is_that_of_its_release(
    source: Path, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same build with the same config is the same release, whatever its name."""
    known(fake, source, config_version=3)
    assert rollway(monkeypatch, "swap", "shop", "local", "--ref", "v1.2.0", "--path", str(source), "--plan") == 0
    assert capsys.readouterr().out == "as planned there\n"
    assert written(fake) == []


MADE = {
    "the same config, without a name": (3, (), "louder", 0),
    "the same config, with a name": (3, ("--name", "other"), "other", 1),
    "another config": (2, (), "v1.2.0", 1),
    "another version of the same commit": (3, ("--version", "2.0.0"), "v2.0.0", 1),
}


@pytest.mark.parametrize("case", MADE)
def test_no_second_release_is_made_of_the_same_build_and_config(
    case: str,
    source: Path,
    fake: FakeCoordinator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Asking again gives the release that is there, unless a name asks for one more."""
    config_version, words, name, posted = MADE[case]
    built = known(fake, source, config_version=config_version)
    if "--version" in words:
        other = build_ref(source, "v1.2.0", "2.0.0", source.parent / "other", lambda _: None)
        fake.answers["GET", f"/v1/apps/shop/builds/{built.build.id}"] = (200, other.manifest)
    made = {"app": "shop", "environment": "local", "release": name, "build": built.build.id}
    fake.answers["POST", f"{LOCAL}/releases"] = (201, made)
    create = ("release", "create", "shop", "local", "--ref", "v1.2.0", "--path", str(source), "--json")
    assert rollway(monkeypatch, *create, *words) == 0
    assert json.loads(capsys.readouterr().out)["release"] == name
    assert len(fake.bodies("POST")) == posted


def test_the_repository_of_another_app_is_refused_before_it_is_sent(
    source: Path, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped path makes no app."""
    assert rollway(monkeypatch, "swap", "blog", "local", "--ref", "main", "--path", str(source)) == 2
    assert "is the repository of shop, not of blog" in capsys.readouterr().err
    assert fake.asked == []


def test_a_version_is_for_what_is_built(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A release that is there keeps its version."""
    assert rollway(monkeypatch, "swap", "shop", "local", "v1", "--version", "2.0.0") == 2
    assert "--ref only" in capsys.readouterr().err
    assert fake.asked == []
