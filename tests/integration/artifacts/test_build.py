"""`rollway build`: real git, real shells; the same commit gives the same bytes, and what fails leaves nothing."""

import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.artifacts import steps
from agent.artifacts.build import Built, build_ref
from agent.artifacts.manifest import read_manifest
from agent.artifacts.zstd import decompressor
from agent.errors import FailedError, RollwayError, SettingsError, UsageError
from agent.wire.canonical import digest_of
from tests.integration.ready import is_readable

WEB = '[process.web]\ncommand = "bin/web"\n'
DEADLINE_MS = 10_000


def toml(*lines: str, exclude: tuple[str, ...] = ()) -> str:
    return f'app = "shop"\n[build]\nrun = {json.dumps(lines)}\nexclude = {json.dumps(exclude)}\n{WEB}'


def git(repo: Path, *words: str) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    when = {"GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}
    done = subprocess.run(
        ["git", "-C", repo, *words], env={**os.environ, **who, **when}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(repo: Path, files: dict[str, str]) -> Path:
    """A commit of `files` in `repo`, which is made when it is not there; names in `bin/` can be executed."""
    if not repo.exists():
        subprocess.run(["git", "init", "-q", repo], check=True)
    for name, text in files.items():
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(text)
        (repo / name).chmod(0o755 if name.startswith("bin/") else 0o644)
    git(repo, "add", "--all")
    git(repo, "commit", "-q", "--allow-empty", "-m", "x")
    return repo


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where builds happen; each test can look whether anything was left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def build(repo: Path, ref: str = "HEAD", version: str | None = None, output: str = "out") -> tuple[Built, list[str]]:
    lines: list[str] = []
    return build_ref(repo, ref, version, repo.parent / output, lines.append), lines


def contents(built: Built) -> dict[str, str]:
    def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
        file = None if member.issym() else archive.extractfile(member)
        return file.read().decode() if file else f"-> {member.linkname}"

    with tarfile.open(fileobj=io.BytesIO(decompressor().decompress(built.archive.read_bytes()))) as archive:
        return {member.name: content(archive, member) for member in archive}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_a_build_is_archive_and_manifest(tmp_path: Path) -> None:
    """The output folder gets both files, named by the archive's digest; the manifest describes the archive."""
    repo = commit(tmp_path / "repo", {"rollway.toml": toml(), "bin/web": "#!/bin/sh\n", "a/b": "x"})
    built, _ = build(repo)
    assert digest_of(built.archive.read_bytes()) == built.build.id
    stem = built.build.id.removeprefix("sha256:")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{stem}.json", f"{stem}.tar.zst"]
    assert read_manifest((tmp_path / "out" / f"{stem}.json").read_bytes()) == built.build
    assert [(f.path, f.mode, f.size_bytes) for f in built.build.files if f.path != "rollway.toml"] == [
        ("a/b", 0o644, 1),
        ("bin/web", 0o755, 10),
    ]
    assert (built.build.commit, built.build.committed_at_s) == (git(repo, "rev-parse", "HEAD"), 1_700_000_000)


def test_the_same_commit_is_the_same_build(tmp_path: Path) -> None:
    """Another folder, another umask, another day and another order of files: the same digest."""
    lines = (
        "mkdir made && for n in 3 1 2; do echo $n > made/$n; done",
        "python3 -c 'print(list({chr(n) for n in range(99)}))' > made/set; date > /dev/null",
        "python3 -m compileall -q -s $PWD module.py",
        'date -d @$SOURCE_DATE_EPOCH > made/date; echo "$PWD" > /dev/null',
    )
    one = commit(tmp_path / "one", {"rollway.toml": toml(*lines), "module.py": "x = {'a', 'b', 'c'}\n"})
    git(tmp_path, "clone", "-q", str(one), str(tmp_path / "a much longer name"))
    for path in one.rglob("*"):
        if ".git" not in path.parts:
            os.utime(path, (1, 1))
    first, _ = build(one)
    with umask(0o077):
        second, _ = build(tmp_path / "a much longer name", output="out2")
    assert first.manifest == second.manifest
    assert len(first.build.files) == 8


def test_only_the_commit_is_built(tmp_path: Path) -> None:
    """Changes that were not committed are not built, and the person is told so."""
    repo = commit(tmp_path / "repo", {"rollway.toml": toml("cat a"), "a": "committed\n"})
    (repo / "a").write_text("changed\n")
    (repo / "untracked").write_text("x")
    built, lines = build(repo)
    assert set(contents(built)) == {"rollway.toml", "a"}
    assert contents(built)["a"] == "committed\n"
    assert lines[0].startswith(f"uncommitted changes in {repo} are not part of this build: it is HEAD")
    assert lines[-1] == "committed"


def test_this_machines_git_settings_change_nothing(tmp_path: Path) -> None:
    """Line endings, export attributes and filters of git have no say in what a commit contains."""
    files = {
        ".gitattributes": "a text eol=crlf\nb export-ignore\nc export-subst\n",
        "a": "x\n",
        "b": "y",
        "c": "$Format:%d$",
    }
    built, _ = build(commit(tmp_path / "repo", {"rollway.toml": toml(), **files}))
    assert {name: text for name, text in contents(built).items() if name in files} == files


def test_another_repository_in_the_environment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build started from a git hook, with GIT_DIR set, still builds the repository that was named."""
    repo = commit(tmp_path / "repo", {"rollway.toml": toml(), "a": "right"})
    other = commit(tmp_path / "other", {"rollway.toml": toml(), "a": "wrong"})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert contents(build(repo)[0])["a"] == "right"


def test_build_lines_see_a_stated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines get PATH, HOME, where packages come from, fixed time, locale, zone and umask, and nothing else."""
    for name in steps._FETCH_VARIABLES & {name.upper() for name in os.environ}:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_TARGET", "elsewhere")
    monkeypatch.setenv("npm_config_registry", "https://mirror.example/npm")
    _, lines = build(commit(tmp_path / "repo", {"rollway.toml": toml("exec env", "umask", "cat")}))
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    del variables["TMPDIR"], variables["PWD"]
    assert variables == {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "npm_config_registry": "https://mirror.example/npm",
        "SOURCE_DATE_EPOCH": "1700000000",
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    assert lines[lines.index("$ umask") + 1] == "0022"
    assert lines[-1] == "$ cat"


def test_links_stay_links_and_excluded_files_stay_out(tmp_path: Path) -> None:
    """A relative link is archived as a link; what [build].exclude names is not archived."""
    repo = commit(tmp_path / "repo", {"rollway.toml": toml(exclude=("tests/", "*.md")), "tests/x": "", "README.md": ""})
    (repo / "to").symlink_to("./rollway.toml")
    built, _ = build(commit(repo, {}))
    assert contents(built) == {"rollway.toml": (repo / "rollway.toml").read_text(), "to": "-> rollway.toml"}


def test_a_folder_of_a_repository_can_be_the_app(tmp_path: Path) -> None:
    """PATH may be a folder inside a repository: then that folder of the commit is built."""
    repo = commit(tmp_path / "repo", {"apps/shop/rollway.toml": toml(), "apps/shop/a": "x", "b": "y"})
    built = build_ref(repo / "apps" / "shop", "HEAD", None, tmp_path / "out", lambda _: None)
    assert set(contents(built)) == {"rollway.toml", "a"}


def test_a_procfile_app_is_named_after_its_folder(tmp_path: Path) -> None:
    """Without rollway.toml the Procfile gives the process types, and the folder the name."""
    built, _ = build(commit(tmp_path / "Blog", {"Procfile": "web: bin/web\n"}))
    assert built.build.app == "blog"
    assert built.build.spec.process("web") is not None


def test_the_version_is_given_tagged_or_derived(tmp_path: Path) -> None:
    """--version wins over the commit's highest tag vX.Y.Z, and that over 0.0.0 with the commit, which is said."""
    repo = commit(tmp_path / "repo", {"rollway.toml": toml()})
    short = git(repo, "rev-parse", "HEAD")[:7]
    built, lines = build(repo)
    assert built.build.version == f"0.0.0+{short}"
    assert lines == [f"version 0.0.0+{short}: {short} has no tag of the form vX.Y.Z (give one with --version)"]
    for tag in ("v1.9.0", "v1.10.0", "v2", "nightly"):
        git(repo, "tag", tag)
    assert [build(repo, ref)[0].build.version for ref in ("HEAD", "v1.9.0", "nightly")] == ["1.10.0", "1.9.0", "1.10.0"]
    assert build(repo, version="3.0.0-rc.1")[0].build.version == "3.0.0-rc.1"
    with pytest.raises(UsageError, match="cannot build version 'a b'"):
        build(repo, version="a b")


BAD_INPUT: dict[str, tuple[dict[str, str], str, type[RollwayError], str]] = {
    "an unknown ref": ({"rollway.toml": toml()}, "v9", UsageError, "cannot build 'v9'.*no such commit"),
    "a ref that looks like an option": ({"rollway.toml": toml()}, "--all", UsageError, "cannot build '--all'"),
    "a tree instead of a commit": ({"rollway.toml": toml()}, "HEAD^{tree}", UsageError, "no such commit"),
    "neither file": ({"a": ""}, "HEAD", UsageError, "cannot build 'HEAD'.*neither rollway.toml nor Procfile"),
    "an unknown key": (
        {"rollway.toml": toml() + "colour = 1\n"},
        "HEAD",
        SettingsError,
        "rollway.toml at HEAD.*colour",
    ),
    "bytes that are no text": (
        {"rollway.toml": "app = '\udcff'"},
        "HEAD",
        SettingsError,
        "UTF-8 text, found byte 0xff",
    ),
    "a failing line": ({"rollway.toml": toml("echo why; exit 7")}, "HEAD", FailedError, "exit status 7.*\n  why"),
    "a killed line": ({"rollway.toml": toml("kill -9 $$")}, "HEAD", FailedError, "ended with SIGKILL"),
    "a FIFO": ({"rollway.toml": toml("mkfifo pipe")}, "HEAD", FailedError, "cannot archive 'pipe': it is neither"),
    "a link out": ({"rollway.toml": toml("ln -s /etc x")}, "HEAD", FailedError, "cannot archive 'x': .*absolute"),
}


@pytest.mark.parametrize(("files", "ref", "kind", "reason"), BAD_INPUT.values(), ids=list(BAD_INPUT))
def test_bad_input_is_refused_and_leaves_nothing(
    tmp_path: Path, files: dict[str, str], ref: str, kind: type[RollwayError], reason: str
) -> None:
    """What cannot be built is refused by name, and neither a scratch folder nor half an archive is left."""
    encoded = {name: text.encode(errors="surrogateescape") for name, text in files.items()}
    repo = commit(tmp_path / "repo", dict.fromkeys(encoded, ""))
    for name, data in encoded.items():
        (repo / name).write_bytes(data)
    commit(repo, {})
    with pytest.raises(kind, match=f"(?s){reason}"):
        build(repo, ref)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert list(tmp_path.glob("out/*")) == []


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    """Outside of git there is nothing to build, and git's own words say why."""
    with pytest.raises(UsageError, match="not a git repository"):
        build(tmp_path)
    with pytest.raises(UsageError, match="No such file or directory"):
        build(tmp_path / "missing")


def test_a_submodule_is_refused_by_name(tmp_path: Path) -> None:
    """A submodule's files are not in the commit, so a build without them is refused instead of made."""
    library = commit(tmp_path / "library", {"a": ""})
    repo = commit(tmp_path / "repo", {"rollway.toml": toml()})
    git(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "vendor/library")
    with pytest.raises(UsageError, match="vendor/library is a submodule"):
        build(commit(repo, {}))


def tree(repo: Path, *entries: str) -> str:
    """A tree object as `git mktree` takes it, which checks no name."""
    text = "".join(f"{entry}\n" for entry in entries)
    made = subprocess.run(["git", "-C", repo, "mktree"], input=text, check=True, capture_output=True, text=True)
    return made.stdout.strip()


ESCAPES = {
    "up by two dots": (("040000 tree {folder}\t..",), "'../planted'"),
    "through a link": (("120000 blob {link}\ta", "040000 tree {folder}\ta"), "'a/planted'"),
}


@pytest.mark.parametrize(("entries", "said"), ESCAPES.values(), ids=ESCAPES)
def test_a_commit_cannot_write_beside_its_folder(
    tmp_path: Path, scratch: Path, entries: tuple[str, ...], said: str
) -> None:
    """Paths that leave the folder, in a commit made by hand, are refused before anything is written."""
    repo = commit(tmp_path / "repo", {"rollway.toml": toml(), "link": str(tmp_path)})
    settings, link = git(repo, "rev-parse", "HEAD:rollway.toml"), git(repo, "rev-parse", "HEAD:link")
    folder = tree(repo, f"100644 blob {settings}\tplanted")
    root = tree(
        repo, f"100644 blob {settings}\trollway.toml", *(entry.format(folder=folder, link=link) for entry in entries)
    )
    git(repo, "tag", "evil", git(repo, "commit-tree", root, "-m", "x"))
    with pytest.raises(UsageError, match=re.escape(said)):
        build(repo, "evil")
    assert not (tmp_path / "planted").exists()
    assert list(scratch.iterdir()) == []


def test_an_interrupt_ends_everything_and_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    """Ctrl-C in the middle of a line ends the whole tree of processes and removes the scratch folder."""
    repo = commit(tmp_path / "repo", {"rollway.toml": toml("sleep 1000 & echo pid $!; wait")})
    pidfds: list[int] = []

    def interrupt(line: str) -> None:
        if line.startswith("pid "):
            pidfds.append(os.pidfd_open(int(line.removeprefix("pid "))))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_ref(repo, "HEAD", None, tmp_path / "out", interrupt)
    (pidfd,) = pidfds
    ended = is_readable(pidfd, DEADLINE_MS / 1000)
    os.close(pidfd)
    assert ended
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_something_in_the_background_does_not_hold_up_the_build(tmp_path: Path) -> None:
    """A line ends with its shell, even if what it left running keeps its output open."""
    _, lines = build(commit(tmp_path / "repo", {"rollway.toml": toml("sleep 1000 & echo started")}))
    assert lines[-1] == "started"


def test_output_is_passed_on_whatever_it_is(tmp_path: Path) -> None:
    """Lines without end are cut, bytes that are no text are marked, a last line without its end is shown."""
    lines = ("head -c 300000 /dev/zero | tr '\\0' x", "printf '\\377 a'")
    _, shown = build(commit(tmp_path / "repo", {"rollway.toml": toml(*lines)}))
    assert sum(line.count("x") for line in shown if set(line) == {"x"}) == 300_000
    assert shown[-1] == "\N{REPLACEMENT CHARACTER} a"
