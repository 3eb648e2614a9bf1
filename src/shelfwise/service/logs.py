"""Logs: one JSON object a line, on stderr.

It knows no secrets: what is logged of a request is named one by one, and its headers, its address's query and its
content are not among it.
"""

import asyncio
import contextlib
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

NAME = "shelfwise.service"
#: Seconds that a line may wait for others.
MOMENT = 0.05


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


class Gathered(logging.StreamHandler[TextIO]):
    """Writes the lines of an event loop together, a moment after the first.

    Writing lets other threads go on, and waits for them afterwards: with a line at a time, a thousand refusals a second
    wait for the thread that answers.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write to a stream."""
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        first = not self._lines
        self._lines.append(self.format(record) + self.terminator)
        if record.levelno > logging.INFO:
            self.flush()
        elif first:
            try:
                asyncio.get_running_loop().call_later(MOMENT, self.flush)
            except RuntimeError:  # another thread says something
                self.flush()

    def flush(self) -> None:
        """Write what was taken."""
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                self.stream.write("".join(lines))
            super().flush()


def begin() -> None:
    """Send the lines of the service, and of what carries it, to stderr."""
    lines = Gathered(sys.stderr)
    lines.setFormatter(JsonLines())
    for name, level in ((NAME, logging.INFO), ("uvicorn.error", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [lines], False
        log.setLevel(level)


def say(event: str, **facts: Any) -> None:
    """Log an event of the service."""
    log = logging.getLogger(NAME)
    if log.isEnabledFor(logging.INFO):
        # Where in the code it was said is not looked up: that would be half of the cost of a line.
        record = log.makeRecord(NAME, logging.INFO, "", 0, event, (), None, extra={"facts": facts})
        log.handle(record)
