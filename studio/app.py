"""The studio's HTTP interface: routes, what their bodies must be, and how errors are answered.

Reading a request is asynchronous; all work is done in threads, so that a stroke is never late
because an image is being drawn.
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bundle.errors import BundleError, printable_line
from checkpoints import CheckpointError, ClassCard
from studio.bodies import (
    AddBody,
    CandidatesQuery,
    ClassesBody,
    EventsQuery,
    HoldBody,
    KeypointsBody,
    LearnBody,
    PointsBody,
    SelectBody,
    body_of,
    checked,
    file_answer,
    json_answer,
)
from studio.depth import picture_of_stem
from studio.errors import Conflict, NotFound, StudioError
from studio.maps import map_answer
from studio.pick import remove_image
from studio.review_routes import ReviewHandlers
from studio.safety import Guard
from studio.summary import Studio, archive_of_labels, project_summary, stored_points
from studio.thumbnails import Thumbnails
from training.errors import TrainingError
from training.labels.formats import Format

PAGE = Path(__file__).with_name("page")
# The page's files; no other path reaches the disk.
PAGE_FILES = {path.name: path for path in PAGE.iterdir() if path.suffix in (".js", ".css", ".svg")}
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
JSON_BYTES = 1 << 20
LONG_CACHE = {"cache-control": "private, max-age=31536000, immutable"}
INDEX = re.compile("[0-9]{1,6}")  # of a candidate
TAB = "x-studio-tab"
MADE_BY = "x-studio-classes"  # keys of the classes that a mask was made by, by id


def application(studio: Studio, token: str) -> Guard:
    """The ASGI application, guarded by the token."""
    handlers = Handlers(studio)
    routes = [
        Route("/", handlers.page),
        Route("/page/{name}", handlers.page_file),
        Route("/images/{stem}", handlers.image),
        Route("/thumbnails/{stem}", handlers.thumbnail),
        Route("/images/{stem}/depth", handlers.depth),
        Route("/candidates/{index}", handlers.candidate),
        Route("/api/project", handlers.project),
        Route("/api/events", handlers.events),
        Route("/api/classes", handlers.set_classes, methods=["PUT"]),
        Route("/api/keypoints", handlers.set_keypoints, methods=["PUT"]),
        Route("/api/candidates", handlers.candidates),
        Route("/api/images", handlers.add_images, methods=["POST"]),
        Route("/api/images/{stem}", handlers.remove_image, methods=["DELETE"]),
        Route("/api/images/{stem}/mask", handlers.mask, methods=["GET"]),
        Route("/api/images/{stem}/mask", handlers.save_mask, methods=["PUT"]),
        Route("/api/images/{stem}/points", handlers.save_points, methods=["PUT"]),
        Route("/api/images/{stem}/hold", handlers.hold, methods=["POST"]),
        Route("/api/images/{stem}/select", handlers.select, methods=["POST"]),
        Route("/api/images/{stem}/proposal", handlers.proposal),
        Route("/api/images/{stem}/uncertainty", handlers.uncertainty),
        Route("/api/learn", handlers.learn, methods=["POST"]),
        Route("/api/export", handlers.start_export, methods=["POST"]),
        Route("/api/labels/{format}", handlers.labels),
        *ReviewHandlers(studio.reviews).routes(),
    ]
    errors: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        StudioError: _answer_error,
        TrainingError: _answer_error,
        CheckpointError: _answer_error,
        BundleError: _answer_error,
        OSError: _answer_disk_error,
        ClientDisconnect: _answer_nobody,
    }
    height, width = studio.project.size
    app = Starlette(routes=routes, exception_handlers=errors)
    return Guard(app, token, max(height * width, JSON_BYTES))


async def _answer_error(request: Request, error: Exception) -> Response:
    return PlainTextResponse(printable_line(str(error)), getattr(error, "status", 409))


async def _answer_disk_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    text = f"{error.filename or 'a file of the project'}: {error.strerror or error}"
    return PlainTextResponse(text, 507)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # to a client that has left in the middle of its request


class Handlers:
    """One method for each route."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.thumbnails = Thumbnails(studio.project)

    async def page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    async def page_file(self, request: Request) -> Response:
        path = PAGE_FILES.get(request.path_params["name"])
        if path is None:
            raise NotFound("the page has no such file")
        return FileResponse(
            path, media_type=TYPES[path.suffix], headers={"cache-control": "no-cache"}
        )

    async def image(self, request: Request) -> Response:
        path = self.studio.project.image_file(request.path_params["stem"])
        return file_answer(path, "image/png", LONG_CACHE)

    async def thumbnail(self, request: Request) -> Response:
        path = await run_in_threadpool(self.thumbnails.file, request.path_params["stem"])
        return file_answer(path, headers=LONG_CACHE)

    async def depth(self, request: Request) -> Response:
        stem = request.path_params["stem"]
        data = await run_in_threadpool(picture_of_stem, self.studio.project, stem)
        return Response(data, media_type="image/png", headers={"cache-control": "no-cache"})

    async def candidate(self, request: Request) -> Response:
        index = request.path_params["index"]
        if INDEX.fullmatch(index) is None:
            raise NotFound(f"there is no candidate {index[:80]!r}")
        data, kind = await run_in_threadpool(self.studio.candidates.picture, int(index))
        return Response(data, media_type=kind, headers=LONG_CACHE)

    async def project(self, request: Request) -> Response:
        return json_answer(await run_in_threadpool(project_summary, self.studio))

    async def events(self, request: Request) -> Response:
        asked = checked({"tabs": request.query_params.getlist("tab")}, EventsQuery)
        stream = self.studio.tabs.events(asked.tabs)
        return StreamingResponse(stream, media_type="text/event-stream")

    async def set_classes(self, request: Request) -> Response:
        body = await body_of(request, ClassesBody)
        cards = [ClassCard(name=row.name, color=row.color) for row in body.classes]
        keys = [row.key for row in body.classes]
        await run_in_threadpool(self.studio.project.set_classes, cards, body.before, keys)
        return self._changed()

    async def set_keypoints(self, request: Request) -> Response:
        body = await body_of(request, KeypointsBody)
        before = body.before.names, body.before.skeleton
        await run_in_threadpool(
            self.studio.project.set_keypoints, body.names, body.skeleton, before
        )
        return self._changed()

    async def candidates(self, request: Request) -> Response:
        asked = checked(dict(request.query_params), CandidatesQuery)
        found = await run_in_threadpool(self.studio.candidates.indices, asked.order, asked.pool)
        return json_answer(found)

    async def add_images(self, request: Request) -> Response:
        body = await body_of(request, AddBody)
        await run_in_threadpool(self.studio.candidates.add, body.indices)
        return self._changed()

    async def remove_image(self, request: Request) -> Response:
        await run_in_threadpool(remove_image, self.studio.project, request.path_params["stem"])
        return self._changed()

    async def mask(self, request: Request) -> Response:
        read = self.studio.project.mask_by_classes
        mask, tag, keys = await run_in_threadpool(read, request.path_params["stem"])
        return map_answer(request, mask, tag, {MADE_BY: " ".join(keys)})

    async def save_mask(self, request: Request) -> Response:
        stem, tab = request.path_params["stem"], request.headers.get(TAB, "")
        checked({"tab": tab}, HoldBody)
        base = request.headers.get("if-match", "").strip('"')
        if not base:
            raise StudioError("a mask needs the header If-Match, the tag of the mask before it")
        made_by = request.headers.get(MADE_BY, "").split()
        if not made_by:
            raise StudioError(
                "a mask needs the header X-Studio-Classes, as the answer with the mask before it "
                "has it"
            )
        self.studio.project.row(stem)
        if not self.studio.tabs.hold(stem, tab):
            raise Conflict(f"another tab holds {stem}; take it over there first")
        pixels = await request.body()
        tag = await run_in_threadpool(self.studio.project.save_mask, stem, pixels, base, made_by)
        await self._note_activity()
        self.studio.tabs.publish("saved", {"stem": stem, "tag": tag, "tab": tab})
        self.studio.learner.labels_changed()
        return Response(status_code=204, headers={"etag": f'"{tag}"'})

    async def save_points(self, request: Request) -> Response:
        stem, tab = request.path_params["stem"], request.headers.get(TAB, "")
        body = await body_of(request, PointsBody)
        self.studio.project.row(stem)
        if not self.studio.tabs.hold(stem, checked({"tab": tab}, HoldBody).tab):
            raise Conflict(f"another tab holds {stem}; take it over there first")
        points = None
        if body.points is not None:
            points = np.array(body.points, np.float32).reshape(-1, 3)
        project = self.studio.project
        await run_in_threadpool(project.save_points, stem, points, body.names)
        await self._note_activity()
        told = {"stem": stem, "tag": None, "tab": tab, "points": stored_points(project, stem)}
        self.studio.tabs.publish("saved", told)
        self.studio.learner.labels_changed()
        return Response(status_code=204)

    async def hold(self, request: Request) -> Response:
        body = await body_of(request, HoldBody)
        stem = request.path_params["stem"]
        self.studio.project.row(stem)
        held = self.studio.tabs.hold(stem, body.tab, body.take)
        if not held:
            raise Conflict(f"another tab holds {stem}")
        await self._note_activity()
        # So that the first click is as quick as the next.
        return Response(status_code=204, background=BackgroundTask(self._read_features, stem))

    def _read_features(self, stem: str) -> None:
        with suppress(StudioError):  # the image was taken out, or the studio ends
            self.studio.tables.table(stem)

    async def select(self, request: Request) -> Response:
        stem = request.path_params["stem"]
        body = await body_of(request, SelectBody)
        height, width = self.studio.project.size
        if not all(0 <= x < width and 0 <= y < height for x, y in body.points):
            raise StudioError(f"a point lies outside the image of {width}x{height} pixels")
        painted = await run_in_threadpool(self._shown, stem, body.proposed)
        chosen = await run_in_threadpool(
            self.studio.tables.select, stem, body.points, body.class_id, painted
        )
        await self._note_activity()
        headers = {"x-studio-level": str(chosen.proposed)}
        return Response(
            chosen.levels.tobytes(), media_type="application/octet-stream", headers=headers
        )

    def _shown(self, stem: str, proposed: bool) -> NDArray[np.uint8]:
        """The mask that a tab shows, [H, W]."""
        project = self.studio.project
        if proposed:
            with suppress(NotFound):  # there is a newer round, without one
                data = self.studio.learner.proposal(stem)
                return np.frombuffer(data, np.uint8).reshape(project.size)
        return project.mask(stem)[0]

    async def proposal(self, request: Request) -> Response:
        return await self._learned(request, self.studio.learner.proposal)

    async def uncertainty(self, request: Request) -> Response:
        return await self._learned(request, self.studio.learner.uncertainty_map)

    async def _learned(self, request: Request, read: Callable[[str], bytes]) -> Response:
        stem = request.path_params["stem"]
        self.studio.project.row(stem)
        # Before the ids are read, so that none is said to mean a class that came later.
        keys = " ".join(names[-1] for names in self.studio.project.class_keys)
        data = await run_in_threadpool(read, stem)
        mask = np.frombuffer(data, np.uint8).reshape(self.studio.project.size)
        return map_answer(request, mask, headers={MADE_BY: keys})

    async def learn(self, request: Request) -> Response:
        body = await body_of(request, LearnBody)
        actions = {
            "start": self.studio.learner.start,
            "auto": self.studio.learner.start_if_changed,
            "stop": self.studio.learner.stop,
        }
        await run_in_threadpool(actions[body.action])
        return Response(status_code=204)

    async def start_export(self, request: Request) -> Response:
        await run_in_threadpool(self.studio.export.start)
        return Response(status_code=204)

    async def labels(self, request: Request) -> Response:
        format_ = request.path_params["format"]
        if format_ not in get_args(Format):
            raise NotFound(f"there is no format {format_[:80]!r}: {', '.join(get_args(Format))}")
        data = await run_in_threadpool(archive_of_labels, self.studio.project, format_)
        name = f"labels-{format_}.zip"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(data, media_type="application/zip", headers=headers)

    async def _note_activity(self) -> None:
        with suppress(OSError):  # a full disk: minutes are lost, and the label is answered for
            await run_in_threadpool(self.studio.learner.progress.note_activity)

    def _changed(self) -> Response:
        self.studio.tabs.publish("project", {})
        return Response(status_code=204)
