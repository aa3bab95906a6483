"""Log lines as text or JSON, each with the id of the request that it belongs to."""

import json
import logging
import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, Literal

from labelmint.errors import printable_from_text

LogFormat = Literal["text", "json"]
REQUEST_ID_HEADER = "x-request-id"  # key in the metadata of requests and in trailers
request_id: ContextVar[str] = ContextVar("request_id", default="")
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def set_up_logging(style: LogFormat, level: str) -> None:
    """Writes all log records of the process from `level` on to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if style == "json" else _Text())
    handler.addFilter(_is_no_hang_up)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def request_id_from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The caller's request id if it is 1 to 64 letters, digits or . _ : -, else a new one."""
    for key, value in metadata or ():
        if key == REQUEST_ID_HEADER and isinstance(value, str) and _GIVEN_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


def fields(**values: str | int | float) -> dict[str, dict[str, str | int | float]]:
    """The argument `extra` of a log call: named values, which become fields of the line."""
    return {"fields": values}


def _fields_of(record: logging.LogRecord) -> dict[str, str | int | float]:
    found = dict(getattr(record, "fields", {}))
    if request_id.get():
        found["request_id"] = request_id.get()
    return found


def _is_no_hang_up(record: logging.LogRecord) -> bool:
    """False for gRPC's traceback of a call whose caller left before its answer: callers could
    fill the log with them."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "ExecuteBatchError"  # grpc's, and private


class _Text(logging.Formatter):
    """Lines of the form TIME LEVEL MESSAGE field=value ..."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        words = [f"{name}={value}" for name, value in _fields_of(record).items()]
        # Bundles and callers choose parts of it: no line of theirs may look like one of ours.
        return printable_from_text(" ".join([super().formatMessage(record), *words]))

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"  {printable_from_text(line)}" for line in lines)


class _Json(logging.Formatter):
    """One JSON object per line; a traceback is one string in it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # Letters stay as they are; what json leaves of control characters becomes escapes.
        return "".join(
            letter if letter.isprintable() else json.dumps(letter)[1:-1]
            for letter in json.dumps(line, ensure_ascii=False)
        )
