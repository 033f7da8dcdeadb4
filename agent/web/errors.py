"""Errors as answers: every one is JSON, with what went wrong, what to do, and the exit code a CLI ends with.

Rules: a `RollwayError` knows its status; what aiohttp refuses by itself gets the same shape; a broken
invariant is logged with its traceback and answered without it, and anything else that nobody expected is left to
aiohttp, which does the same in plain text. Nothing of a request's body or headers is repeated.
"""

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from agent.errors import InvariantBrokenError, NotFoundError, RollwayError, UsageError

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RollwayError as error:
        return _answer(error.http_status, error.error, error.what_to_do, error.exit_code)
    except web.HTTPError as error:
        code = NotFoundError.exit_code if error.status == web.HTTPNotFound.status_code else UsageError.exit_code
        what = f"{request.method} {request.path}: {error.reason}"
        return _answer(error.status, what, "See the API's documentation; client and server may differ in age.", code)
    except InvariantBrokenError:
        log.exception("a request found the program wrong", method=request.method, path=request.path)
        return _answer(500, "cannot answer: an internal error", "See the server's log; report it as a bug.", 1)


def _answer(status: int, error: str, what_to_do: str, code: int) -> web.Response:
    body = msgspec.json.encode({"error": error, "what_to_do": what_to_do, "code": code})
    return web.Response(status=status, body=body, content_type="application/json")
