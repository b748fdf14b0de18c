"""The log of a node: stderr, one line an event, `time level message`."""

import logging
import sys
import time
import traceback

from constraint_crdt.cli.tables import printable


class LineFormatter(logging.Formatter):
    """Each record on one line: errors are named with the place they come from, and line ends in names cannot forge a record."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's names
        """Local time with its offset, in ms."""
        local = time.localtime(record.created)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(record.msecs):03d}{time.strftime('%z', local)}"

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        line = f"{self.formatTime(record)} {record.levelname.lower()} {printable(record.getMessage())}"
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)
            place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            line += printable(f": {type(error).__name__}: {error}{place}")
        return line


def log_to_stderr() -> None:
    """Set up logging for a process that is a node."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.raiseExceptions = False  # nobody reads stderr any more: no reason to end, nor to say so there
