"""Bodies and queries of requests as strict records, and answers in JSON."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from studio.errors import StudioError

Body = TypeVar("Body", bound=msgspec.Struct)


def json_answer(content: object) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(content), media_type="application/json")


async def body_of(request: Request, kind: type[Body]) -> Body:
    """A JSON body as a strict record. Raises StudioError."""
    data = await request.body()
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise StudioError(f"the body: {' '.join(str(error).split())}") from error


def checked(content: Mapping[str, object], kind: type[Body]) -> Body:
    """A query or headers as a strict record. Raises StudioError."""
    try:
        return msgspec.convert(content, kind, strict=False)
    except msgspec.ValidationError as error:
        raise StudioError(str(error)) from error
