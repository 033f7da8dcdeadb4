"""Releases out of a folder and assignments out of a hat: what a coordinator gives a host, without the coordinator."""

import contextlib
import io
import os
import secrets
import shutil
import socket
from pathlib import Path
from typing import Final

import msgspec
from anyio import to_thread
from msgspec.structs import replace

from agent.artifacts import manifest, sign
from agent.artifacts.archive import pack
from agent.model.assignment import AdminRun, Assignment, ReleaseRef
from agent.model.build import Build
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName, RolloutId
from agent.model.process import (
    AppSpec,
    HttpCheck,
    Probe,
    Probes,
    ProcessType,
    ReleaseCommand,
    RestartPolicy,
    StopPolicy,
)
from agent.model.release import ConfigValue, Order, Release
from agent.wire import canonical

APP: Final = AppName("shop")
ENVIRONMENT: Final = EnvironmentName("production")
PYTHON: Final = shutil.which("python3") or "python3"
SAMPLE: Final = (Path(__file__).parent / "sample.py").read_text()
READY: Final = Probe(check=HttpCheck(path="/ready"), period_ms=100, failures=3)


def web(listen: str, count: int = 2, **more: object) -> ProcessType:
    """The sample app as a listening type that becomes ready, and drains, quickly."""
    usual = ProcessType(
        name=ProcessName("web"),
        command=f"{PYTHON} sample.py",
        count=count,
        listen=(listen,),
        stop=StopPolicy(linger_ms=3_000, grace_ms=3_000),
        restart=RestartPolicy(base_delay_ms=100),
        probes=Probes(startup=replace(READY, failures=100), readiness=READY),
    )
    return msgspec.structs.replace(usual, **more)


class FolderSource:
    """Releases as a coordinator would serve them, out of a dict and a folder; counts what is fetched."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._envelopes: dict[tuple[str, str, str], bytes] = {}
        self._manifests: dict[Digest, bytes] = {}
        self.archives_fetched = 0

    def add(
        self,
        name: str,
        spec: AppSpec,
        *,
        files: dict[str, str] | None = None,
        config: dict[str, ConfigValue] | None = None,
        version: str | None = None,
    ) -> ReleaseRef:
        """Build and release `files`, the sample app among them."""
        tree = self._folder / f"tree-{name}"
        for path, text in {"sample.py": SAMPLE, "VERSION": name, **(files or {})}.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        packed = io.BytesIO()
        archive, entries = pack(tree, packed, mtime_s=1_700_000_000, exclude=())
        build = Build(
            app=spec.app,
            version=version or name,
            commit="0" * 40,
            committed_at_s=1_700_000_000,
            archive=archive,
            files=entries,
            spec=spec,
        )
        described = manifest.write_manifest(build)
        (self._folder / build.id).write_bytes(packed.getvalue())
        self._manifests[build.id] = described
        envelope = sign.seal(
            Release(
                app=spec.app,
                environment=ENVIRONMENT,
                name=ReleaseName(name),
                build=build.id,
                build_manifest=canonical.digest_of(described),
                version=version or name,
                commit="0" * 40,
                created_at_s=1_700_000_000,
                config_version=1,
                config=config or {},
                spec=spec,
            )
        )
        self._envelopes[spec.app, ENVIRONMENT, name] = envelope
        return ReleaseRef(name=ReleaseName(name), digest=sign.payload_digest(envelope))

    def serve_as(self, name: str, other: str) -> None:
        """Answer with release `other` when `name` is asked for."""
        self._envelopes[APP, ENVIRONMENT, name] = self._envelopes[APP, ENVIRONMENT, other]

    async def release(self, app: AppName, environment: EnvironmentName, name: ReleaseName) -> bytes:
        return self._envelopes[app, environment, name]

    async def manifest(self, app: AppName, build: Digest) -> bytes:
        return self._manifests[build]

    async def archive(self, app: AppName, build: Digest, size_bytes: int, target: Path) -> None:
        self.archives_fetched += 1
        await to_thread.run_sync(shutil.copyfile, self._folder / build, target)


class Wish:
    """Makes assignments of one app, each newer than the one before, with the order that allows it."""

    def __init__(self) -> None:
        self._number = 0
        self._runs: ReleaseRef | None = None

    def for_(
        self,
        release: ReleaseRef | None,
        *,
        admin: str | None = None,
        key: str | None = None,
        kind: str = "swap",
    ) -> Assignment:
        self._number += 1
        order = ""
        if release is not None:
            before, self._runs = self._runs, release
            order = sign.seal(
                Order(
                    kind="rollback" if kind == "rollback" else "swap",
                    app=APP,
                    environment=ENVIRONMENT,
                    release=release.name,
                    release_digest=release.digest,
                    replaces=before.name if before else None,
                    replaces_digest=before.digest if before else None,
                    sequence=self._number,
                )
            ).decode()
        return Assignment(
            app=APP,
            environment=ENVIRONMENT,
            epoch=1,
            generation=self._number,
            release=release,
            order=order,
            admin=AdminRun(rollout=RolloutId(admin), release=release) if admin and release else None,
            min_ready_ms=200,
            deadline_ms=20_000,
            environment_key=key,
        )


def release_command(command: str) -> ReleaseCommand:
    return ReleaseCommand(command=command, timeout_ms=10_000)


def free_port() -> int:
    """A port that nobody uses, below those that the kernel gives to connections; tests that run beside have others."""
    beside = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    while True:
        port = 20_000 + beside * 3_000 + secrets.randbelow(3_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
