"""Own events of a role, as JSON lines with `ts`, `level`, `event`: structlog and the standard library's logging alike.

Rules: an event is a fixed sentence, what varies are fields; no secret is ever a field. Where the lines go is given at
start-up and nowhere else. Not handled here: the lines of instances (wire.logline), which share the output.
"""

import logging
import traceback
from collections.abc import Callable

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

Put = Callable[[bytes], None]


def configure(put: Put, form: Callable[[EventDict], bytes] | None = None) -> None:
    """Send every event of this process through `put`, one line each; `form` makes it in the place of JSON."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _line if form is None else lambda _logger, _method, event: form(event),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _Sink(put),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


class _Sink:
    """What structlog calls with the finished line, whatever the level."""

    def __init__(self, put: Put) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = put


class _Forward(logging.Handler):
    """What libraries log, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        details = {"exception": "".join(traceback.format_exception(*record.exc_info))} if record.exc_info else {}
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, **details)


def _line(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    head = {key: event.pop(key) for key in ("ts", "level", "event")}
    return msgspec.json.encode({**head, **event}, enc_hook=str) + b"\n"
