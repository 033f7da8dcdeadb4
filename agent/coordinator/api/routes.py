"""The whole HTTP surface: each route with who may use it.

`anyone` shows nothing: a host on its way in. `agent` is a host, by its certificate, as long as it is in the fleet; the
others are holders of tokens, each of whom may do what those before may.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler

from agent.coordinator.api import apps, builds, fleet, hosts, leases, releases, rollouts, runs, scale
from agent.coordinator.api.call import Call
from agent.coordinator.server import Server
from agent.coordinator.tokens import Caller, Role
from agent.errors import ForbiddenError, UnauthorizedError
from agent.link.peers import AGENT_ROLE, peer_of
from agent.linux import clock
from agent.web.errors import errors_as_json
from agent.web.health import Health

ENVIRONMENT: Final = "/v1/apps/{app}/environments/{environment}"


class Route(NamedTuple):
    method: str
    path: str
    role: Role | Literal["agent", "anyone"]
    handler: Callable[[Call], Awaitable[web.StreamResponse]]


ROUTES: Final = (
    Route("GET", "/v1/apps", "viewer", apps.list_apps),
    Route("GET", "/v1/apps/{app}/builds", "viewer", builds.list_builds),
    Route("GET", "/v1/apps/{app}/builds/{digest}", "viewer", builds.get_manifest),
    Route("PUT", "/v1/apps/{app}/builds/{digest}", "operator", builds.put_build),
    Route("PUT", "/v1/apps/{app}/builds/{digest}/archive", "operator", builds.put_archive),
    Route("GET", "/v1/apps/{app}/environments", "viewer", apps.list_environments),
    Route("GET", ENVIRONMENT, "viewer", apps.get_environment),
    Route("PUT", ENVIRONMENT, "admin", apps.set_environment),
    Route("GET", f"{ENVIRONMENT}/config", "viewer", apps.get_config),
    Route("POST", f"{ENVIRONMENT}/config", "operator", apps.change_config),
    Route("GET", f"{ENVIRONMENT}/releases", "viewer", releases.list_releases),
    Route("POST", f"{ENVIRONMENT}/releases", "operator", releases.create_release),
    Route("GET", f"{ENVIRONMENT}/releases/{{release}}", "viewer", releases.get_release),
    Route("GET", f"{ENVIRONMENT}/state", "viewer", apps.get_state),
    Route("POST", f"{ENVIRONMENT}/rollouts", "operator", rollouts.create_rollout),
    Route("GET", f"{ENVIRONMENT}/scale", "viewer", scale.get_counts),
    Route("POST", f"{ENVIRONMENT}/scale", "operator", scale.set_counts),
    Route("GET", f"{ENVIRONMENT}/run-target", "operator", runs.get_target),
    Route("GET", f"{ENVIRONMENT}/run", "operator", runs.run),
    Route("GET", f"{ENVIRONMENT}/logs", "viewer", fleet.stream_logs),
    Route("GET", "/v1/rollouts", "viewer", rollouts.list_rollouts),
    Route("GET", "/v1/rollouts/{rollout}", "viewer", rollouts.get_rollout),
    Route("POST", "/v1/rollouts/{rollout}/abort", "operator", rollouts.abort_rollout),
    Route("POST", "/v1/rollouts/{rollout}/pause", "operator", rollouts.pause_rollout),
    Route("POST", "/v1/rollouts/{rollout}/resume", "operator", rollouts.resume_rollout),
    Route("GET", "/v1/status", "viewer", fleet.status),
    Route("GET", "/v1/ps", "viewer", fleet.ps),
    Route("GET", "/v1/hosts", "viewer", fleet.list_hosts),
    Route("GET", "/v1/leases", "viewer", leases.list_leases),
    Route("DELETE", f"{ENVIRONMENT}/leases/{{process}}", "operator", leases.release_lease),
    Route("POST", "/v1/host-tokens", "admin", hosts.create_token),
    Route("PATCH", "/v1/hosts/{host}/labels", "admin", hosts.change_labels),
    Route("DELETE", "/v1/hosts/{host}", "admin", hosts.remove_host),
    Route("GET", "/join/v1/authority", "anyone", hosts.get_authority),
    Route("POST", "/join/v1/hosts", "anyone", hosts.join),
    Route("POST", "/agent/v1/certificate", "agent", hosts.renew_certificate),
    Route("GET", "/agent/v1/link", "agent", fleet.link),
    Route("GET", "/agent/v1/runs/{run}", "agent", runs.dialled),
    Route("GET", "/agent/v1/releases/{app}/{environment}/{release}", "agent", releases.get_envelope),
    Route("GET", "/agent/v1/builds/{app}/{digest}/manifest", "agent", builds.get_manifest),
    Route("GET", "/agent/v1/builds/{app}/{digest}/archive", "agent", builds.get_archive),
)


def application(server: Server, health: Health) -> web.Application:
    app = web.Application(middlewares=[errors_as_json])
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _guarded(route, server))
    health.add_routes(app)
    return app


def _guarded(route: Route, server: Server) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await route.handler(Call(server, request, _admit(route, server, request)))

    return handle


def _admit(route: Route, server: Server, request: web.Request) -> Caller:
    if route.role == "anyone":
        return Caller("", route.role)
    if route.role != "agent":
        return server.tokens.admit(request.headers.get("Authorization", ""), route.role)
    peer = peer_of(request)
    if peer is None:
        raise UnauthorizedError("no certificate was shown", "This is for agents, which have one.")
    if peer.role != AGENT_ROLE:
        raise ForbiddenError(f"the certificate of {peer.name} is not an agent's")
    if peer.not_after_s <= clock.now().wall_ms / 1000:
        raise UnauthorizedError(f"the certificate of {peer.name} has expired", "Give the host a new one.")
    server.hosts.admit(peer)
    return Caller(peer.name, peer.role)
