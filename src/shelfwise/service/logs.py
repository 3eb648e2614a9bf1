"""Logs: one JSON object a line, on stderr.

It knows no secrets: what is logged of a request is named one by one, and its headers, its address's query and its
content are not among it.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

NAME = "shelfwise.service"


class JsonLines(logging.Formatter):
    """Lays a record out as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def begin() -> None:
    """Send the lines of the service, and of what carries it, to stderr."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines())
    for name, level in ((NAME, logging.INFO), ("uvicorn.error", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [lines], False
        log.setLevel(level)


def say(event: str, **facts: Any) -> None:
    """Log an event of the service."""
    logging.getLogger(NAME).info(event, extra={"facts": facts})
