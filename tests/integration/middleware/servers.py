"""The servers that the notice is tried with, as they are started, and the small apps that they serve."""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
SERVERS: Final = {
    "gthread": f"{sys.executable} -m gunicorn -c notice_gunicorn.py -k gthread notice_wsgi:app",
    "asgi": f"{sys.executable} -m gunicorn --no-control-socket --keep-alive 75 -k asgi notice_asgi:app",
    "uvicorn": f"{sys.executable} -m uvicorn --fd {{fd}} --no-access-log --timeout-keep-alive 75 notice_asgi:app",
    "hypercorn": f"{sys.executable} -m hypercorn --bind fd://{{fd}} --keep-alive 75 notice_asgi:app",
    "aiohttp": f"{sys.executable} notice_aiohttp.py",
    "node": "node notice_node.js",
}
"""On an inherited socket, with connections kept for longer than clients do."""
WITHOUT_NOTICE: Final = "env NOTICE=off"
"""Before a command: its app leaves the middleware away."""


def files() -> dict[str, str]:
    """By name: the apps, and what their authors copy from here."""
    apps = [path for path in (Path(__file__).parent / "apps").iterdir() if path.is_file()]
    return {path.name: path.read_text() for path in [*apps, *(ROOT / "middleware").glob("rollway_drain.*")]}
