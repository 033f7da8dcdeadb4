"""The source is tested too: the rules that no linter knows, each shown to fail on a sample of what it forbids.

Rules: a rule is a pure function from a `Source` to its findings, `path:line: what is wrong, and what to do instead`.
Who may import whom is not handled here but in pyproject.toml's import contracts.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
# Written in two halves, so that this file passes its own rules.
LEFT_TO_DO = re.compile(rf"\b({'TO'}DO|{'FIX'}ME|{'XX'}X)\b")
MACHINE_PATH = re.compile(rf"(?<![\w.-])/({'wo'}rk|{'ro'}ot|{'ho'}me/[a-z]\w*)/")
WRITING_MODE = re.compile(r"[rbt]*[wax+][wax+bt]*")
# linux.atomic itself, and the export of a commit into a folder that is thrown away when the build ends.
WRITES_IN_PLACE = ("agent/linux/", "agent/artifacts/export")
# Beside the room of processes: git, the build's own lines, and the local fleet.
STARTS_PROCESSES = ("agent/linux/", "agent/artifacts/export", "agent/artifacts/steps", "agent/local/")
SLEEPS = {"anyio.sleep", "anyio.sleep_until", "asyncio.sleep", "time.sleep"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file: its path from the project's root, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def names(self) -> dict[str, str]:
        """What each imported name stands for: `from time import sleep as nap` gives nap = time.sleep."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names |= {alias.asname: alias.name for alias in node.names if alias.asname}
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return names

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Give each call with the dotted name of what it calls, imports resolved."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                first, dot, rest = ast.unparse(node.func).partition(".")
                yield node, self.names.get(first, first) + dot + rest

    def functions(self) -> Iterator[Function]:
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def at(self, line: int, what: str) -> str:
        return f"{self.path}:{line}: {what}"


@dataclass(frozen=True)
class Ban:
    """Calls that are not made, what is done instead, and the few places where that is done."""

    calls: tuple[str, ...]
    instead: str
    allowed_in: tuple[str, ...] = ()


BANS = (
    Ban(("*.create_task", "*ensure_future"), "start it in an anyio task group, so that it has an owner"),
    Ban(
        ("datetime.*now", "datetime.*utcnow", "datetime.*today", "time.time", "time.time_ns"),
        "take an Instant as an argument",
        ("agent/linux/clock.py",),
    ),
    Ban(("*.write_text", "*.write_bytes"), "write with linux.atomic", WRITES_IN_PLACE),
    Ban(
        (
            "subprocess.*",
            "*.create_subprocess_*",
            "anyio.*_process",
            "os.system",
            "os.popen",
            "os.fork",
            "os.posix_spawn*",
        ),
        "start processes with linux.spawn",
        STARTS_PROCESSES,
    ),
    Ban(("print",), "log an event, or return a value for the CLI to show", ("agent/cli/", "agent/local/")),
)


def in_agent(source: Source) -> bool:
    return source.path.startswith("agent/")


def in_tests(source: Source) -> bool:
    return source.path.startswith("tests/") and "apps" not in PurePosixPath(source.path).parts


def modules_are_short(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if in_agent(source) and lines > MODULE_LINES_MAX:
        yield source.at(lines, f"{lines} lines; split the module, at most {MODULE_LINES_MAX}")


def functions_are_short(source: Source) -> Iterator[str]:
    for function in source.functions():
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if in_agent(source) and lines > FUNCTION_LINES_MAX:
            yield source.at(function.lineno, f"{function.name}() has {lines} lines; at most {FUNCTION_LINES_MAX}")


def modules_say_what_they_are_for(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.tree):
        yield source.at(1, "no docstring; say what the module is for, and its rules")


def banned_calls_are_not_made(source: Source) -> Iterator[str]:
    bans = [ban for ban in BANS if in_agent(source) and not source.path.startswith(ban.allowed_in)]
    for node, name in source.calls():
        for ban in bans:
            if any(fnmatch(name, pattern) for pattern in ban.calls):
                yield source.at(node.lineno, f"{name}(); {ban.instead}")


def files_are_written_atomically(source: Source) -> Iterator[str]:
    if not in_agent(source) or source.path.startswith(WRITES_IN_PLACE):
        return
    for node, name in source.calls():
        position = {"open": 1, "io.open": 1}.get(name, 0 if name.endswith(".open") else None)
        if position is None:
            continue
        modes = [*node.args[position : position + 1], *(k.value for k in node.keywords if k.arg == "mode")]
        if any(isinstance(m, ast.Constant) and WRITING_MODE.fullmatch(str(m.value)) for m in modes):
            yield source.at(node.lineno, f"{name}() for writing; write with linux.atomic")


def excepts_are_narrow(source: Source) -> Iterator[str]:
    broad = {"Exception", "BaseException"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = {ast.unparse(n) for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else broad
            if caught & broad:
                yield source.at(node.lineno, "catches everything; name the errors that are expected here")
    for node, name in source.calls():
        if name == "contextlib.suppress" and broad & {ast.unparse(argument) for argument in node.args}:
            yield source.at(node.lineno, "suppresses everything; name the errors that are expected here")


def each_test_says_what_a_user_sees(source: Source) -> Iterator[str]:
    for function in source.functions():
        if in_tests(source) and function.name.startswith("test_") and not ast.get_docstring(function):
            yield source.at(function.lineno, f"{function.name}() has no docstring; tell the behaviour in a sentence")


def no_test_sleeps(source: Source) -> Iterator[str]:
    for node, name in source.calls():
        if in_tests(source) and name in SLEEPS and [ast.unparse(argument) for argument in node.args] != ["0"]:
            yield source.at(node.lineno, f"{name}(); wait for the event itself, with a deadline")


def nothing_is_left_to_do(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := LEFT_TO_DO.search(line):
            yield source.at(number, f"{found[0]}; do it, or open an issue")


def no_path_of_one_machine(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := MACHINE_PATH.search(line):
            yield source.at(number, f"{found[0]} exists on one machine only; make the path an argument")


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def uses(source: Source) -> Iterator[str]:
    """Name what a module imports, now or by name later: a string that is a module's name counts as its use."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (module, *(f"{module}.{alias.name}" for alias in names))
            case ast.Constant(value=str(text)) if text.startswith("agent."):
                yield text.partition(":")[0]


def modules_are_used(sources: Iterable[Source]) -> Iterator[str]:
    """Find the modules of `agent` that no other module of it uses: neither a package, the start, nor a migration."""
    modules = {module_name(source.path): source for source in sources if in_agent(source)}
    used = {use for name, source in modules.items() for use in uses(source) if use != name}
    for name, source in modules.items():
        started = source.path.endswith(("__init__.py", "__main__.py")) or "/migrations/" in source.path
        if not started and name not in used:
            yield source.at(1, "imported by nobody; use it or delete it")


Rule = Callable[[Source], Iterator[str]]
RULES_OF_PYTHON: tuple[Rule, ...] = (
    modules_are_short,
    functions_are_short,
    modules_say_what_they_are_for,
    banned_calls_are_not_made,
    files_are_written_atomically,
    excepts_are_narrow,
    each_test_says_what_a_user_sees,
    no_test_sleeps,
)
RULES_OF_TEXT: tuple[Rule, ...] = (nothing_is_left_to_do, no_path_of_one_machine)


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """Every text file of the project that git knows or would add, licences and locks aside."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    paths = [ROOT / name for name in listed.split("\0") if name and name not in {"LICENSE", "requirements.lock"}]
    contents = {path: path.read_bytes() for path in paths if path.is_file() and not path.is_symlink()}
    return [
        Source(path.relative_to(ROOT).as_posix(), content.decode())
        for path, content in contents.items()
        if b"\0" not in content
    ]


@pytest.mark.parametrize("rule", RULES_OF_PYTHON, ids=lambda rule: rule.__name__)
def test_python_keeps_the_rule(rule: Rule, sources: list[Source]) -> None:
    """No Python file of the project breaks the rule."""
    findings = [finding for s in sources if s.path.endswith(".py") for finding in rule(s)]
    assert not findings, "\n" + "\n".join(findings)


@pytest.mark.parametrize("rule", RULES_OF_TEXT, ids=lambda rule: rule.__name__)
def test_text_keeps_the_rule(rule: Rule, sources: list[Source]) -> None:
    """No file of the project breaks the rule, whatever its format."""
    findings = [finding for s in sources for finding in rule(s)]
    assert not findings, "\n" + "\n".join(findings)


def test_every_module_is_used(sources: list[Source]) -> None:
    """No module lies in the house that nothing reaches."""
    findings = list(modules_are_used(s for s in sources if s.path.endswith(".py")))
    assert not findings, "\n" + "\n".join(findings)


# What each rule must find, once, in a file of that path; and what is near to it and allowed.
BROKEN: dict[Rule, dict[str, tuple[str, str]]] = {
    modules_are_short: {"a module of 401 lines": ("agent/x.py", "x = 1\n" * 401)},
    functions_are_short: {
        "a function of 61 lines": ("agent/x.py", "def f():\n" + "    x = 1\n" * 60),
        "an async method of 61 lines": ("agent/x.py", "class A:\n  async def f(self):\n" + "    x = 1\n" * 60),
    },
    modules_say_what_they_are_for: {"a module without docstring": ("agent/x.py", "x = 1\n")},
    banned_calls_are_not_made: {
        "a task without owner": ("agent/x.py", "import asyncio\nasyncio.create_task(f())"),
        "a task of the loop": ("agent/x.py", "loop.create_task(f())"),
        "a future without owner": ("agent/x.py", "from asyncio import ensure_future\nensure_future(f())"),
        "the wall clock": ("agent/x.py", "import time\ntime.time()"),
        "the wall clock by another name": ("agent/x.py", "from time import time as t\nt()"),
        "the date": ("agent/x.py", "from datetime import datetime, UTC\ndatetime.now(UTC)"),
        "the date by way of its module": ("agent/x.py", "import datetime as d\nd.datetime.utcnow()"),
        "a clock beside the clock's module": ("agent/linux/spawn.py", "import time\ntime.time()"),
        "text written in place": ("agent/x.py", "p.write_text('x')"),
        "bytes written in place": ("agent/x.py", "(p / 'x').write_bytes(b'')"),
        "a process started in a wrong room": ("agent/host/x.py", "import subprocess\nsubprocess.run(['x'])"),
        "a process of the loop": ("agent/host/x.py", "import asyncio\nasyncio.create_subprocess_exec('x')"),
        "a shell line": ("agent/host/x.py", "import os\nos.system('x')"),
        "a print in a daemon": ("agent/host/x.py", "print('x')"),
    },
    files_are_written_atomically: {
        "a file opened for writing": ("agent/x.py", "open(p, 'wb')"),
        "a file opened for appending by keyword": ("agent/x.py", "open(p, mode='a')"),
        "a path opened for change": ("agent/x.py", "path.open('r+')"),
    },
    excepts_are_narrow: {
        "except Exception": ("agent/x.py", "try:\n  f()\nexcept Exception:\n  pass"),
        "Exception among others": ("agent/x.py", "try:\n  f()\nexcept (OSError, Exception):\n  pass"),
        "a bare except": ("tests/x.py", "try:\n  f()\nexcept:\n  raise"),
        "a group of everything": ("agent/x.py", "try:\n  f()\nexcept* BaseException:\n  pass"),
        "suppressing everything": ("agent/x.py", "import contextlib\nwith contextlib.suppress(Exception):\n  f()"),
    },
    each_test_says_what_a_user_sees: {
        "a test without docstring": ("tests/unit/test_x.py", "async def test_x():\n  assert f()"),
    },
    no_test_sleeps: {
        "a sleep": ("tests/unit/test_x.py", "import anyio\nawait anyio.sleep(0.1)"),
        "a sleep by another name": ("tests/test_x.py", "from time import sleep as nap\nnap(1)"),
    },
    nothing_is_left_to_do: {
        "a word for later": ("docs/x.md", "TO" + "DO: write this"),
        "a mark for a repair": ("agent/x.py", "x = 1  # FIX" + "ME"),
    },
    no_path_of_one_machine: {
        "a path of this machine": ("config/x.toml", "store = 'file:///ro" + "ot/x'"),
        "a path of somebody's machine": ("docs/x.md", "cd /ho" + "me/ada/rollway"),
    },
}
KEPT: dict[Rule, dict[str, tuple[str, str]]] = {
    modules_are_short: {"a module of 400 lines": ("agent/x.py", "x = 1\n" * 400)},
    functions_are_short: {"a function of 60 lines": ("agent/x.py", "def f():\n" + "    x = 1\n" * 59)},
    banned_calls_are_not_made: {
        "a task group's task": ("agent/x.py", "tg.start_soon(f)"),
        "the clock in the clock's module": ("agent/linux/clock.py", "import time\ntime.time()"),
        "a clock that was given": ("agent/x.py", "self.clock.now()"),
        "a process started in its room": ("agent/linux/spawn.py", "import os\nos.posix_spawn('/bin/sh', [], {})"),
        "a print of the CLI": ("agent/cli/ps.py", "print('x')"),
    },
    files_are_written_atomically: {
        "a file opened for reading": ("agent/x.py", "open(p, 'rb')\nopen(p)\npath.open()"),
        "the atomic write itself": ("agent/linux/atomic.py", "open(p, 'wb')"),
        "an archive over an open file": ("agent/x.py", "tarfile.open(fileobj=out, mode='w|')"),
    },
    excepts_are_narrow: {"errors by name": ("agent/x.py", "try:\n  f()\nexcept (OSError, ValueError):\n  pass")},
    no_test_sleeps: {
        "a turn given to the loop": ("tests/test_x.py", "import anyio\nawait anyio.sleep(0)"),
        "a program that tests start": ("tests/e2e/apps/slow.py", "import time\ntime.sleep(1)"),
    },
    no_path_of_one_machine: {"an address that ends alike": ("docs/x.md", "https://example.org/ro" + "ot/x")},
}


def by_sentence(rules: dict[Rule, dict[str, tuple[str, str]]]) -> dict[str, tuple[Rule, Source]]:
    return {
        sentence: (rule, Source(*sample)) for rule, of_rule in rules.items() for sentence, sample in of_rule.items()
    }


@pytest.mark.parametrize(("rule", "source"), by_sentence(BROKEN).values(), ids=by_sentence(BROKEN))
def test_a_broken_rule_is_found(rule: Rule, source: Source) -> None:
    """What a rule forbids is found once, at a line, with what to do about it."""
    (finding,) = rule(source)
    assert re.fullmatch(rf"{re.escape(source.path)}:\d+: .+", finding)


@pytest.mark.parametrize(("rule", "source"), by_sentence(KEPT).values(), ids=by_sentence(KEPT))
def test_what_a_rule_allows_is_not_found(rule: Rule, source: Source) -> None:
    """What a rule allows passes, be it ever so near to what it forbids."""
    assert list(rule(source)) == []


def test_every_rule_is_shown_to_fail() -> None:
    """No rule is kept by everybody only because it finds nothing."""
    assert set(BROKEN) == {*RULES_OF_PYTHON, *RULES_OF_TEXT}


def test_an_unused_module_is_found() -> None:
    """A module that only itself and tests import is named; imports and module names in strings are uses."""
    house = [
        Source("agent/__main__.py", "from agent.cli import main"),
        Source("agent/cli/__init__.py", ""),
        Source("agent/cli/main.py", "VERBS = {'ps': 'agent.cli.ps:command'}"),
        Source("agent/cli/ps.py", "import agent.client.http"),
        Source("agent/client/http.py", ""),
        Source("agent/client/lost.py", "import agent.client.lost"),
        Source("tests/unit/test_lost.py", "import agent.client.lost"),
    ]
    assert list(modules_are_used(house)) == ["agent/client/lost.py:1: imported by nobody; use it or delete it"]
