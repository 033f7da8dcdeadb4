"""The agent's HTTP: its own health and metrics, and for each app whether a balancer may send to this host."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from agent.errors import NotFoundError
from agent.host.host import Host
from agent.telemetry.metrics import CONTENT_TYPE
from agent.traffic.agentcheck import Answer
from agent.web.errors import errors_as_json
from agent.web.health import Health


def agent_check(host: Host, app: str, environment: str) -> Answer:
    """What HAProxy's agent-check hears: as `/apps/<app>/readyz` says it, and a drain as what it is."""
    reason = host.unready(app, environment)
    if reason is None:
        return Answer("down", f"no app {app} runs on this host in {environment}")
    if reason == "draining":
        return Answer("drain")
    return Answer("down", reason) if reason else Answer("ready")


def application(host: Host, health: Health, metrics: Callable[[], Awaitable[bytes]]) -> web.Application:
    async def app_readyz(request: web.Request) -> web.Response:
        """200 while every listening type has an instance that is ready, else 503 with the reason."""
        app = request.match_info["app"]
        reason = host.unready(app, request.query.get("environment"))
        if reason is None:
            raise NotFoundError(f"no app {app} runs on this host")
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def all_metrics(_: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application(middlewares=[errors_as_json])
    application.router.add_get("/apps/{app}/readyz", app_readyz)
    application.router.add_get("/metrics", all_metrics)
    health.add_routes(application)
    return application
