"""Candidates for the set: drawn from the generator, shown, and put into the set or out of it.

Candidates are the samples of the set's own seed, as `training sample` draws them, so a set that was
changed here has the images that the generator would draw for these indices.
"""

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.files import replace_file
from checkpoints import write_text
from nets.generator import Generator
from studio.errors import Conflict, NotFound, StudioError
from studio.project import WORK, Project
from studio.thumbnails import small_picture
from studio.turns import Turns
from training.images.image_set import (
    IMAGES,
    INDEX,
    LATENTS,
    ImageEntry,
    ImageSet,
    sha256_of_array,
    text_of_index,
)
from training.images.sample import (
    SOURCE_PREFIX,
    SampleConfig,
    drawn_w,
    truncated,
    typical_rows,
)
from training.label_crop import images_from_ws

Order = Literal["typical", "farthest"]
POOL = 256  # candidates to choose from; more on demand, in steps of as many
MAX_POOL = 1 << 14
SHOWN = 24  # on a page
NEXT = "next_number"  # in the index
KEPT = 512  # pictures in memory
MAX_IMAGES = 5000  # of a set
NEXT_INDEX, NEXT_LATENTS = "next-index.json", "next-latents.npy"


class Candidates:
    """Samples of the seed that a set was drawn with. Methods are thread-safe."""

    def __init__(self, project: Project, generator: Generator, turns: Turns) -> None:
        self.project, self._generator, self._turns = project, generator, turns
        self._lock = threading.Lock()  # of what follows
        self.config = config_of_set(project.images)
        self._w = np.zeros((0, generator.config.w_dim), np.float32)
        self._pictures: OrderedDict[int, tuple[bytes, str]] = OrderedDict()

    def indices(self, order: Order, pool: int) -> list[int]:
        """Up to 24 candidates out of the first `pool` that are not in the set. Raises StudioError,
        Conflict."""
        if not SHOWN <= pool <= MAX_POOL:
            raise StudioError(f"the pool is {pool}; it must be from {SHOWN} to {MAX_POOL}")
        w = self._drawn(pool)[:pool]
        taken = [i for i in indices_of_set(self.project.images) if i < pool]
        if order == "typical":
            seed = self._seeded().seed
            rows = typical_rows(w, min(pool, SHOWN + len(taken)), seed).tolist()
            return [i for i in rows if i not in taken][:SHOWN]
        return farthest_rows(w, taken, SHOWN)

    def picture(self, index: int) -> tuple[bytes, str]:
        """A candidate's small picture and its media type. Raises NotFound, Conflict."""
        with self._lock:
            found = self._pictures.get(index)
        if found is not None:
            return found
        (w,) = self._ws([index])
        found = small_picture(Image.fromarray(self._drawn_image(w)))
        with self._lock:
            self._pictures[index] = found
            while len(self._pictures) > KEPT:
                self._pictures.popitem(last=False)
        return found

    def add(self, indices: Sequence[int]) -> list[str]:
        """Puts candidates into the set; returns their stems. Raises NotFound, Conflict."""
        self._seeded()
        known = indices_of_set(self.project.images)
        indices = [i for i in dict.fromkeys(indices) if i not in known]
        if not indices:
            return []
        files = []
        for w in self._ws(indices):
            picture = self._drawn_image(w)
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "png")
            files.append((stream.getvalue(), sha256_of_array(picture), w))
        with self.project.lock:
            images = self.project.images  # others may have come in meanwhile
            known = indices_of_set(images)
            new = [pair for pair in zip(indices, files, strict=True) if pair[0] not in known]
            if len(images) + len(new) > MAX_IMAGES:
                raise Conflict(f"the set would have over {MAX_IMAGES} images")
            if not new:
                return []
            first = next_number(images)
            entries = [
                ImageEntry(
                    file=f"{first + n:03d}.png", pixels_sha256=sha, source=f"{SOURCE_PREFIX}{index}"
                )
                for n, (index, (_, sha, _)) in enumerate(new)
            ]
            for entry, (_, (data, _, _)) in zip(entries, new, strict=True):
                replace_file(images.folder / IMAGES / entry.file, data)
            ws = np.stack([w for _, (_, _, w) in new])
            change_set(
                self.project, np.concatenate([images.ws, ws]), [*images.index.images, *entries]
            )
        return [Path(entry.file).stem for entry in entries]

    def _drawn_image(self, w: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The image [H, W, 3] of a w+, in a turn of its own."""
        with self._turns.later():
            images = images_from_ws(self._generator, w[None], self.project.images.crop)
        image: NDArray[np.uint8] = images[0]
        return image

    def _ws(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """w+ of candidates. Raises NotFound, Conflict."""
        if not all(0 <= index < MAX_POOL for index in indices):
            raise NotFound(f"candidates have indices from 0 to {MAX_POOL - 1}")
        w = self._drawn(max(indices) + 1)
        return truncated(self._generator, w[list(indices)], self._seeded())

    def _drawn(self, count: int) -> NDArray[np.float32]:
        """w of the first candidates, at least `count`. Raises Conflict."""
        config, w = self._seeded(), self._w
        if len(w) >= count:
            return w
        with self._turns.later():
            if len(self._w) < count:
                steps = -(-count // POOL) * POOL
                self._w = drawn_w(self._generator, replace(config, candidates=steps))
            return self._w

    def _seeded(self) -> SampleConfig:
        """How candidates are drawn. Raises Conflict for a set of photographs."""
        if self.config is None:
            raise Conflict("the images of this set were not drawn from a seed; none can be added")
        return self.config


def remove_image(project: Project, stem: str) -> None:
    """Takes an image without labels out of the set. Raises NotFound, Conflict."""
    with project.lock:
        row = project.row(stem)
        project.take_in()
        if project.has_label(stem):
            raise Conflict(f"{stem} has labels; clear them before you take it out")
        if len(project.images) == 1:
            raise Conflict("this is the last image; a set has at least one")
        file = project.image_file(stem)
        entries = [e for i, e in enumerate(project.images.index.images) if i != row]
        change_set(project, np.delete(project.images.ws, row, axis=0), entries)
        file.unlink(missing_ok=True)


def change_set(project: Project, ws: NDArray[np.float32], entries: Sequence[ImageEntry]) -> None:
    """Replaces latents and index together: both new files are complete before either is moved to
    its place, and `finish_change` moves those that a killed process left."""
    folder, work = project.folder, project.work
    stream = io.BytesIO()
    np.save(stream, ws)
    made = {
        **project.images.index.made,
        "by": "python -m studio",
        "count": len(entries),
        NEXT: next_number(project.images),
    }
    index = msgspec.structs.replace(
        project.images.index,
        latents_sha256=sha256_of_array(ws),
        images=list(entries),
        made=made,
    )
    replace_file(work / NEXT_LATENTS, stream.getvalue())
    write_text(work / NEXT_INDEX, text_of_index(index))
    finish_change(folder)
    project.replace_images(ImageSet(folder, index, ws))


def next_number(images: ImageSet) -> int:
    """Name of the next image: no name comes again, since an open tab may have strokes for the image
    that had it."""
    known = images.index.made.get(NEXT)
    numbers = [int(stem) for stem in images.stems if stem.isdecimal()]
    return max([known if isinstance(known, int) else 0, *(number + 1 for number in numbers)])


def finish_change(folder: Path) -> None:
    """Moves the files of a change that was complete, if any."""
    work = folder / WORK
    if not (work / NEXT_INDEX).exists():
        return
    if (work / NEXT_LATENTS).exists():
        os.replace(work / NEXT_LATENTS, folder / LATENTS)
    os.replace(work / NEXT_INDEX, folder / INDEX)


def config_of_set(images: ImageSet) -> SampleConfig | None:
    """How a set was drawn; None for photographs, and for sets made in another way."""
    made = images.index.made
    try:
        config = msgspec.convert(
            {name: made[name] for name in ("seed", "psi", "cutoff")}, SampleConfig
        )
        indices_of_set(images)
    except (KeyError, ValueError, msgspec.ValidationError):
        return None
    return config


def indices_of_set(images: ImageSet) -> list[int]:
    """Stream indices of the images. Raises ValueError for images that are no samples."""
    return [int(str(e.source).removeprefix(SOURCE_PREFIX)) for e in images.index.images]


def farthest_rows(points: NDArray[np.float32], taken: Sequence[int], count: int) -> list[int]:
    """Rows of points [n, d] outside `taken`, each the farthest from those taken before it."""
    nearest = np.full(len(points), np.inf, np.float32)
    first = list(taken) or [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())]
    for row in first:
        nearest = np.minimum(nearest, np.square(points - points[row]).sum(axis=1))
    nearest[first] = -1
    chosen = [] if taken else first
    while len(chosen) < count and nearest.max() >= 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
        nearest[chosen] = -1
    return chosen
