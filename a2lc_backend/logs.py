"""Structured logs on standard error, without secrets."""

from __future__ import annotations

import logging

import structlog


def configure_logs(level: str) -> None:
    """Log `level` and above, one line an event, with project, round and phase where they are bound."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(__import__("sys").stderr),
    )
    # httpx logs every address at INFO; the SDK puts nothing secret there, but a round makes thousands.
    logging.getLogger("httpx").setLevel(logging.WARNING)
