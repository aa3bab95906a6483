"""A view bank's file -> what a bundle carries of it, checked against the generator."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import Camera, Views
from checkpoints import GeneratorCard, ViewsCard, sha256_of_file, views_from_file
from export.errors import ExportError


@dataclass(frozen=True)
class ViewWeights:
    """View codes and their card."""

    codes: NDArray[np.float32]  # [codes, view_layers, w_dim]
    card: ViewsCard


def views_for_generator(path: Path, generator: Path, card: GeneratorCard) -> ViewWeights:
    """Reads a bank. Raises CheckpointError, ExportError when it is not of this generator."""
    codes, views = views_from_file(path)
    found = sha256_of_file(generator)
    if views.generator_sha256 != found:
        raise ExportError(
            f"{path} has views of a generator with SHA-256 {views.generator_sha256}, {generator} "
            f"has {found}; give that generator, or make a bank of this one"
        )
    if views.w_dim != card.config.w_dim:
        raise ExportError(
            f"{path} has codes of {views.w_dim} values a row; w of {generator} has "
            f"{card.config.w_dim}"
        )
    if card.view_layers not in (0, views.view_layers):
        raise ExportError(
            f"{path} has codes of {views.view_layers} rows; by the card of {generator} the "
            f"viewpoint is in {card.view_layers} (view_layers)"
        )
    if views.view_layers > 2 * len(card.config.channels):
        raise ExportError(
            f"{path} has codes of {views.view_layers} rows; {generator} has "
            f"{2 * len(card.config.channels)} rows of w+"
        )
    return ViewWeights(codes, views)


def views_from_weights(weights: ViewWeights) -> Views:
    """The manifest's section."""
    cameras = weights.card.cameras
    return Views(
        codes=len(weights.codes),
        cameras=None
        if cameras is None
        else [
            Camera(
                azimuth_deg=camera.azimuth_deg,
                elevation_deg=camera.elevation_deg,
                distance=camera.distance,
                focal=camera.focal,
            )
            for camera in cameras
        ],
    )
