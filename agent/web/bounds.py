"""How much a client may send: request lines, headers, bodies. What is larger is refused before it is read whole."""

from typing import Any, Final

from aiohttp import web

from agent.errors import UsageError

RUNNER_LIMITS: Final[dict[str, Any]] = {
    "max_line_size": 8_190,
    "max_field_size": 16_384,
    "max_headers": 100,
    "auto_decompress": False,
}
"""For `web.AppRunner`: bytes of the request line, bytes of one header, number of headers; no body is unpacked."""


async def read_body(request: web.BaseRequest, limit_bytes: int) -> bytes:
    """The whole body, at most `limit_bytes`. Raises UsageError."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise UsageError(f"the body has more than the {limit_bytes} bytes that this request may have")
    return bytes(body)
