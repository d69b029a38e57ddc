"""How every process of the control plane writes its log: one line an event, through structlog, to stderr."""

from __future__ import annotations

from typing import Any

import structlog

_STAMP = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_config(level: str, *, as_json: bool) -> dict[str, Any]:
    """Django's LOGGING, after telling structlog the same."""
    structlog.configure(
        processors=[
            *_STAMP,
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    lines = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    renderer = structlog.processors.JSONRenderer() if as_json else lines
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "main": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
                "foreign_pre_chain": [*_STAMP, structlog.processors.format_exc_info],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "main"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {"axes": {"level": "WARNING"}, "httpx": {"level": "WARNING"}},
    }
