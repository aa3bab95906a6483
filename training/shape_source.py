"""Objects of a running service, each from all views of its bundle's bank -> shapes with 3D
keypoints.

A shape is the mean of what all views give: that fits their silhouettes and colours a little better
than what the view nearest to the front gives.
"""

import numpy as np
import torch
from torch import Tensor

from checkpoints import InverseGraphicsCard
from labelmint import Model
from nets.inverse_graphics import InverseGraphics
from nets.textured import Cameras
from training.errors import TrainingError
from training.inverse_mesh import Template
from training.keypoints3d import Keypoints3D, keypoints_on_mesh
from training.object_sets import ObjectSets, SetsConfig, sets_from_service
from training.shape_images import shapes_of_images
from training.shape_views import Shape
from training.shapes import Subject


def subjects_from_service(
    target: str,
    objects: int,
    seed: int,
    network: InverseGraphics,
    card: InverseGraphicsCard,
    template: Template,
    device: torch.device,
) -> tuple[list[Subject], Model]:
    """The first objects of the stream's seed, and the model. Raises TrainingError."""
    config = SetsConfig(objects, None, card.extent, tuple(card.background), seed)
    sets, model = sets_from_service(target, config)
    bank, known = cameras_of_bank(model, card)
    if not known.any():
        raise TrainingError(
            f"--source {target}: its view bank tells no camera; annotate it (see `training views`)"
        )
    return subjects_of_sets(sets, bank, known, model.keypoints, network, template, device), model


def subjects_of_sets(
    sets: ObjectSets,
    bank: Cameras,
    known: Tensor,  # bool [codes], whose cameras are known
    names: tuple[str, ...],  # of the sets' keypoints
    network: InverseGraphics,
    template: Template,
    device: torch.device,
) -> list[Subject]:
    """One of each object; the view nearest to the front makes its pictures."""
    subjects = []
    for i in range(len(sets)):
        found = shapes_of_images(sets.images[i], network, device)
        shape = Shape(found.points.mean(dim=0), found.lit_texture.mean(dim=0))
        codes = sets.codes[i]
        rows = known[codes].nonzero()[:, 0]
        frontal = bank[codes[rows]]
        order = rows[(frontal.azimuth.cos() * frontal.elevation.cos()).argsort(descending=True)]
        cameras = bank[codes[order]]
        keypoints: Keypoints3D | None = None
        if sets.keypoints is not None and shape.points.isfinite().all():
            seen = sets.keypoints[i, order]
            keypoints = keypoints_on_mesh(names, seen, cameras, shape.points, template.faces)
        subjects.append(
            Subject(
                name=f"object_{i:06d}",
                source=f"object {i}",
                shape=shape,
                cameras=cameras,
                camera_from="view bank",
                silhouettes=sets.silhouettes[i, order] > 127,
                keypoints=keypoints,
            )
        )
    return subjects


def cameras_of_bank(model: Model, card: InverseGraphicsCard) -> tuple[Cameras, Tensor]:
    """By code, and bool [codes]: whose angles are known. Distance and focal length are the card's
    where the bank does not tell them."""
    table = torch.from_numpy(np.array(model.view_bank, np.float32))  # [codes, 4]
    known = table[:, :2].isfinite().all(dim=1)
    table = torch.where(table.isfinite(), table, torch.tensor([0, 0, card.distance, card.focal]))
    azimuth, elevation, distance, focal = table.unbind(dim=1)
    return Cameras(azimuth.deg2rad(), elevation.deg2rad(), distance, focal), known
