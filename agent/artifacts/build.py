"""A ref as a build: export, run the app's build lines, archive, describe.

Rules: the lines see the commit and a stated environment, nothing of the work tree and nothing of the caller's variables
but PATH, HOME and those that say *where* packages are fetched from (a mirror, a proxy, its certificates), never *what*.
Everything happens in a folder of its own that is gone afterwards, also after Ctrl-C; archive and manifest appear in the
output folder by rename, the manifest last. Synchronous; a callback that raises ends the build.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from agent.artifacts import export
from agent.artifacts.archive import pack
from agent.artifacts.manifest import build_fault, write_manifest
from agent.artifacts.steps import OnLine, build_environment, run_line
from agent.errors import FailedError, SettingsError, UsageError
from agent.linux.atomic import write_atomically
from agent.model.build import Build
from agent.model.ids import NAME_EXPECTED, AppName, is_name
from agent.model.process import AppSpec
from agent.settings.appfile import load_app
from agent.settings.procfile import load_procfile

_VERSION_MAX: Final = 64
_OUTPUT_MODE: Final = 0o644


class Built(Struct, frozen=True, kw_only=True):
    build: Build
    manifest: bytes
    archive: Path


def build_ref(repo: Path, ref: str, version: str | None, output: Path, on_line: OnLine) -> Built:
    """Build what `ref` names; `output` gets `<sha256>.tar.zst` and `<sha256>.json`."""
    source = export.find(repo, ref)
    if source.is_dirty:
        on_line(f"uncommitted changes in {repo} are not part of this build: it is {ref}, {source.commit[:7]}")
    version = _version(source, version, on_line)
    with _told(source, output), tempfile.TemporaryDirectory(prefix="rollway-build-") as work:
        tree, scratch = Path(work, "tree"), Path(work, "tmp")
        export.export(source, tree)
        scratch.mkdir()
        spec = read_spec(tree, source)
        environment = build_environment(os.environ, source.committed_at_s, scratch)
        for line in spec.build.run:
            on_line(f"$ {line}")
            run_line(line, tree, environment, on_line)
        return _archive(tree, source, version, spec, output)


@contextmanager
def _told(source: export.Source, output: Path) -> Iterator[None]:
    """Failures of the disk, in words: a full one does not say which it is."""
    try:
        yield
    except OSError as error:
        where = error.filename or f"{tempfile.gettempdir()} or {output}"
        raise FailedError(
            f"cannot build {source.ref!r}: {error.strerror}: {where}",
            "Nothing of it was kept. Free space (`df -h`, `df -i`), or set TMPDIR to a folder with more.",
        ) from error


def read_spec(tree: Path, source: export.Source) -> AppSpec:
    """What the app says of itself in this commit."""
    for name in ("rollway.toml", "Procfile"):
        file = tree / name
        if file.is_file():
            text = _text(file, f"{name} at {source.ref}")
            if name == "Procfile":
                return load_procfile(text, f"{name} at {source.ref}", _app_name(source))
            return load_app(text, f"{name} at {source.ref}")
    raise UsageError(
        f"cannot build {source.ref!r}: it has neither rollway.toml nor Procfile in its root",
        "Write one and commit it; config/rollway.toml shows every key.",
    )


def _version(source: export.Source, given: str | None, on_line: OnLine) -> str:
    if given is not None:
        if not (0 < len(given) <= _VERSION_MAX and given.isascii() and given.isprintable() and " " not in given):
            raise UsageError(f"cannot build version {given!r}", f"Give 1 to {_VERSION_MAX} letters, digits and signs.")
        return given
    tagged = export.tagged_version(source)
    if tagged is not None:
        return tagged
    version = f"0.0.0+{source.commit[:7]}"
    on_line(f"version {version}: {source.commit[:7]} has no tag of the form vX.Y.Z (give one with --version)")
    return version


def _archive(tree: Path, source: export.Source, version: str, spec: AppSpec, output: Path) -> Built:
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=output) as beside:
        with tempfile.NamedTemporaryFile(dir=beside, delete=False) as packed:
            archive, files = pack(tree, packed, mtime_s=source.committed_at_s, exclude=spec.build.exclude)
            packed.flush()
            os.fchmod(packed.fileno(), _OUTPUT_MODE)
            os.fsync(packed.fileno())
        build = Build(
            app=spec.app,
            version=version,
            commit=source.commit,
            committed_at_s=source.committed_at_s,
            archive=archive,
            files=files,
            spec=spec,
        )
        fault = build_fault(build)
        if fault is not None:
            raise FailedError(f"cannot build {spec.app}: {fault}", "No host would accept it: correct the build lines.")
        manifest = write_manifest(build)
        stem = build.id.removeprefix("sha256:")
        target = Path(packed.name).rename(output / f"{stem}.tar.zst")
        write_atomically(output / f"{stem}.json", manifest, _OUTPUT_MODE)
    return Built(build=build, manifest=manifest, archive=target)


def _text(file: Path, name: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(
            name, "", "UTF-8 text", f"byte {error.object[error.start]:#04x} at {error.start}"
        ) from error


def _app_name(source: export.Source) -> AppName:
    """A Procfile does not name its app: the folder does."""
    name = source.repo.resolve().name.removesuffix(".git").lower()
    if not is_name(name):
        raise UsageError(
            f"cannot name the app after the folder {name!r}: expected {NAME_EXPECTED}",
            'Rename the folder, or write a rollway.toml with app = "…".',
        )
    return AppName(name)
