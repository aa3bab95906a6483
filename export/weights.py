"""Weights files -> networks and their cards: labelmint's own, or those other projects published.

A refiner's and a view bank's file are checked against the generator here.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.manifest import CameraFacts, RefinerFacts, ViewBankFacts
from checkpoints import (
    NATIVE,
    GeneratorCard,
    InterpreterCard,
    RefinerCard,
    ViewsCard,
    card_with_recipe,
    generator_from_path,
    interpreter_from_file,
    interpreter_from_published,
    matching_recipes,
    member_paths,
    read_foreign,
    recipe_from_name,
    recipe_with_classes,
    refiner_from_file,
    sha256_of_file,
    views_from_file,
)
from export.errors import ExportError
from export.graph.refiner import RefinerStage
from export.graph.spec import LabelSpec
from export.manifest_from_cards import spec_from_cards
from nets.generator import Generator
from nets.interpreter import Interpreter
from nets.refiner import Refiner


@dataclass(frozen=True)
class Sources:
    """What the user named."""

    generator: Path
    mean_latent: Path | None = None  # .npy, for generators of other projects
    interpreter: Path | None = None  # None: images only
    recipe: str | None = None  # a published one's name or a TOML file, for members of others
    classes: Path | None = None  # classes.toml, in place of the recipe's
    refiner: Path | None = None  # None: images as the generator makes them
    views: Path | None = None  # None: no view bank


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


@dataclass(frozen=True)
class ViewWeights:
    """View codes and their card."""

    codes: NDArray[np.float32]  # [codes, view_layers, w_dim]
    card: ViewsCard


@dataclass(frozen=True)
class Weights:
    """Everything a bundle is made from."""

    generator: Generator
    generator_card: GeneratorCard
    interpreter: Interpreter | None
    interpreter_card: InterpreterCard | None
    refiner: RefinerWeights | None = None
    views: ViewWeights | None = None

    @property
    def spec(self) -> LabelSpec:
        """What the labeller must know beside the weights."""
        return spec_from_cards(self.generator_card, self.interpreter_card)

    def refiner_stage(self, dtype: torch.dtype = torch.float32) -> RefinerStage | None:
        """What refines the images, where anything does."""
        if self.refiner is None:
            return None
        return self.refiner.stage(self.spec, self.generator.mapping.w_avg, dtype)


def weights_from_files(sources: Sources) -> Weights:
    """Reads all and checks that they belong together. Raises CheckpointError, ExportError."""
    _check_sources(sources)
    weights = _labelling_weights(sources)
    if sources.refiner is not None:
        channels = weights.generator.config.img_channels
        refiner = refiner_for_images(sources.refiner, sources.generator, channels, weights.spec)
        weights = replace(weights, refiner=refiner)
    if sources.views is not None:
        views = views_for_generator(sources.views, sources.generator, weights.generator_card)
        # Files of other projects do not say which rows carry the viewpoint; the bank does.
        card = msgspec.structs.replace(weights.generator_card, view_layers=views.card.view_layers)
        weights = replace(weights, generator_card=card, views=views)
    return weights


def _labelling_weights(sources: Sources) -> Weights:
    network, card = generator_from_path(sources.generator, sources.mean_latent)
    if sources.interpreter is None:
        return Weights(network, card, None, None)
    if sources.interpreter.suffix == NATIVE:
        ensemble, ensemble_card = _native_interpreter(sources.interpreter, sources.generator)
        _check_features(sources, ensemble_card.features, network)
        return Weights(network, card, ensemble, ensemble_card)
    return _with_published_members(sources, network, card)


def _check_sources(sources: Sources) -> None:
    """Raises ExportError for options that nothing would read."""
    if sources.mean_latent is not None and sources.generator.suffix == NATIVE:
        raise ExportError(
            f"--mean-latent is given, but {sources.generator} brings its own; leave it out"
        )
    foreign = sources.interpreter is not None and sources.interpreter.suffix != NATIVE
    for flag, value in (("--recipe", sources.recipe), ("--labels", sources.classes)):
        if value is not None and not foreign:
            raise ExportError(
                f"{flag} explains an ensemble of model_<k>.pth files; "
                + (
                    f"the card of {sources.interpreter} says all, leave it out"
                    if sources.interpreter
                    else "name one with --interpreter"
                )
            )


def _native_interpreter(path: Path, generator: Path) -> tuple[Interpreter, InterpreterCard]:
    ensemble, card = interpreter_from_file(path)
    found = sha256_of_file(generator)
    if card.generator_sha256 != found:
        raise ExportError(
            f"{path} was trained on a generator with SHA-256 {card.generator_sha256}, {generator} "
            f"has {found}; give that generator, or set generator_sha256 in "
            f"{path.with_suffix('.toml')} if they are the same network"
        )
    return ensemble, card


def _check_features(sources: Sources, features: int, network: Generator) -> None:
    if features != network.config.features:
        raise ExportError(
            f"{sources.interpreter} reads {features} features a pixel; the taps of "
            f"{sources.generator} have {network.config.features}"
        )


def _with_published_members(sources: Sources, network: Generator, card: GeneratorCard) -> Weights:
    assert sources.interpreter is not None
    if not sources.interpreter.exists():
        raise ExportError(
            f"{sources.interpreter} does not exist; --interpreter takes a .safetensors with its "
            "card, or a folder of model_<k>.pth"
        )
    if sources.recipe is None:
        config = network.config
        matching = ", ".join(matching_recipes(config.features, config.tap_recipe))
        raise ExportError(
            f"{sources.interpreter} does not say what it reads; give --recipe, a TOML file or one "
            f"that fits this generator: {matching or 'none of the published does'}"
        )
    recipe = recipe_from_name(sources.recipe)
    if sources.classes is not None:
        recipe = recipe_with_classes(recipe, sources.classes)
    members = [(str(path), read_foreign(path)) for path in member_paths(sources.interpreter)]
    ensemble, ensemble_card = interpreter_from_published(
        members, recipe, network.config, sha256_of_file(sources.generator)
    )
    return Weights(network, card_with_recipe(card, recipe), ensemble, ensemble_card)


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


def views_from_weights(weights: ViewWeights) -> ViewBankFacts:
    """The manifest's section."""
    cameras = weights.card.cameras
    return ViewBankFacts(
        codes=len(weights.codes),
        cameras=None
        if cameras is None
        else [
            CameraFacts(
                azimuth_deg=camera.azimuth_deg,
                elevation_deg=camera.elevation_deg,
                distance=camera.distance,
                focal=camera.focal,
            )
            for camera in cameras
        ],
    )
