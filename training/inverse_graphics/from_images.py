"""A folder of images, or multi-view sets -> subjects: shapes with cameras and keypoints.

Each image gives a shape. A subject with several views takes the mean of their shapes: it fits
their silhouettes and colors a little better than the shape of the view nearest to the front.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from checkpoints import InverseGraphicsCard
from nets.inverse_graphics import InverseGraphics, Shapes
from nets.textured import Cameras
from training.errors import TrainingError
from training.images.photos import pictures_of_folder, upright_picture
from training.images.picture_files import opened_picture
from training.inverse_graphics.config import Template
from training.inverse_graphics.downloaded_sets import sets_from_source
from training.inverse_graphics.keypoints3d import Keypoints3D, keypoints_on_mesh
from training.inverse_graphics.object_sets import (
    ObjectSets,
    SetsConfig,
    SetsOrigin,
    cameras_of_bank,
    on_square,
)
from training.inverse_graphics.pictures import ObjectShape
from training.inverse_graphics.write import Subject

BATCH = 16  # images per pass of the network
MASK_MODES = {"1", "L", "P"}  # Pillow's modes with one channel of at most 8 bits


@dataclass(frozen=True)
class ViewAngles:
    """Angles of the images' cameras, radians; None: the network's prediction, or else 0 (front)."""

    azimuth: float | None = None
    elevation: float | None = None


def subjects_from_folder(
    folder: Path,
    masks: Path | None,
    angles: ViewAngles,
    network: InverseGraphics,
    card: InverseGraphicsCard,
    device: torch.device,
) -> list[Subject]:
    """One subject per picture, sorted by name. Raises TrainingError naming the first bad file."""
    paths, _ = pictures_of_folder(folder)
    names = names_of_files([path.stem for path in paths])
    images, sizes = zip(*(squared_picture(path, card.extent) for path in paths), strict=True)
    silhouettes: list[Tensor | None] = [None] * len(paths)
    if masks is not None:
        silhouettes = _silhouettes(masks, paths, sizes, card.extent)
    subjects = []
    for first in range(0, len(paths), BATCH):
        found = shapes_of_images(torch.cat(images[first : first + BATCH]), network, device)
        for i in range(len(found.points)):
            silhouette = silhouettes[first + i]
            cameras, camera_from = _camera(found, i, angles, card)
            subjects.append(
                Subject(
                    name=names[first + i],
                    source=paths[first + i].name,
                    shape=ObjectShape(found.points[i], found.lit_texture[i]),
                    cameras=cameras,
                    camera_from=camera_from,
                    silhouettes=None if silhouette is None else silhouette[None],
                )
            )
    return subjects


@torch.no_grad()
def shapes_of_images(images: Tensor, network: InverseGraphics, device: torch.device) -> Shapes:
    """Shapes of images uint8 [n, 3, E, E], on the CPU."""
    found = network(images.to(device, torch.float32) / 255)
    directions = found.directions
    return Shapes(
        found.points.cpu(),
        found.texture.cpu(),
        found.light.cpu(),
        None if directions is None else directions.cpu(),
    )


def squared_picture(path: Path, extent: int) -> tuple[Tensor, tuple[int, int]]:
    """The upright picture padded to a square, uint8 [1, 3, extent, extent], and its (height,
    width) before that. Raises TrainingError."""
    picture = upright_picture(path)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    return on_square(pixels, extent), (picture.height, picture.width)


def names_of_files(stems: Sequence[str]) -> list[str]:
    """Stems with "_" for characters that OBJ does not allow in names, such as spaces.

    Raises TrainingError when two become equal.
    """
    names = [re.sub(r"[^\w.-]", "_", stem) for stem in stems]
    for i, name in enumerate(names):
        if name in names[:i]:
            other = stems[names.index(name)]
            raise TrainingError(
                f"{other} and {stems[i]} both give files named {name}; rename one of them"
            )
    return names


def _silhouettes(
    folder: Path, paths: Sequence[Path], sizes: Sequence[tuple[int, int]], extent: int
) -> list[Tensor | None]:
    """Silhouettes, bool [E, E], of the pictures with a mask NAME.png in `folder`; None for others.

    `sizes` are the pictures' (height, width).
    """
    files = [folder / f"{path.stem}.png" for path in paths]
    if not any(file.exists() for file in files):
        raise TrainingError(
            f"{folder} has no mask of any picture; {files[0].name} would be the first one"
        )
    return [
        _silhouette(file, size, extent) if file.exists() else None
        for file, size in zip(files, sizes, strict=True)
    ]


def _silhouette(path: Path, size: tuple[int, int], extent: int) -> Tensor:
    with opened_picture(path) as opened:
        if opened.mode not in MASK_MODES:
            raise TrainingError(f"{path} has mode {opened.mode}; masks have one channel")
        if opened.height * opened.width != size[0] * size[1]:
            raise _of_other_size(path, opened.size, size)
        mask = ImageOps.exif_transpose(opened)
        on_object = np.array(mask).astype(bool)
    if on_object.shape != size:
        raise _of_other_size(path, mask.size, size)
    pixels = torch.from_numpy(on_object)[None, None].to(torch.uint8) * 255
    return on_square(pixels, extent)[0, 0] > 127


def _of_other_size(path: Path, found: tuple[int, int], size: tuple[int, int]) -> TrainingError:
    height, width = size
    return TrainingError(f"{path} is {found[0]}x{found[1]} pixels, its picture {width}x{height}")


def _camera(
    found: Shapes, i: int, angles: ViewAngles, card: InverseGraphicsCard
) -> tuple[Cameras, str]:
    """The camera of image i, and its source: options, network or front."""
    camera_from = "front"
    azimuth = elevation = 0.0
    if found.directions is not None:
        azimuth, elevation = (float(angle) for angle in found.angles[i])
        camera_from = "network"
    if angles.azimuth is not None or angles.elevation is not None:
        azimuth = azimuth if angles.azimuth is None else angles.azimuth
        elevation = elevation if angles.elevation is None else angles.elevation
        camera_from = "options"
    one = torch.ones(1)
    camera = Cameras(azimuth * one, elevation * one, card.distance * one, card.focal * one)
    return camera, camera_from


def subjects_from_source(
    source: str,  # HOST:PORT, or a folder
    config: SetsConfig,
    network: InverseGraphics,
    card: InverseGraphicsCard,
    template: Template,
    device: torch.device,
) -> tuple[list[Subject], SetsOrigin]:
    """One subject per object, and the model behind them. Raises TrainingError."""
    sets, origin = sets_from_source(source, config)
    bank = cameras_of_bank(origin, card.distance, card.focal)
    return subjects_of_sets(sets, bank, origin.keypoints, network, template, device), origin


def subjects_of_sets(
    sets: ObjectSets,
    bank: Cameras,
    names: tuple[str, ...],  # names of the sets' keypoints
    network: InverseGraphics,
    template: Template,
    device: torch.device,
) -> list[Subject]:
    """One subject per object; its cameras are sorted, the nearest to the front first."""
    subjects = []
    for i, number in enumerate(sets.numbers or range(len(sets))):
        found = shapes_of_images(sets.images[i], network, device)
        shape = ObjectShape(found.points.mean(dim=0), found.lit_texture.mean(dim=0))
        codes = sets.codes[i]
        cameras = bank[codes]
        order = (cameras.azimuth.cos() * cameras.elevation.cos()).argsort(descending=True)
        cameras = cameras[order]
        keypoints: Keypoints3D | None = None
        if sets.keypoints is not None and shape.points.isfinite().all():
            seen = sets.keypoints[i, order]
            keypoints = keypoints_on_mesh(names, seen, cameras, shape.points, template.faces)
        subjects.append(
            Subject(
                name=f"object_{number:06d}",
                source=f"object {number}",
                shape=shape,
                cameras=cameras,
                camera_from="view bank",
                silhouettes=sets.silhouettes[i, order] > 127,
                keypoints=keypoints,
            )
        )
    return subjects
