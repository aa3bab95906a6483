"""Objects of a running service or of a data set, each from all its views -> shapes with 3D
keypoints.

A shape is the mean of what all views give: that fits their silhouettes and colours a little better
than what the view nearest to the front gives.
"""

import torch

from checkpoints import InverseGraphicsCard
from nets.inverse_graphics import InverseGraphics
from nets.textured import Cameras
from training.shapes.downloaded_sets import sets_from_source
from training.shapes.from_images import shapes_of_images
from training.shapes.keypoints3d import Keypoints3D, keypoints_on_mesh
from training.shapes.object_sets import ObjectSets, Origin, SetsConfig, cameras_of_bank
from training.shapes.pictures import Shape
from training.shapes.template import Template
from training.shapes.write import Subject


def subjects_from_source(
    source: str,  # HOST:PORT or a folder
    config: SetsConfig,
    network: InverseGraphics,
    card: InverseGraphicsCard,
    template: Template,
    device: torch.device,
) -> tuple[list[Subject], Origin]:
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
