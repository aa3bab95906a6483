"""Objects of a running service, each from all views of its bundle's bank -> shapes with 3D
keypoints.

A shape is the mean of what all views give: that fits their silhouettes and colours a little better
than what the view nearest to the front gives.
"""

import torch

from checkpoints import InverseGraphicsCard
from labelmint import Model
from nets.inverse_graphics import InverseGraphics
from nets.textured import Cameras
from training.shapes.from_images import shapes_of_images
from training.shapes.keypoints3d import Keypoints3D, keypoints_on_mesh
from training.shapes.object_sets import ObjectSets, SetsConfig, cameras_of_bank, sets_from_service
from training.shapes.pictures import Shape
from training.shapes.template import Template
from training.shapes.write import Subject


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
    bank = cameras_of_bank(model, card.distance, card.focal)
    return subjects_of_sets(sets, bank, model.keypoints, network, template, device), model


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
    for i in range(len(sets)):
        found = shapes_of_images(sets.images[i], network, device)
        shape = Shape(found.points.mean(dim=0), found.lit_texture.mean(dim=0))
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
