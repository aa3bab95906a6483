"""Multi-view sets for inverse graphics: the objects of a running service whose bundle has a view
bank, and their silhouettes by its masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from labelmint import Client, Model
from labelmint.batch import Batch
from labelmint.errors import LabelmintError
from labelmint.model import Camera, LabelClass
from nets.textured import Cameras
from training.errors import TrainingError

AT_ONCE = 16
OBJECTS = 256  # of a service


@dataclass(frozen=True)
class SetsConfig:
    """Which objects, how many of their views, and what of an image is no object."""

    objects: int | None  # None: all that a data set has, or OBJECTS of a service
    views: int | None  # of each object; None: all of the bank whose azimuth is known
    extent: int  # of the images, pixels
    background: tuple[str, ...]  # names of classes; none: the first one
    seed: int = 0  # of a service's stream, and of which views are taken


class SetsOrigin(Protocol):
    """What sets come from: a served model, or one that wrote a data set."""

    @property
    def bundle_id(self) -> str: ...
    @property
    def licences(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def label_size(self) -> tuple[int, int]: ...
    @property
    def classes(self) -> tuple[LabelClass, ...]: ...
    @property
    def keypoints(self) -> tuple[str, ...]: ...
    @property
    def view_bank(self) -> tuple[Camera, ...]: ...


@dataclass(frozen=True)
class ObjectSets:
    """O objects, V views of each, on squares: images of other extents lie in their middle."""

    images: Tensor  # uint8 [O, V, 3, E, E]
    silhouettes: Tensor  # uint8 [O, V, E, E], 255 where the object is
    codes: Tensor  # int64 [O, V], of the bank, ascending
    keypoints: Tensor | None  # [O, V, K, 3]: x, y in image extents from the middle, confidence
    numbers: tuple[int, ...] = ()  # of the objects in their stream, ascending; empty: of none
    stream_seed: int = 0

    def __len__(self) -> int:
        return len(self.images)


def codes_of_objects(objects: int, views: int, bank: int, seed: int) -> NDArray[np.int64]:
    """Which of a bank's codes show each object, ascending [objects, views]: evenly apart in the
    bank, from a start that is drawn for each object."""
    return evenly_apart(starts_of_objects(objects, bank, seed), views, bank)


def starts_of_objects(objects: int, bank: int, seed: int) -> NDArray[np.int64]:
    """Where each object's views begin in a bank [objects, 1]."""
    random = np.random.Generator(np.random.Philox(key=seed))
    return random.integers(bank, size=(objects, 1))


def evenly_apart(start: NDArray[np.int64], views: int, bank: int) -> NDArray[np.int64]:
    """Positions in a bank from a start [..., 1] on, ascending [..., views]."""
    return np.sort((start + np.arange(views) * bank // views) % bank, axis=-1)


def sets_from_service(target: str, config: SetsConfig) -> tuple[ObjectSets, Model]:
    """The first objects of the stream's seed, and the model. Raises TrainingError."""
    try:
        with Client(target) as client:
            model = client.model()
            refuse_model(model, config)
            bank, usable = len(model.view_bank), usable_codes(model)
            objects, views = config.objects or OBJECTS, config.views or len(usable)
            codes = usable[codes_of_objects(objects, views, len(usable), config.seed)]
            outputs = ["image", "mask", *(["keypoints"] if model.keypoints else [])]
            batches = client.stream(
                AT_ONCE,
                seed=config.seed,
                views_per_object=bank,
                indices=(np.arange(objects)[:, None] * bank + codes).ravel(),
                outputs=outputs,
            )
            shown = tqdm(batches, total=-(-codes.size // AT_ONCE), desc="images", unit="batch")
            sets = sets_from_batches(list(shown), codes, model, config)
            return replace(sets, numbers=tuple(range(objects)), stream_seed=config.seed), model
    except (LabelmintError, ValueError) as error:
        raise TrainingError(f"--source {target}: {error}") from error


def refuse_model(model: Model, config: SetsConfig) -> None:
    """Raises ValueError for a model that inverse graphics cannot learn from."""
    if not model.view_bank:
        raise ValueError(
            "its bundle has no view bank; export it with --views (see `training views`)"
        )
    refuse_origin(model, config)
    usable = len(usable_codes(model))
    if config.views is not None and config.views > usable:
        raise ValueError(f"--views is {config.views}; its bank has {usable} with an azimuth")


def refuse_origin(origin: SetsOrigin, config: SetsConfig) -> None:
    """Raises ValueError where silhouettes or cameras are missing, wherever sets come from."""
    if not len(usable_codes(origin)):
        raise ValueError(
            "no view of its bank has an azimuth; make it with --cameras (see `training views`)"
        )
    if "mask" not in origin.outputs:
        raise ValueError("its bundle has no masks; silhouettes need a segmentation head")
    if origin.label_size != origin.image_size:
        raise ValueError(
            f"its masks are {origin.label_size} pixels, its images {origin.image_size}; "
            "they must lie on each other"
        )
    names = [label.name for label in origin.classes]
    for name in config.background:
        if name not in names:
            raise ValueError(f"--background {name} is none of its classes: {', '.join(names)}")


def usable_codes(origin: SetsOrigin) -> NDArray[np.int64]:
    """Codes of the bank whose azimuths are known."""
    azimuths = np.array([camera.azimuth_deg for camera in origin.view_bank])
    return np.flatnonzero(~np.isnan(azimuths))


def cameras_of_bank(origin: SetsOrigin, distance: float, focal: float) -> Cameras:
    """The bank's cameras by code, with this distance and focal length where they are not known;
    NaN where no azimuth is known, 0 for an unknown elevation."""
    azimuth, elevation, away, focals = torch.tensor(origin.view_bank).float().unbind(dim=1)
    return Cameras(
        torch.deg2rad(azimuth),
        torch.deg2rad(elevation.nan_to_num(0.0)),
        away.nan_to_num(distance),
        focals.nan_to_num(focal),
    )


def background_of(origin: SetsOrigin, config: SetsConfig) -> tuple[str, ...]:
    """Names of the classes that are not the object."""
    return config.background or (origin.classes[0].name,)


def sets_from_batches(
    batches: Sequence[Batch], codes: NDArray[np.int64], origin: SetsOrigin, config: SetsConfig
) -> ObjectSets:
    """Samples in the order of codes [O, V] -> sets of the config's extent."""
    background = [c.id for c in origin.classes if c.name in background_of(origin, config)]
    images, silhouettes, keypoints = [], [], []
    for batch in batches:
        assert batch.images is not None and batch.masks is not None  # they were asked for
        images.append(torch.from_numpy(batch.images.copy()).permute(0, 3, 1, 2))
        there = torch.from_numpy(~np.isin(batch.masks, background))
        silhouettes.append(there[:, None].to(torch.uint8) * 255)
        if batch.keypoints is not None:
            keypoints.append(torch.from_numpy(batch.keypoints.copy()))
    shape = codes.shape
    points = torch.cat(keypoints).unflatten(0, shape) if keypoints else None
    return ObjectSets(
        images=on_square(torch.cat(images), config.extent).unflatten(0, shape),
        silhouettes=on_square(torch.cat(silhouettes), config.extent)[:, 0].unflatten(0, shape),
        codes=torch.from_numpy(codes),
        keypoints=None if points is None else points_on_square(points, origin.image_size),
    )


def on_square(images: Tensor, extent: int) -> Tensor:
    """uint8 [n, C, h, w] -> [n, C, extent, extent]: black beside the shorter sides, resized."""
    height, width = images.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = F.pad(images, (left, side - width - left, top, side - height - top))
    if side == extent:
        return square
    # Means of pixels where it shrinks, so that a silhouette's edge keeps its place.
    resized = [
        F.interpolate(part.float(), size=(extent, extent), mode="bilinear", antialias=True)
        for part in square.split(256)
    ]
    return torch.cat(resized).round().clamp(0, 255).to(torch.uint8)


def points_on_square(points: Tensor, size: tuple[int, int]) -> Tensor:
    """x, y in pixels and confidence [..., 3], in images of (height, width) -> x, y in extents of
    the square, from its middle."""
    height, width = size
    middle = points.new_tensor([width / 2, height / 2, 0.0])
    return (points - middle) / points.new_tensor([max(size), max(size), 1.0])
