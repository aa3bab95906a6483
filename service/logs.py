"""Log lines for people or for machines, each with the request it belongs to."""

import json
import logging
import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Literal

LogFormat = Literal["text", "json"]
REQUEST_ID_HEADER = "x-request-id"  # of requests; trailers bring it back
request_id: ContextVar[str] = ContextVar("request_id", default="")
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def set_up_logging(style: LogFormat, level: str) -> None:
    """All records of the process to standard error, in this style."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if style == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def request_id_from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The caller's own, where it is a harmless word of 64 characters at most; else a new one."""
    for key, value in metadata or ():
        if key == REQUEST_ID_HEADER and isinstance(value, str) and _GIVEN_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


def fields(**values: str | int | float) -> dict[str, dict[str, str | int | float]]:
    """`extra` of a log call: values that machines read as fields."""
    return {"fields": values}


def _fields_of(record: logging.LogRecord) -> dict[str, str | int | float]:
    found = dict(getattr(record, "fields", {}))
    if request_id.get():
        found["request_id"] = request_id.get()
    return found


class _Text(logging.Formatter):
    """TIME LEVEL MESSAGE field=value ..."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        words = [f"{name}={value}" for name, value in _fields_of(record).items()]
        return " ".join([super().formatMessage(record), *words])


class _Json(logging.Formatter):
    """One object a line; a traceback is one string in it."""

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
        return json.dumps(line, ensure_ascii=False)
