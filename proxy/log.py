"""Structured logs on standard error, holding nothing secret at any level.

Two rules keep secrets out, and neither depends on the level:

* A third-party logger never gets below WARNING, since SDKs print request and response bodies when debugging; the HTTP
  server's own loggers are silent, since they quote what they could not parse.
* A traceback is printed as file, line and function of each frame and the type of each exception. The message of an
  exception is printed only for our own error trees, which promise to hold nothing secret, and for `OSError`'s errno.
"""

import json
import logging
import secrets
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Final, Literal, TextIO

Format = Literal["text", "json"]

OURS: Final = ("proxy", "providers", "fastpath", "keyside")
SILENT: Final = ("aiohttp.access", "aiohttp.server", "aiohttp.web", "aiohttp.internal", "aiohttp.websocket")
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

logger = logging.getLogger("proxy")


def configure(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Send the logs of this process to `stream` (standard error). May be called again: the last call counts."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(LEVELS[level.lower()])
    for name in SILENT:
        logging.getLogger(name).disabled = True
    logging.captureWarnings(True)
    # a failing write to standard error must not print the record that failed
    logging.raiseExceptions = False


def event(level: int, message: str, /, **fields: object) -> None:
    """Log `message` with fields that a machine can read: `key=value` in text, members of the object in JSON."""
    logger.log(level, message, extra={"fields": fields})


def defect(what: str, error: BaseException) -> str:
    """Log an unexpected exception and return its correlation id, the only thing about it that a caller may be told."""
    correlation = secrets.token_hex(6)
    logger.error(what, exc_info=error, extra={"fields": {"correlation": correlation}})
    return correlation


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info message key=value`, one line a record whatever the values hold."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_timestamp(record), record.levelname.lower(), _one_line(_message(record))]
        words += [f"{key}={_text_value(value)}" for key, value in _fields(record).items()]
        if trace := _trace(record):
            words.append("at " + " < ".join(trace))
        return " ".join(words)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line |= {key: value for key, value in _fields(record).items() if key not in line}
        if trace := _trace(record):
            line["trace"] = trace
        return json.dumps(line, default=str, ensure_ascii=False)


def describe(error: BaseException) -> str:
    """The type of an exception, with its message only where that is known to hold nothing secret."""
    name = type(error).__name__
    module = type(error).__module__
    if module.split(".", 1)[0] in OURS:
        return f"{name}: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    return name


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # a call with the wrong arguments is a defect, but the arguments may be anything: print none of them
        return str(record.msg)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", None)
    found = dict(fields) if isinstance(fields, dict) else {}
    if record.exc_info:
        found.setdefault("correlation", secrets.token_hex(6))
    return found


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text, ensure_ascii=True)


def _text_value(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(' "=') & set(text) else json.dumps(text, ensure_ascii=True)


def _trace(record: logging.LogRecord) -> list[str]:
    error = record.exc_info[1] if record.exc_info else None
    return [line for link in _chain(error) for line in _frames(link)]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _frames(error: BaseException) -> Iterator[str]:
    yield describe(error)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        yield f"{frame.filename}:{frame.lineno}:{frame.name}"
