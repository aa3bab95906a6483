"""Maps of one byte per pixel as answers: masks, proposals, uncertainty. Whole, or small for lists.

A list of 500 images of 1,024 px would take 2 GB to draw with whole masks.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from checkpoints import Strict
from studio.bodies import checked

SIZE = "x-studio-size"  # header: width and height


class SideQuery(Strict, frozen=True):
    """How large a map or picture may be, pixels of its longer side; None: as it is."""

    side: Annotated[int, msgspec.Meta(ge=16, le=4096)] | None = None


def asked_side(request: Request) -> int | None:
    """The side that a request asks for. Raises StudioError."""
    query = {name: text for name, text in request.query_params.items() if name != "v"}
    return checked(query, SideQuery).side


def map_answer(
    request: Request, values: NDArray[np.uint8], tag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    """The bytes of a map [H, W], or of a small one without the tag. Raises StudioError."""
    side = asked_side(request)
    if side is not None:
        values, tag = small_map(values, side), None
    headers = {SIZE: f"{values.shape[1]} {values.shape[0]}", **(headers or {})}
    if tag is not None:
        headers["etag"] = f'"{tag}"'
    return Response(values.tobytes(), media_type="application/octet-stream", headers=headers)


def small_map(values: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The values [H, W] in the middles of a grid whose longer side has at most `side` cells. No
    class ids are mixed; what is thinner than a cell may be left out."""
    scale = max(1.0, max(values.shape) / side)
    rows, columns = (
        (2 * np.arange(count) + 1) * extent // (2 * count)
        for extent in values.shape
        for count in [max(1, round(extent / scale))]
    )
    small: NDArray[np.uint8] = values[rows[:, None], columns]
    return small
