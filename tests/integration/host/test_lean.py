"""What an agent does not load: each of these is a MiB or more on every host, for what few need or nobody does."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "cryptography": "certificates are read by TLS itself",
    "pyrage": "most hosts have no secrets",
    "prometheus_client": "loaded with the first question for metrics",
    "backports.zstd": "loaded with the first archive that is unpacked",
    "agent.artifacts.unpack": "the same",
    "agent.coordinator": "another role",
    "agent.local": "another role",
    "rich": "tracebacks are written without",
    "click": "the command line's",
    "importlib.metadata": "our version is known without",
    "argparse": "the command line's",
    "difflib": "for settings that are wrong",
    "email.policy": "for the parameters of a Content-Type",
    "html": "for error pages with a traceback",
    "urllib.request": "for proxies, by which an agent never goes",
    "attr.validators": "no struct of aiohttp has any",
    "frozenlist._frozenlist": "brings the library of C++",
}
RUN = "import sys; from agent.__main__ import _run; code = _run(['agent', 'run', '--config', sys.argv[1]]); "
LEFT_OUT = """
import sys
from agent.host import lean
with lean.imports(http=True):
    import aiohttp
    from aiohttp import helpers, web, web_protocol
"""
USES = {
    "the parameters of a Content-Type": (
        "print(helpers.parse_content_type('text/html; charset=utf-8')[1]['charset'])",
        "utf-8",
    ),
    "an error page": ("print(web_protocol.html_escape('<a>'))", "&lt;a&gt;"),
    "proxies of the environment": (
        "import os; os.environ['http_proxy'] = 'http://p:1'; print(helpers.proxies_from_env()['http'].proxy)",
        "http://p:1",
    ),
    "a command line": (
        "import argparse; print(web.ArgumentParser('x').prog, argparse.ArgumentParser('x').prog)",
        "x x",
    ),
    "validators": ("import attr; print(attr.validators.in_([1]))", "<in_ validator with options [1]>"),
    "file types": ("import mimetypes; print(bool(mimetypes.knownfiles))", "True"),
}


def python(code: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_agent_is_started_without_what_it_does_not_need(tmp_path: Path) -> None:
    """All that it imports before its settings are read, which then are refused: none of the heavy modules."""
    config = tmp_path / "agent.toml"
    config.write_text("name = 7\n")
    loaded = python(f"{RUN}print(code, 'agent.host.main' in sys.modules, sorted(sys.modules))", str(config))
    assert loaded.startswith("2 True ")
    assert [name for name in HEAVY if f"'{name}'" in loaded] == []


@pytest.mark.parametrize(("use", "said"), USES.values(), ids=USES.keys())
def test_what_is_left_out_comes_when_it_is_used(use: str, said: str) -> None:
    """Nothing is missing of the libraries that were imported without it, nor for who imports it itself."""
    assert python(LEFT_OUT + use) == said
