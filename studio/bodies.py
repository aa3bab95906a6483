"""Bodies and queries of requests as strict records; answers in JSON, and files as answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from checkpoints import ClassCard, Strict
from studio.errors import NotFound, StudioError
from studio.pick import POOL, Order
from studio.tabs import MAX_TABS

MAX_BONES = 1024  # lines between keypoints
Visible = Annotated[int, msgspec.Meta(ge=0, le=1)]
ClassId = Annotated[int, msgspec.Meta(ge=0, le=255)]
TabName = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z-]{8,64}\Z")]
Body = TypeVar("Body", bound=msgspec.Struct)


def json_answer(content: object) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(content), media_type="application/json")


def file_answer(
    path: Path, media_type: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A file of the project. Raises NotFound for one that another program has taken away."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise NotFound(f"{path} is no longer there; put it back") from None
    return FileResponse(path, media_type=media_type, headers=headers, stat_result=status)


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


class EventsQuery(Strict, frozen=True):
    """The tabs that a stream is for."""

    tabs: Annotated[list[TabName], msgspec.Meta(min_length=1, max_length=MAX_TABS)]


class HoldBody(Strict, frozen=True):
    """Asks to hold an image."""

    tab: TabName
    take: bool = False


class ClassRow(ClassCard, frozen=True):
    """A class, and the key of the one that it was in the list before; None: it is a new one."""

    key: str | None = None


class ClassesBody(Strict, frozen=True):
    """All classes, by id, and those that the list was made from."""

    classes: list[ClassRow]
    before: list[ClassCard]


class KeypointNames(Strict, frozen=True):
    """Names of all keypoints, and the lines between them."""

    names: list[str]
    skeleton: Annotated[list[tuple[int, int]], msgspec.Meta(max_length=MAX_BONES)]


class KeypointsBody(KeypointNames, frozen=True):
    """All keypoints, and those that the list was made from."""

    before: KeypointNames


class PointsBody(Strict, frozen=True):
    """Keypoints of an image, x, y and visible; None removes them. And the names that they were
    made by."""

    points: list[tuple[float, float, Visible]] | None
    names: list[str]


class SelectBody(Strict, frozen=True):
    """Pixels (column, row) that were clicked, and the class they get."""

    points: Annotated[list[tuple[int, int]], msgspec.Meta(min_length=1, max_length=4096)]
    class_id: ClassId
    proposed: bool = False  # whether the tab shows the proposal, and not the saved mask


class CandidatesQuery(Strict, frozen=True):
    """Which candidates to show."""

    order: Order = "typical"
    pool: int = POOL  # candidates to choose from


class AddBody(Strict, frozen=True):
    """Candidates to put into the set."""

    indices: Annotated[list[int], msgspec.Meta(min_length=1, max_length=64)]


class LearnBody(Strict, frozen=True):
    """What the learner is to do. auto: start if the labels suffice and have changed."""

    action: Literal["start", "auto", "stop"]
