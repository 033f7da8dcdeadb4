"""What most tests of verbs begin with: v1 of the shop runs, v2 can be swapped to, and a rollout is under way."""

import sys

import pytest

from agent import __main__
from agent.artifacts.sign import payload_digest, seal
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName
from agent.model.process import AppSpec, ProcessType
from agent.model.release import Release
from tests.integration.cli.coordinator import FakeCoordinator

LOCAL = "/v1/apps/shop/environments/local"
DIGEST = Digest(f"sha256:{'a' * 64}")
OLD = {"name": "v1", "digest": f"sha256:{'1' * 64}"}
OLDER = {"name": "v0", "digest": f"sha256:{'0' * 64}"}
ENVELOPE = seal(
    Release(
        app=AppName("shop"),
        environment=EnvironmentName("local"),
        name=ReleaseName("v2"),
        build=DIGEST,
        build_manifest=DIGEST,
        version="2.0.0",
        commit="c" * 40,
        created_at_s=0,
        config_version=0,
        config={},
        spec=AppSpec(
            app=AppName("shop"), processes=(ProcessType(name=ProcessName("web"), command="./serve", count=2),)
        ),
    )
)


def rollway(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of `rollway …`."""
    monkeypatch.setattr(sys, "argv", ["rollway", *words])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def rollout(**fields: object) -> dict[str, object]:
    shown = {
        "id": "r-1",
        "app": "shop",
        "environment": "local",
        "release": "v2",
        "from": "v1",
        "strategy": "rolling",
        "state": "running",
        "reason": "",
        "changed_ms": 1,
        "hosts": [{"host": "h1", "state": "swapping"}],
        "stragglers": [],
    }
    return shown | fields


def ready_to_swap(fake: FakeCoordinator, **ends: object) -> None:
    """A coordinator on which v1 runs and v2 can be swapped to; the rollout then ends so."""
    state = {"runs": OLD, "stable": [OLDER, OLD], "sequence": 7, "rollout": None}
    shown = {"envelope": ENVELOPE.decode(), "digest": payload_digest(ENVELOPE)}
    fake.answers |= {
        ("GET", f"{LOCAL}/state"): (200, state),
        ("GET", f"{LOCAL}/releases/v2"): (200, shown),
        ("GET", f"{LOCAL}/releases/v0"): (200, shown),
        ("POST", f"{LOCAL}/rollouts"): (201, rollout()),
        ("GET", "/v1/rollouts/r-1"): [(200, rollout()), (200, rollout(changed_ms=2, **ends))],
    }
