"""Shapes to write, from a folder of images or from objects with several views.

Of several views, a shape is the mean of what all give: that fits their silhouettes and colors a
little better than what the view nearest to the front gives.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from checkpoints import InverseGraphicsCard
from nets.inverse_graphics import InverseGraphics, Shapes
from nets.textured import Cameras
from training.errors import TrainingError
from training.images.photos import pictures_of_folder, upright_picture
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

AT_ONCE = 16
MASK_MODES = {"1", "L", "P"}


@dataclass(frozen=True)
class ViewAngles:
    """Where images are seen from, radians; None: as the network tells, or else from the front."""

    azimuth: float | None = None
    elevation: float | None = None


def subjects_from_folder(
    folder: Path,
    masks: Path | None,
    looks: ViewAngles,
    network: InverseGraphics,
    card: InverseGraphicsCard,
    device: torch.device,
) -> list[Subject]:
    """One of each picture, by name. Raises TrainingError naming the first that cannot be used."""
    paths, _ = pictures_of_folder(folder)
    names = names_of_files([path.stem for path in paths])
    images, sizes = zip(*(squared_picture(path, card.extent) for path in paths), strict=True)
    silhouettes: list[Tensor | None] = [None] * len(paths)
    if masks is not None:
        silhouettes = _silhouettes(masks, paths, sizes, card.extent)
    subjects = []
    for first in range(0, len(paths), AT_ONCE):
        found = shapes_of_images(torch.cat(images[first : first + AT_ONCE]), network, device)
        for i in range(len(found.points)):
            silhouette = silhouettes[first + i]
            cameras, told_by = _camera(found, i, looks, card)
            subjects.append(
                Subject(
                    name=names[first + i],
                    source=paths[first + i].name,
                    shape=ObjectShape(found.points[i], found.lit_texture[i]),
                    cameras=cameras,
                    camera_from=told_by,
                    silhouettes=None if silhouette is None else silhouette[None],
                )
            )
    return subjects


@torch.no_grad()
def shapes_of_images(images: Tensor, network: InverseGraphics, device: torch.device) -> Shapes:
    """uint8 [n, 3, E, E] -> shapes on the CPU."""
    found = network(images.to(device, torch.float32) / 255)
    told = found.directions
    return Shapes(
        found.points.cpu(),
        found.texture.cpu(),
        found.light.cpu(),
        None if told is None else told.cpu(),
    )


def squared_picture(path: Path, extent: int) -> tuple[Tensor, tuple[int, int]]:
    """uint8 [1, 3, extent, extent], in the middle of a square, and the upright picture's width and
    height. Raises TrainingError."""
    picture = upright_picture(path)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    return on_square(pixels, extent), picture.size


def names_of_files(stems: Sequence[str]) -> list[str]:
    """Stems without what OBJ cannot have in names, such as spaces. Raises TrainingError when two
    become one."""
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
    """bool [E, E] of the pictures that have a mask, NAME.png."""
    files = [folder / f"{path.stem}.png" for path in paths]
    if not any(file.exists() for file in files):
        raise TrainingError(f"{folder} has no mask of any picture; {files[0].name} would be one")
    return [
        _silhouette(file, size, extent) if file.exists() else None
        for file, size in zip(files, sizes, strict=True)
    ]


def _silhouette(path: Path, size: tuple[int, int], extent: int) -> Tensor:
    try:
        with Image.open(path) as opened:
            if opened.mode not in MASK_MODES:
                raise TrainingError(f"{path} has mode {opened.mode}; masks have one channel")
            mask = ImageOps.exif_transpose(opened)
            there = np.array(mask).astype(bool)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainingError(f"{path} cannot be read as a mask: {error}") from error
    if mask.size != size:
        raise TrainingError(
            f"{path} is {mask.width}x{mask.height} pixels, its picture {size[0]}x{size[1]}"
        )
    grown = torch.from_numpy(there)[None, None].to(torch.uint8) * 255
    return on_square(grown, extent)[0, 0] > 127


def _camera(
    found: Shapes, i: int, looks: ViewAngles, card: InverseGraphicsCard
) -> tuple[Cameras, str]:
    told_by = "front"
    azimuth = elevation = 0.0
    if found.directions is not None:
        azimuth, elevation = (float(angle) for angle in found.angles[i])
        told_by = "network"
    if looks.azimuth is not None or looks.elevation is not None:
        azimuth = azimuth if looks.azimuth is None else looks.azimuth
        elevation = elevation if looks.elevation is None else looks.elevation
        told_by = "options"
    one = torch.ones(1)
    return Cameras(azimuth * one, elevation * one, card.distance * one, card.focal * one), told_by


def subjects_from_source(
    source: str,  # HOST:PORT or a folder
    config: SetsConfig,
    network: InverseGraphics,
    card: InverseGraphicsCard,
    template: Template,
    device: torch.device,
) -> tuple[list[Subject], SetsOrigin]:
    """One of each object, and what made them. Raises TrainingError."""
    sets, origin = sets_from_source(source, config)
    bank = cameras_of_bank(origin, card.distance, card.focal)
    return subjects_of_sets(sets, bank, origin.keypoints, network, template, device), origin


def subjects_of_sets(
    sets: ObjectSets,
    bank: Cameras,
    names: tuple[str, ...],  # of the sets' keypoints
    network: InverseGraphics,
    template: Template,
    device: torch.device,
) -> list[Subject]:
    """One of each object; the view nearest to the front makes its pictures."""
    subjects = []
    for i, number in enumerate(sets.numbers or range(len(sets))):
        found = shapes_of_images(sets.images[i], network, device)
        shape = ObjectShape(found.points.mean(dim=0), found.lit_texture.mean(dim=0))
        codes = sets.codes[i]
        shown = bank[codes]
        order = (shown.azimuth.cos() * shown.elevation.cos()).argsort(descending=True)
        cameras = shown[order]
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
