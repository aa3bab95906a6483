"""The routes of the review: the wall, verdicts, corrected masks and the certificate."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from checkpoints import Strict
from studio.bodies import body_of, checked, file_answer, json_answer
from studio.errors import StudioError
from studio.maps import asked_side, map_answer
from studio.reviews import Reviews
from studio.thumbnails import small_picture
from training.images.image_set import read_rgb

IMMUTABLE = {"cache-control": "private, max-age=31536000, immutable"}


class ReviewQuery(Strict, frozen=True):
    """The mean share of wrong pixels that is asked for."""

    error: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05


class VerdictBody(Strict, frozen=True):
    """What a person says of a sample; None takes it back."""

    verdict: Literal["right", "wrong"] | None


class ReviewHandlers:
    """One method for each route."""

    def __init__(self, reviews: Reviews) -> None:
        self.reviews = reviews

    def routes(self) -> list[Route]:
        """All routes below /review and /api/review."""
        one = "/api/review/{stem}"
        return [
            Route("/review/{stem}", self.picture),
            Route("/review/{stem}/depth", self.depth),
            Route("/api/review", self.state, methods=["GET"]),
            Route("/api/review", self.draw, methods=["POST"]),
            Route("/api/review/certificate", self.certificate),
            Route("/api/review/bundle", self.certify, methods=["POST"]),
            Route("/api/review/sheet", self.sheet),
            Route(f"{one}/verdict", self.say, methods=["PUT"]),
            Route(f"{one}/mask", self.mask, methods=["GET"]),
            Route(f"{one}/mask", self.correct, methods=["PUT"]),
            Route(f"{one}/uncertainty", self.uncertainty),
        ]

    async def picture(self, request: Request) -> Response:
        path = await run_in_threadpool(self.reviews.picture, request.path_params["stem"])
        side = asked_side(request)
        if side is None or side >= max(self.reviews.project.size):
            return file_answer(path, "image/png", IMMUTABLE)
        data, kind = await run_in_threadpool(_small, path, side)
        return Response(data, media_type=kind, headers=IMMUTABLE)

    async def depth(self, request: Request) -> Response:
        path = await run_in_threadpool(self.reviews.depth_picture, request.path_params["stem"])
        return file_answer(path, "image/png", IMMUTABLE)

    async def state(self, request: Request) -> Response:
        asked = checked(dict(request.query_params), ReviewQuery)
        return json_answer(await run_in_threadpool(self.reviews.state, asked.error))

    async def draw(self, request: Request) -> Response:
        await run_in_threadpool(self.reviews.draw_more)
        return Response(status_code=204)

    async def certificate(self, request: Request) -> Response:
        answer = json_answer(await run_in_threadpool(self.reviews.certificate))
        answer.headers["content-disposition"] = 'attachment; filename="certificate.json"'
        return answer

    async def certify(self, request: Request) -> Response:
        await run_in_threadpool(self.reviews.certify)
        return Response(status_code=204)

    async def sheet(self, request: Request) -> Response:
        data = await run_in_threadpool(self.reviews.contact_sheet)
        return Response(data, media_type="image/png", headers={"cache-control": "no-store"})

    async def say(self, request: Request) -> Response:
        body = await body_of(request, VerdictBody)
        await run_in_threadpool(self.reviews.say, request.path_params["stem"], body.verdict)
        return Response(status_code=204)

    async def mask(self, request: Request) -> Response:
        mask, tag = await run_in_threadpool(self.reviews.mask, request.path_params["stem"])
        return map_answer(request, mask, tag)

    async def correct(self, request: Request) -> Response:
        stem, base = request.path_params["stem"], request.headers.get("if-match", "").strip('"')
        if not base:
            raise StudioError("a mask needs the header If-Match, the tag of the mask before it")
        tag = await run_in_threadpool(self.reviews.correct, stem, await request.body(), base)
        return Response(status_code=204, headers={"etag": f'"{tag}"'})

    async def uncertainty(self, request: Request) -> Response:
        stem = request.path_params["stem"]
        data = await run_in_threadpool(self.reviews.uncertainty_map, stem)
        return map_answer(request, np.frombuffer(data, np.uint8).reshape(self.reviews.project.size))


def _small(path: Path, side: int) -> tuple[bytes, str]:
    return small_picture(Image.fromarray(read_rgb(path)), side)
