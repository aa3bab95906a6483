"""A refiner's file -> the stage of the graph, once it is sure that it belongs to these images."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bundle.manifest import Refiner as RefinerFacts
from checkpoints import RefinerCard, refiner_from_file, sha256_of_file
from export.errors import ExportError
from export.label_spec import LabelSpec
from export.refiner_stage import RefinerStage
from nets.refiner import Refiner


@dataclass(frozen=True)
class RefinerWeights:
    """A refiner and where it is from."""

    refiner: Refiner
    card: RefinerCard
    sha256: str

    def stage(self, spec: LabelSpec, w_avg: Tensor, dtype: torch.dtype) -> RefinerStage:
        """The stage for images of the spec's extent."""
        seed = self.card.grain_seed
        return RefinerStage(self.refiner, seed, w_avg, spec.height, spec.width, dtype)


def refiner_for_images(
    path: Path, generator: Path, channels: int, spec: LabelSpec
) -> RefinerWeights:
    """Reads a refiner for a generator's images. Raises CheckpointError, ExportError."""
    refiner, card = refiner_from_file(path)
    if card.config.channels != channels:
        raise ExportError(
            f"{path} refines images of {card.config.channels} channels; those of {generator} have "
            f"{channels}"
        )
    found = sha256_of_file(generator)
    if card.generator_sha256 not in (None, found):
        raise ExportError(
            f"{path} was trained on images of a generator with SHA-256 {card.generator_sha256}, "
            f"{generator} has {found}; give that generator, or leave generator_sha256 out of "
            f"{path.with_suffix('.toml')} if this one's images look the same"
        )
    if card.width != spec.width:
        raise ExportError(
            f"{path} was trained on images {card.width} pixels wide; this bundle's are "
            f"{spec.width}. Train it on those: --source HOST:PORT of a service that makes them"
        )
    return RefinerWeights(refiner, card, sha256_of_file(path))


def facts_from_refiner(weights: RefinerWeights) -> RefinerFacts:
    """The manifest's refiner section."""
    card = weights.card
    kept = card.regulariser
    return RefinerFacts(
        weights_sha256=weights.sha256,
        generator_sha256=card.generator_sha256,
        width=card.config.width,
        blocks=card.config.blocks,
        grain=card.config.grain,
        grain_seed=card.grain_seed,
        regulariser=f"{kept.strength:g} x {kept.reduction} of {kept.feature}",
        shift_px=card.shift_px,
        structure=card.structure,
        agreement=card.agreement,
    )
