"""`/livez`, `/readyz`, `/startupz` of a role, as the kubelet and the API server of Kubernetes speak.

Alive: the loop turns, for it answered (one that is stuck is the watchdog's: telemetry.pulse). Started: its start is
over. Ready: started, not draining, and every check well. `?verbose` lists every check; `?exclude=NAME` leaves one out,
as often as it is given.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

Check = Callable[[], str]
"""Empty: well. Otherwise why not."""


class Health:
    """State of one role; its owner sets `started` and `draining`. A check's name is one word."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self.started = False
        self.draining = False

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/startupz", self._startupz)

    async def _livez(self, request: web.Request) -> web.Response:
        return _answer(request, {"loop": ""})

    async def _startupz(self, request: web.Request) -> web.Response:
        return _answer(request, {"started": self._not_started()})

    async def _readyz(self, request: web.Request) -> web.Response:
        draining = "draining" if self.draining else ""
        checks = {name: check() for name, check in self._checks.items()}
        return _answer(request, {"started": self._not_started(), "drain": draining, **checks})

    def _not_started(self) -> str:
        return "" if self.started else "still starting"


def _answer(request: web.Request, found: Mapping[str, str]) -> web.Response:
    excluded = request.query.getall("exclude", [])
    faults = {name: why for name, why in found.items() if why and name not in excluded}
    if "verbose" in request.query:
        lines = [_line(name, why, name in excluded) for name, why in found.items()]
        text = "".join(lines) + f"{request.path.strip('/')} check {'failed' if faults else 'passed'}\n"
    else:
        text = "".join(f"{name}: {why}\n" for name, why in faults.items()) or "ok\n"
    return web.Response(status=503 if faults else 200, text=text)


def _line(name: str, why: str, excluded: bool) -> str:  # noqa: FBT001 - one fact
    if excluded:
        return f"[+]{name} excluded: ok\n"
    return f"[-]{name} failed: {why}\n" if why else f"[+]{name} ok\n"
