"""A contact sheet of inverse graphics: images, and what their shapes look like from there and from
another view."""

import torch
from PIL import Image
from torch import Tensor

from nets.textured import Seen, seen_from
from training.refiner_sheet import sheet_from_rows
from training.shapes.fit import InverseTraining

SHOWN, EXTENT = 10, 128  # columns, and pixels of each


@torch.no_grad()
def sheet_of_training(training: InverseTraining) -> Image.Image:
    """By rows: an image; its shape from the same camera, with its texture, and its normals; the
    shape from another camera of the object, and the image that belongs there."""
    sets, template = training.sets, training.template
    rows = torch.arange(min(SHOWN, len(sets)))
    views = sets.codes.shape[1]
    first = rows % views
    other = (first + views // 2) % views
    found = training.network(training.network_input(sets.images[rows, first]))
    light = training.network(training.network_input(sets.images[rows, other])).light

    def seen(view: Tensor, lit: Tensor) -> Seen:
        codes = sets.codes[rows, view].to(training.device)
        return seen_from(
            found.points, template.faces, template.uv, found.texture, training.cameras(codes),
            EXTENT, lit,
        )  # fmt: skip

    here, there = seen(first, found.light), seen(other, light)
    facing = torch.where((here.face >= 0)[:, None], here.normals * 0.5 + 0.5, 0.0)
    drawn = [here.colour, facing, there.colour]
    own, shown, beside = [(x * 255).round().to(torch.uint8).cpu() for x in drawn]
    return sheet_from_rows([sets.images[rows, first], own, shown, beside, sets.images[rows, other]])
