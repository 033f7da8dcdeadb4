"""`rollway build`: a git ref as an immutable build, kept in a file or given to the coordinator.

`rollway build list` and `rollway build show` are verbs of their own; a folder of that name is written ./list.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import rich_click as click

from agent.artifacts.build import Built, build_ref
from agent.artifacts.manifest import read_manifest
from agent.cli.arguments import app_argument, json_option
from agent.cli.moments import ago, in_full
from agent.cli.output import remark, show, show_json, show_table
from agent.cli.session import ask
from agent.client.answers import BuildEntry, BuildMade
from agent.client.context import find_context
from agent.errors import NotFoundError, UsageError
from agent.linux.clock import now
from agent.model.ids import AppName

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

_ARCHIVE: Final = ".tar.zst"


class BuildOrNoun(click.RichCommand):
    """`rollway build [PATH]`, unless the first word is one of its nouns."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        noun = NOUNS.get(args[0]) if args else None
        if noun is not None:
            return noun.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command("build", cls=BuildOrNoun)
@click.argument("path", default=".")
@click.option("--ref", default="HEAD", show_default=True, help="The commit, tag or branch to build.")
@click.option("--version", help="Instead of the version that a tag vX.Y.Z of the commit gives.")
@click.option("--output", help="A folder, or a file named *.tar.zst; needs no coordinator.")
@json_option
def command(path: str, *, ref: str, version: str | None, output: str | None, as_json: bool) -> None:
    """Build a ref of the repository PATH, once and for all: the same commit gives the same build.

    Also: `rollway build list APP` and `rollway build show APP BUILD`. A folder named list is written ./list.

    Examples: rollway build; rollway build ~/shop --ref v1.2.0; rollway build --output shop.tar.zst
    """
    if output is None:
        with built_here(path, ref, version) as built:
            made = ask(lambda coordinator: upload(coordinator, built))
    else:
        made = summary(build_to(Path(path), ref, version, Path(output)))
    if as_json:
        show_json(made)
    else:
        show(f"{made.app} {made.version} ({made.commit[:7]}) is build {made.id}")


@click.command("list")
@app_argument
@json_option
def list_builds(app: AppName, *, as_json: bool) -> None:
    """List the builds of APP.

    Example: rollway build list shop
    """
    builds = ask(lambda coordinator: coordinator.builds(app))
    if as_json:
        show_json(builds)
        return
    now_ms = now().wall_ms
    show_table(
        ["BUILD", "VERSION", "COMMIT", "COMMITTED", "BYTES"],
        [[b.id[:19], b.version, b.commit[:7], ago(b.committed_at_s * 1000, now_ms), b.size_bytes] for b in builds],
    )


@click.command("show")
@app_argument
@click.argument("build")
@json_option
def show_build(app: AppName, build: str, *, as_json: bool) -> None:
    """Show a build's manifest: every file with its digest. BUILD is an id, the beginning of one, or a version.

    Example: rollway build show shop 1.2.0
    """

    async def fetch(coordinator: "Coordinator") -> bytes:
        return await coordinator.build_manifest(app, (await find_build(coordinator, app, build)).id)

    manifest = ask(fetch)
    if as_json:
        show(manifest.decode())
        return
    found = read_manifest(manifest)
    show(f"{found.app} {found.version} ({found.commit}), committed {in_full(found.committed_at_s * 1000)}")
    show(f"{found.id}, {found.archive.size_bytes} bytes, unpacked {found.archive.tar_bytes}")
    show_table(
        ["FILE", "MODE", "BYTES", "DIGEST"],
        [
            [entry.path, f"{entry.mode:o}", entry.size_bytes, entry.digest or f"-> {entry.link}"]
            for entry in found.files
        ],
    )


NOUNS: Final = {"list": list_builds, "show": show_build}


@contextmanager
def built_here(path: str, ref: str, version: str | None, *, app: AppName | None = None) -> Iterator[Built]:
    """Build, of `app` if one is named, into a folder that goes with the block.

    Before any event loop runs: only so does Ctrl-C end the build line that runs, and at once.
    """
    find_context(os.environ)  # who knows no coordinator is told before the build, not after it
    with tempfile.TemporaryDirectory(prefix="rollway-upload-") as folder:
        built = build_ref(Path(path), ref, version, Path(folder), remark)
        if app is not None and built.build.app != app:
            raise UsageError(
                f"{path} is the repository of {built.build.app}, not of {app}", f"Give --path of {app}'s repository."
            )
        yield built


async def upload(coordinator: "Coordinator", built: Built) -> BuildMade:
    """Give a build to the coordinator, to which one that is already there is no news."""
    await coordinator.upload_archive(built.build.app, built.build.id, built.archive)
    await coordinator.upload_manifest(built.build.app, built.build.id, built.manifest)
    return summary(built)


def build_to(path: Path, ref: str, version: str | None, output: Path) -> Built:
    """Build into a folder, under the build's own name, or as a file of a given name with its manifest beside it."""
    if not output.name.endswith(_ARCHIVE):
        return build_ref(path, ref, version, output, remark)
    built = build_ref(path, ref, version, output.parent, remark)
    built.archive.replace(output)
    manifest = built.archive.with_name(built.archive.name.removesuffix(_ARCHIVE) + ".json")
    manifest.replace(output.with_name(output.name.removesuffix(_ARCHIVE) + ".json"))
    return msgspec.structs.replace(built, archive=output)


def summary(built: Built) -> BuildMade:
    build = built.build
    return BuildMade(id=build.id, app=build.app, version=build.version, commit=build.commit)


async def find_build(coordinator: "Coordinator", app: AppName, words: str) -> BuildEntry:
    """The one build that `words` mean: an id or its beginning, with or without `sha256:`, or a version."""
    builds = await coordinator.builds(app)
    beginning = words if words.startswith("sha256:") else f"sha256:{words}"
    found = [build for build in builds if build.version == words] or [b for b in builds if b.id.startswith(beginning)]
    if not found:
        raise NotFoundError(f"{app} has no build {words!r}", f"See `rollway build list {app}`.")
    if len(found) > 1:
        raise UsageError(f"{words!r} means {len(found)} builds of {app}", f"Give more of the id: {found[0].id}.")
    return found[0]
