"""A folder that `labelmint download` wrote -> multi-view sets, equal to those of a service for the
same objects and views."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from labelmint.batch import Batch
from labelmint.datasets.reader import (
    StoredDataset,
    StoredView,
    dataset_from_folder,
    views_from_dataset,
)
from labelmint.datasets.request import Request
from labelmint.datasets.stored_files import image_from_file, mask_from_file
from labelmint.errors import LabelmintError
from labelmint.model import Camera, LabelClass
from training.errors import TrainingError
from training.inverse_graphics.object_sets import (
    BATCH,
    ObjectSets,
    SetsConfig,
    SetsOrigin,
    evenly_apart,
    refuse_origin,
    sets_from_batches,
    sets_from_service,
    starts_of_objects,
    usable_codes,
)

UNKNOWN_CAMERA = Camera(math.nan, math.nan, math.nan, math.nan)
Views = dict[int, StoredView]  # an object's samples by view code


@dataclass(frozen=True)
class DownloadOrigin:
    """Metadata of the model that a folder was downloaded from; see SetsOrigin."""

    bundle_id: str
    licences: tuple[str, ...]
    outputs: tuple[str, ...]
    image_size: tuple[int, int]
    label_size: tuple[int, int]
    classes: tuple[LabelClass, ...]
    keypoints: tuple[str, ...]
    view_bank: tuple[Camera, ...]  # by code; unknown for codes without a sample


def sets_from_source(source: str, config: SetsConfig) -> tuple[ObjectSets, SetsOrigin]:
    """Sets of a folder or of a service (HOST:PORT), and the model behind them.

    Raises TrainingError.
    """
    folder = Path(source)
    if folder.is_dir():
        return sets_from_folder(folder, config)
    if folder.exists() or ":" not in source:
        raise TrainingError(
            f"--source {source} is neither a folder nor HOST:PORT; give a running service, or a "
            "folder that `labelmint download` wrote"
        )
    return sets_from_service(source, config)


def sets_from_folder(folder: Path, config: SetsConfig) -> tuple[ObjectSets, DownloadOrigin]:
    """The first objects of a folder, and the model behind it. Raises TrainingError."""
    try:
        stored = dataset_from_folder(folder)
        objects = objects_of_entries(stored, config.objects)
        origin = _origin(stored, bank_of_objects(objects, stored.request.views_per_object))
        refuse_origin(origin, config)
        codes = codes_of_download(objects, wanted_codes(objects, origin), config, stored.request)
        picked = [
            objects[number][code]
            for number, row in zip(objects, codes.tolist(), strict=True)
            for code in row
        ]
        total = -(-len(picked) // BATCH)
        shown = tqdm(_batches(picked, stored), total=total, desc="images", unit="batch")
        sets = sets_from_batches(list(shown), codes, origin, config)
        seed = stored.request.seed
        return replace(sets, numbers=tuple(objects), stream_seed=seed), origin
    except LabelmintError as error:
        raise TrainingError(str(error)) from error  # the message names the file
    except ValueError as error:
        raise TrainingError(f"--source {folder}: {error}") from error


def objects_of_entries(stored: StoredDataset, wanted: int | None) -> dict[int, Views]:
    """The first `wanted` objects of a folder, or all for None, by number, ascending.

    Raises LabelmintError, ValueError.
    """
    objects: dict[int, Views] = {}
    with closing(views_from_dataset(stored)) as entries:
        for entry in entries:
            if len(objects) == wanted and entry.object not in objects:
                break
            objects.setdefault(entry.object, {})[entry.view] = entry
    if not objects:
        raise ValueError("it has no samples; download it with a filter that keeps some")
    if wanted is not None and len(objects) < wanted:
        raise ValueError(
            f"--objects is {wanted}; it has {len(objects)}; download more, or lower --objects"
        )
    return objects


def bank_of_objects(objects: dict[int, Views], size: int) -> tuple[Camera, ...]:
    """Cameras of `size` codes. Raises ValueError when samples of one code have different ones."""
    bank: dict[int, StoredView] = {}
    for views in objects.values():
        for code, entry in views.items():
            first = bank.setdefault(code, entry)
            if not np.array_equal(first.camera, entry.camera, equal_nan=True):
                raise ValueError(
                    f"view {code} has one camera in sample {first.index} and another one in "
                    f"{entry.index}; download it again"
                )
    return tuple(bank[code].camera if code in bank else UNKNOWN_CAMERA for code in range(size))


def wanted_codes(objects: dict[int, Views], origin: SetsOrigin) -> NDArray[np.int64]:
    """Codes that a complete object has, ascending: those with an azimuth, and those without any
    sample, whose azimuth the folder does not show."""
    seen = np.unique([code for views in objects.values() for code in views])
    unseen = np.setdiff1d(np.arange(len(origin.view_bank)), seen)
    return np.union1d(usable_codes(origin), unseen)


def codes_of_download(
    objects: dict[int, Views], wanted: NDArray[np.int64], config: SetsConfig, request: Request
) -> NDArray[np.int64]:
    """Codes to take of each object, int64 [objects, views], evenly spaced in those that it has.

    For complete objects these are the codes of `codes_of_objects`. Raises ValueError naming the
    first object with too few views.
    """
    views = config.views or len(wanted)
    if views > len(wanted):
        raise ValueError(
            f"--views is {views}; its objects have {len(wanted)} views with an azimuth; download "
            "with a larger --views-per-object"
        )
    available = [wanted[np.isin(wanted, list(own))] for own in objects.values()]
    for number, codes in zip(objects, available, strict=True):
        if len(codes) < views:
            raise ValueError(_lacking(number, np.setdiff1d(wanted, codes), available, request))
    starts = starts_of_objects(len(objects), len(wanted), config.seed)
    rows = [
        codes[evenly_apart(start, views, len(codes))]
        for start, codes in zip(starts, available, strict=True)
    ]
    return np.stack(rows)


def _lacking(
    number: int, missing: NDArray[np.int64], available: list[NDArray[np.int64]], request: Request
) -> str:
    """Error message: which views an object lacks, and how to download or choose others."""
    fewest = min(map(len, available))
    listed = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    words = f"view{'s' * (len(missing) > 1)} {listed}"
    fewer = f"give --views {fewest}, which every object has, or " if fewest else ""
    if request.filter:
        options = "--keep-fraction and --filter-sets in place of --filter"
    elif request.filter_sets is None and request.server_filters:
        options = "--filter-sets"
    else:
        options = (
            "--start-index, --end-index and --count that are multiples of "
            f"{request.views_per_object}"
        )
    return f"object {number} lacks {words}; {fewer}download whole objects, with {options}"


def _origin(stored: StoredDataset, bank: tuple[Camera, ...]) -> DownloadOrigin:
    return DownloadOrigin(
        stored.bundle_id, stored.licences, stored.outputs, stored.image_size, stored.label_size,
        stored.classes, stored.keypoints, bank,
    )  # fmt: skip


def _batches(entries: list[StoredView], stored: StoredDataset) -> Iterator[Batch]:
    """The entries as batches of a stream. Raises LabelmintError."""
    for first in range(0, len(entries), BATCH):
        batch = entries[first : first + BATCH]
        size, labels = stored.image_size, len(stored.classes)
        points = [entry.keypoints for entry in batch if entry.keypoints is not None]
        yield Batch(
            images=np.stack([image_from_file(entry.image, size) for entry in batch]),
            masks=np.stack([mask_from_file(e.mask, stored.label_size, labels) for e in batch]),
            keypoints=np.stack(points) if points else None,
            depth=None,
            uncertainty=None,
            uncertainty_map=None,
            w=None,
            indices=np.array([entry.index for entry in batch], np.uint64),
            next_index=batch[-1].index + 1,
            discarded=0,
            bundle_id=stored.bundle_id,
        )
