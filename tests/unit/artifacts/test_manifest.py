"""The manifest's own rules: what no build may contain, and why following its links can never leave it."""

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.artifacts.archive import excluder
from agent.artifacts.manifest import Bounds, link_fault, path_fault, read_manifest, write_manifest
from agent.errors import VerificationError
from agent.model.build import Archive, Build, FileEntry
from agent.model.ids import AppName, Digest
from agent.model.process import AppSpec
from agent.wire import canonical

DIGEST = Digest("sha256:" + "a" * 64)
ARCHIVE = Archive(digest=DIGEST, size_bytes=900, tar_digest=DIGEST, tar_bytes=4096, zstd_version="1.5.7", zstd_level=10)
BUILD = Build(
    app=AppName("shop"),
    version="1.0.0",
    commit="c" * 40,
    committed_at_s=1_700_000_000,
    archive=ARCHIVE,
    files=(),
    spec=AppSpec(app=AppName("shop")),
)


def file(path: str, mode: int = 0o644) -> FileEntry:
    return FileEntry(path=path, mode=mode, size_bytes=1, digest=DIGEST)


def link(path: str, target: str) -> FileEntry:
    return FileEntry(path=path, mode=0o777, size_bytes=0, link=target)


GOOD = replace(BUILD, files=(link("a", "lib/x"), file("a.b"), file("lib/x", 0o755), link("lib/y", "../a")))


def test_a_good_manifest_is_read() -> None:
    """A manifest is read back as the build that it describes, by the digest that a release names."""
    data = write_manifest(GOOD)
    assert read_manifest(data, canonical.digest_of(data)) == GOOD


def test_another_manifest_is_refused() -> None:
    """A manifest other than the one that the release names is refused, whatever it says."""
    with pytest.raises(VerificationError, match=r"its digest is .*, expected sha256:aaaa"):
        read_manifest(write_manifest(GOOD), DIGEST)


BAD_FILES = {
    "a path that climbs": ((file("../x"),), "not plain"),
    "a path that climbs in its middle": ((file("a/../../x"),), "not plain"),
    "an absolute path": ((file("/etc/passwd"),), "not plain"),
    "a path with an empty part": ((file("a//b"),), "not plain"),
    "a path with a NUL": ((file("a\0b"),), "not plain"),
    "an empty path": ((file(""),), "not plain"),
    "a path without end": ((file("a/" * 600 + "b"),), "longer than 1024"),
    "a name without end": ((file("a" * 256),), "longer than 1024"),
    "a file given twice": ((file("a"), file("a")), "ascending order"),
    "files in another order": ((file("b"), file("a")), "ascending order"),
    "a file below a link": ((link("a", "b"), file("a/x")), "'a/x' lies below a file or a link"),
    "a file below a file": ((file("a"), file("a/x")), "'a/x' lies below a file or a link"),
    "a file below a link, with another between": ((link("a", "b"), file("a-"), file("a/x/y")), "lies below"),
    "setuid": ((file("a", 0o4755),), "mode 4755"),
    "writable for all": ((file("a", 0o666),), "mode 666"),
    "a file without digest": ((replace(file("a"), digest=None),), "wrong digest"),
    "a file of less than nothing": ((replace(file("a"), size_bytes=-1),), "wrong digest or size"),
    "a link with content": ((replace(link("a", "b"), size_bytes=1),), "of a link"),
    "an absolute link": ((link("a", "/etc/passwd"),), "absolute path"),
    "a link out of the build": ((link("a/b", "../../x"),), "leaves the build"),
    "a link that climbs after going down": ((link("a", "b/../../x"),), "goes up after going down"),
    "more files than accepted": (tuple(file(f"{n:02}") for n in range(11)), "11 files, expected at most 10"),
}


@pytest.mark.parametrize(("files", "reason"), BAD_FILES.values(), ids=list(BAD_FILES))
def test_bad_files_are_refused(files: tuple[FileEntry, ...], reason: str) -> None:
    """A tree that could reach out of its folder is refused by name before a byte is written."""
    with pytest.raises(VerificationError, match=reason):
        read_manifest(write_manifest(replace(BUILD, files=files)), bounds=Bounds(files=10))


BAD_BUILDS = {
    "another app's spec": (replace(BUILD, spec=AppSpec(app=AppName("blog"))), "wrong app"),
    "a version without end": (replace(BUILD, version="1" * 65), "wrong version"),
    "an archive without digest": (replace(BUILD, archive=replace(ARCHIVE, digest=Digest("x"))), "wrong digest"),
    "too many bytes": (replace(BUILD, archive=replace(ARCHIVE, tar_bytes=9 << 30)), "bytes unpacked"),
    "a bomb": (replace(BUILD, archive=replace(ARCHIVE, tar_bytes=1 << 30)), "from an archive of 900"),
}


@pytest.mark.parametrize(("build", "reason"), BAD_BUILDS.values(), ids=list(BAD_BUILDS))
def test_bad_builds_are_refused(build: Build, reason: str) -> None:
    """A build beyond its bounds is refused with the bound."""
    with pytest.raises(VerificationError, match=reason):
        read_manifest(write_manifest(build))


def test_a_manifest_without_bounds_is_refused() -> None:
    """A manifest larger than any build's is refused before it is parsed."""
    with pytest.raises(VerificationError, match="expected at most 5"):
        read_manifest(b"123456", bounds=Bounds(manifest_bytes=5))


def test_a_name_that_is_not_utf8_is_refused() -> None:
    """A file name that JSON cannot carry is refused instead of being changed."""
    assert path_fault(os.fsdecode(b"caf\xe9")) == "its name is not UTF-8"


names = st.sampled_from(["a", "b", "..", "."])
path_texts = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3).map("/".join)
targets = st.lists(names, min_size=1, max_size=5).map("/".join)


@given(st.dictionaries(path_texts, targets, max_size=6), path_texts)
def test_links_never_lead_out(links: dict[str, str], start: str) -> None:
    """However many accepted links follow one another, the path that they lead to lies inside the build."""
    accepted = {path: target for path, target in links.items() if link_fault(path, target) is None}
    reachable = {
        path: target
        for path, target in accepted.items()
        if not any(str(parent) in accepted for parent in PurePosixPath(path).parents)
    }
    at: list[str] = []
    left = start.split("/")
    for _ in range(40):
        if not left:
            break
        part = left.pop(0)
        if part == "..":
            assert at, "the path climbed out of the build"
            at.pop()
        elif part != ".":
            at.append(part)
            if (target := reachable.get("/".join(at))) is not None:
                at.pop()
                left = target.split("/") + left


EXCLUDED = {
    "a folder, with a slash or without": (("tests/", "docs"), ["tests", "docs"], ["src/tests", "tests2"]),
    "a star stays within a name": (
        ("lib/*.dist-info/RECORD",),
        ["lib/x.dist-info/RECORD"],
        ["lib/a/x.dist-info/RECORD"],
    ),
    "two stars cross folders": (("**/*.pyc",), ["a.pyc", "a/b/c.pyc"], ["a.py"]),
    "nothing": ((), [], ["a"]),
}


@pytest.mark.parametrize(("patterns", "left_out", "kept"), EXCLUDED.values(), ids=list(EXCLUDED))
def test_patterns_leave_out_what_they_name(patterns: tuple[str, ...], left_out: list[str], kept: list[str]) -> None:
    """[build].exclude leaves out exactly the files and folders that it names."""
    is_excluded = excluder(patterns)
    assert [path for path in left_out if not is_excluded(path)] == []
    assert [path for path in kept if is_excluded(path)] == []
