"""Unpacking: whole or not at all, whatever the archive says, whenever it is killed, however full the disk is."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from msgspec.structs import replace

from agent.artifacts.archive import pack
from agent.artifacts.manifest import read_manifest, write_manifest
from agent.artifacts.unpack import remove, sweep, unpack, verify
from agent.errors import FailedError, VerificationError
from agent.model.build import Archive, Build
from agent.model.ids import AppName, Digest
from agent.model.process import AppSpec
from agent.wire.tar import END

MTIME_S = 1_700_000_000


def make_tree(folder: Path) -> Path:
    """A tree with everything that a build may contain."""
    files = {"rollway.toml": b"app", "bin/web": b"#!/bin/sh\n", "lib/a/b/c.py": b"", "lib/" + "long" * 50: b"x" * 700}
    for name, data in {**files, "lib/ünïcödé": b"y" * 512}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "bin/web").chmod(0o755)
    (folder / "lib/link").symlink_to("../bin/web")
    (folder / "lib/folder").symlink_to("a/b")
    return folder


def make_build(tree: Path, archive: Path) -> Build:
    with archive.open("wb") as file:
        described, files = pack(tree, file, mtime_s=MTIME_S, exclude=())
    app = AppName("shop")
    build = Build(
        app=app,
        version="1.0.0",
        commit="c" * 40,
        committed_at_s=MTIME_S,
        archive=described,
        files=files,
        spec=AppSpec(app=app),
    )
    return read_manifest(write_manifest(build))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive.tar.zst"


@pytest.fixture
def build(tmp_path: Path, archive: Path) -> Build:
    return make_build(make_tree(tmp_path / "tree"), archive)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "releases" / "shop"


def test_the_same_tree_is_the_same_archive(tmp_path: Path) -> None:
    """Modes beyond executable, times and the order on disk have no say in the digest."""
    one = make_tree(tmp_path / "one")
    two = tmp_path / "two"
    for path in sorted(one.rglob("*"), reverse=True):
        copy = two / path.relative_to(one)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_file():
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o4710 if path.name == "web" else 0o600)
            os.utime(copy, (5, 5))
    assert make_build(one, tmp_path / "1") == make_build(two, tmp_path / "2")


def test_other_tools_read_the_archive(build: Build, archive: Path, tmp_path: Path) -> None:
    """GNU tar unpacks what Rollway packed."""
    (tmp_path / "gnu").mkdir()
    tar = zstd.decompress(archive.read_bytes())
    subprocess.run(["tar", "-x", "-C", tmp_path / "gnu"], input=tar, check=True)
    for entry in build.files:
        path = tmp_path / "gnu" / entry.path
        if entry.link is None:
            assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == entry.digest
        else:
            assert str(path.readlink()) == entry.link


def test_an_archive_becomes_a_read_only_folder(build: Build, archive: Path, target: Path) -> None:
    """Every file has its content, the commit's time, our own user and no permission to write; nothing lies beside."""
    unpack(archive, build, target)
    verify(target, build)
    assert (target / "bin/web").stat().st_mode & 0o7777 == 0o555
    assert (target / "lib/folder/c.py").stat().st_mode & 0o7777 == 0o444
    assert {path.stat().st_mode & 0o7777 for path in (target, target / "lib", target / "lib/a/b")} == {0o555}
    assert {path.lstat().st_uid for path in (target, *target.rglob("*"))} == {os.geteuid()}
    assert (target / "rollway.toml").stat().st_mtime == MTIME_S
    assert (target / "lib/link").read_bytes() == b"#!/bin/sh\n"
    assert list(target.parent.iterdir()) == [target]


def test_unpacking_twice_is_harmless(build: Build, archive: Path, target: Path) -> None:
    """Asked again, for a folder that is there already, nothing happens but that it is verified."""
    unpack(archive, build, target)
    inode = target.stat().st_ino
    unpack(archive, build, target)
    assert target.stat().st_ino == inode
    (target / "rollway.toml").unlink()
    with pytest.raises(VerificationError, match=r"rollway\.toml: it is missing"):
        unpack(archive, build, target)


def test_a_read_only_folder_can_be_removed(build: Build, archive: Path, target: Path) -> None:
    """Retention can remove what nobody can write to, without following its links."""
    unpack(archive, build, target)
    remove(target)
    assert list(target.parent.iterdir()) == []


def raw(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), MTIME_S, 0o644
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


HOSTILE = {
    "traversal": [raw("../../evil", b"x")],
    "an absolute path": [raw("/tmp/evil", b"x")],
    "a link that a file goes through": [raw("a", type=tarfile.SYMTYPE, linkname="/tmp"), raw("a/evil", b"x")],
    "an absolute link": [raw("a", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "a hard link": [raw("a", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "a device": [raw("a", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a FIFO": [raw("a", type=tarfile.FIFOTYPE)],
    "a folder": [raw("a", type=tarfile.DIRTYPE)],
    "setuid": [raw("a", b"x", mode=0o4755)],
    "an owner": [raw("a", b"x", uid=1000, uname="me")],
    "another time": [raw("a", b"x", mtime=1)],
    "a sparse file": [raw("a", b"x", type=tarfile.GNUTYPE_SPARSE)],
    "a path in a global header": [raw("a", b"x", pax_headers={"path": "../evil"})],
    "a file twice": [raw("a", b"x"), raw("a", b"x")],
    "a file too many": [raw("a", b"x"), raw("b", b"x")],
    "a file too few": [],
    "other content": [raw("a", b"y")],
    "longer content": [raw("a", b"xx")],
}


def in_archive(tar: bytes, archive: Path, window_log: int = 20) -> Archive:
    """`tar` as an archive whose digests are all right: a manifest that was made for it."""
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    archive.write_bytes(compressor.compress(tar) + compressor.flush())
    return Archive(
        digest=Digest(f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"),
        size_bytes=archive.stat().st_size,
        tar_digest=Digest(f"sha256:{hashlib.sha256(tar).hexdigest()}"),
        tar_bytes=len(tar),
        zstd_version="",
        zstd_level=0,
    )


@pytest.mark.parametrize("members", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_archives_are_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], archive: Path, target: Path, tmp_path: Path
) -> None:
    """An archive that holds anything but the manifest's files is refused, even with right digests; nothing is left."""
    (tmp_path / "honest").mkdir()
    (tmp_path / "honest" / "a").write_bytes(b"x")
    build = make_build(tmp_path / "honest", tmp_path / "honest.tar.zst")
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
        data = written.getvalue() + END
    forged = replace(build, archive=in_archive(data, archive))
    with pytest.raises(VerificationError):
        unpack(archive, forged, target)
    assert list(target.parent.iterdir()) == []
    assert list(tmp_path.rglob("evil")) == []


def test_a_refusal_shows_what_was_found(build: Build, archive: Path, target: Path) -> None:
    """A person reads which file was expected and which name was found."""
    data = zstd.decompress(archive.read_bytes()).replace(b"bin/web", b"bin/evl")
    forged = replace(build, archive=in_archive(data, archive))
    with pytest.raises(VerificationError, match=r"expected 'bin/web' next, found 'bin/evl' or other attributes"):
        unpack(archive, forged, target)


def test_an_honest_archive_of_another_packer_is_accepted(build: Build, archive: Path, target: Path) -> None:
    """The tests above refuse because of the tar alone: the same tar, packed by their means, is accepted."""
    unpack(archive, replace(build, archive=in_archive(zstd.decompress(archive.read_bytes()), archive)), target)
    verify(target, build)


def test_a_window_that_needs_too_much_memory_is_refused(build: Build, archive: Path, target: Path) -> None:
    """An archive that would make a host keep 128 MiB to read it is refused."""
    large = in_archive(zstd.decompress(archive.read_bytes()), archive, window_log=27)
    with pytest.raises(VerificationError, match="requires too much memory"):
        unpack(archive, replace(build, archive=large), target)


def test_no_more_is_unpacked_than_was_announced(tmp_path: Path, target: Path) -> None:
    """Files that are larger together than the tar is said to be are cut off there, not at the end."""
    tree, archive = tmp_path / "tree", tmp_path / "archive"
    tree.mkdir()
    (tree / "zeros").write_bytes(bytes(10_000_000))
    build = make_build(tree, archive)
    with pytest.raises(VerificationError, match="more than 1000 bytes"):
        unpack(archive, replace(build, archive=replace(build.archive, tar_bytes=1000)), target)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing arrived": lambda _: b"",
    "half arrived": lambda data: data[: len(data) // 2],
    "the last byte is missing": lambda data: data[:-1],
    "something follows": lambda data: data + b"x",
    "a second frame follows": lambda data: data + zstd.compress(b"x"),
    "it is no zstd": lambda data: b"x" * len(data),
    "a bomb": lambda _: zstd.compress(bytes(100_000_000)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_archives_are_refused(
    damage: Callable[[bytes], bytes], build: Build, archive: Path, target: Path
) -> None:
    """Bytes that are not the build's are refused, and nothing of them is left."""
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(VerificationError, match="cannot unpack"):
        unpack(archive, build, target)
    assert list(target.parent.iterdir()) == []


def test_no_changed_byte_goes_unseen(build: Build, archive: Path, target: Path) -> None:
    """Whichever byte of the archive is changed, it is refused and nothing is left."""
    data = archive.read_bytes()
    for place in range(0, len(data), 7):
        archive.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(VerificationError):
            unpack(archive, build, target)
    assert list(target.parent.iterdir()) == []


UNPACK = """
import sys
from pathlib import Path
from agent.artifacts.manifest import read_manifest
from agent.artifacts.unpack import unpack
from agent.errors import RollwayError
archive, manifest, target = map(Path, sys.argv[1:])
build = read_manifest(manifest.read_bytes())
print("begin", flush=True)
try:
    unpack(archive, build, target)
except RollwayError as error:
    print(error)
print("left", *sorted(path.name for path in target.parent.iterdir()))
"""


def unpack_command(archive: Path, build: Build, target: Path) -> list[str]:
    manifest = archive.with_suffix(".json")
    manifest.write_bytes(write_manifest(build))
    return [sys.executable, "-c", UNPACK, str(archive), str(manifest), str(target)]


@pytest.mark.parametrize("eighths", range(9))
def test_a_kill_leaves_nothing_or_the_whole(eighths: int, tmp_path: Path, target: Path) -> None:
    """Killed after any part of the archive, there is no target; what lies beside is swept at the next start."""
    tree = make_tree(tmp_path / "tree")
    for number in range(40):
        (tree / f"random{number:02}").write_bytes(hashlib.shake_128(b"%d" % number).digest(40_000))
    build = make_build(tree, tmp_path / "archive")
    data, pipe = (tmp_path / "archive").read_bytes(), tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(unpack_command(pipe, build, target), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        with pipe.open("wb", buffering=0) as feed:
            for start in range(0, len(data) * eighths // 8, 4096):
                feed.write(data[start : min(start + 4096, len(data) * eighths // 8)])
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    assert not target.exists()
    assert len(list(target.parent.iterdir())) == 1
    sweep(target.parent)
    assert list(target.parent.iterdir()) == []
    unpack(tmp_path / "archive", build, target)
    verify(target, build)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """On a full disk the person is told so, and the space is free again."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(bytes(900_000))
    (tree / "b").write_bytes(bytes(900_000))
    build = make_build(tree, tmp_path / "archive")
    small = tmp_path / "small"
    small.mkdir()
    command = unpack_command(tmp_path / "archive", build, small / "releases" / "shop")
    mounted = f'mount -t tmpfs -o size=1m none {small} && exec "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    begin, error, left = done.stdout.splitlines()
    assert (begin, left) == ("begin", "left")
    assert "No space left on device. Nothing of it was kept. Free space" in error


def test_a_folder_that_cannot_be_made_is_said(build: Build, archive: Path, tmp_path: Path) -> None:
    """Where nothing can be written, the error names the folder and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(FailedError, match=r"cannot unpack shop 1\.0\.0 into .*shop: File exists"):
        unpack(archive, build, tmp_path / "file" / "shop")


def tampered(path: str, change: Callable[[Path], object]) -> tuple[str, Callable[[Path], object]]:
    return path, lambda tree: change(tree / path)


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def link_to_a_copy(path: Path) -> None:
    copy = path.parents[2] / "copy"
    copy.write_bytes(b"#!/bin/sh\n")
    path.symlink_to(copy)


TAMPERED = {
    "other content of the same length": tampered("rollway.toml", lambda p: p.write_bytes(b"apq")),
    "longer content": tampered("rollway.toml", lambda p: p.write_bytes(b"app2")),
    "a missing file": tampered("lib/a/b/c.py", Path.unlink),
    "a file too many": tampered("lib/evil.py", Path.touch),
    "a link too many": tampered("lib/evil", lambda p: p.symlink_to("/etc")),
    "permission to write": tampered("bin/web", lambda p: p.chmod(0o755)),
    "setuid": tampered("bin/web", lambda p: p.chmod(0o4555)),
    "a link elsewhere": tampered("lib/link", instead(lambda p: p.symlink_to("/etc/passwd"))),
    "a link where a file was": tampered("bin/web", instead(link_to_a_copy)),
    "a file where a link was": tampered("lib/folder", instead(Path.touch)),
    "a FIFO where a file was": tampered("rollway.toml", instead(os.mkfifo)),
    "a folder where a file was": tampered("rollway.toml", instead(Path.mkdir)),
}


@pytest.mark.parametrize(("path", "change"), TAMPERED.values(), ids=list(TAMPERED))
def test_a_tampered_release_is_named(
    path: str, change: Callable[[Path], object], build: Build, archive: Path, target: Path
) -> None:
    """Before a launch, what differs from the build is refused with the file's name."""
    unpack(archive, build, target)
    for folder in (target, target / "lib", target / "lib/a/b", target / "bin"):
        folder.chmod(0o755)
    change(target)
    with pytest.raises(VerificationError, match=f"cannot trust {target / path}: "):
        verify(target, build)


def test_a_release_replaced_by_a_link_is_refused(build: Build, archive: Path, target: Path) -> None:
    """A link to a good tree is not the tree: it could be pointed elsewhere after the check."""
    unpack(archive, build, target)
    target.with_name("link").symlink_to(target)
    with pytest.raises(VerificationError, match="it is a link"):
        verify(target.with_name("link"), build)
    with pytest.raises(VerificationError, match="No such file"):
        verify(target.with_name("missing"), build)
