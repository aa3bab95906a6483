"""Weights files -> networks and their cards, checked to belong together.

Reads labelmint's own .safetensors files and the files of other projects. Generator and label
ensemble come first; a refiner and a view bank are then checked against the generator.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from bundle.manifest import ScoreMeasure, WeightsFacts
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
    is_pattern,
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
from nets.config import rows_of_ws
from nets.generator import Generator
from nets.interpreter import Interpreter
from nets.refiner import Refiner


@dataclass(frozen=True)
class WeightFiles:
    """Paths and names that the user gave."""

    generator: Path
    mean_latent: Path | None = None  # .npy, for a generator file of another project
    interpreter: Path | None = None  # None: images only
    recipe: str | None = None  # for model_<k>.pth files: name of a published recipe, or TOML file
    classes: Path | None = None  # classes.toml that replaces the recipe's classes
    refiner: Path | None = None  # None: images as the generator makes them
    views: Path | None = None  # None: no view bank
    score_measure: ScoreMeasure | None = None  # None: the interpreter's own


@dataclass(frozen=True)
class RefinerWeights:
    """A refiner, its card, and the SHA-256 of its weights file."""

    refiner: Refiner
    card: RefinerCard
    sha256: str


@dataclass(frozen=True)
class ViewWeights:
    """The codes of a view bank, and its card."""

    codes: NDArray[np.float32]  # [codes, view_layers, w_dim]
    card: ViewsCard


@dataclass(frozen=True)
class SourceWeights:
    """All networks that a bundle is made from, with their cards."""

    generator: Generator
    generator_card: GeneratorCard
    interpreter: Interpreter | None  # None, and its card: images only
    interpreter_card: InterpreterCard | None
    refiner: RefinerWeights | None = None
    views: ViewWeights | None = None
    hashes: WeightsFacts | None = None  # of the files; None: they are not from files

    @property
    def spec(self) -> LabelSpec:
        """Geometry and rules of the labeller's outputs."""
        return spec_from_cards(self.generator_card, self.interpreter_card)

    def refiner_stage(self, dtype: torch.dtype = torch.float32) -> RefinerStage | None:
        """The refiner for images of the spec's size, or None without a refiner."""
        if self.refiner is None:
            return None
        spec, seed = self.spec, self.refiner.card.grain_seed
        w_avg = self.generator.mapping.w_avg
        return RefinerStage(self.refiner.refiner, seed, w_avg, spec.height, spec.width, dtype)


def weights_from_files(files: WeightFiles) -> SourceWeights:
    """Reads all files and checks that they belong together. Raises CheckpointError, ExportError."""
    _refuse_unused_options(files)
    weights = _generator_and_interpreter(files)
    weights = replace(weights, hashes=_hashes_of(files))
    if files.score_measure is not None:
        scored = with_measure(weights.interpreter_card, files.score_measure)
        weights = replace(weights, interpreter_card=scored)
    if files.refiner is not None:
        channels = weights.generator.config.img_channels
        refiner = refiner_for_images(files.refiner, files.generator, channels, weights.spec)
        weights = replace(weights, refiner=refiner)
    if files.views is not None:
        views = views_for_generator(files.views, files.generator, weights.generator_card)
        # Generator files of other projects do not record which rows of w+ carry the viewpoint.
        card = msgspec.structs.replace(weights.generator_card, view_layers=views.card.view_layers)
        weights = replace(weights, generator_card=card, views=views)
    return weights


def with_measure(card: InterpreterCard | None, measure: ScoreMeasure) -> InterpreterCard:
    """The card of an ensemble whose pixels are scored by this measure. Raises ExportError."""
    if card is None or card.score_source != "segmentation":
        found = "there is no --interpreter" if card is None else f"it is of {card.score_source}"
        raise ExportError(
            f"--score-measure is {measure}, a measure of classes, but this bundle's score is not: "
            f"{found}; leave it out"
        )
    return msgspec.structs.replace(card, score_measure=measure)


def _hashes_of(files: WeightFiles) -> WeightsFacts:
    path = files.interpreter
    one_file = path is not None and path.suffix == NATIVE
    return WeightsFacts(
        generator_sha256=sha256_of_file(files.generator),
        interpreter_sha256=sha256_of_file(path) if path is not None and one_file else None,
    )


def _refuse_unused_options(files: WeightFiles) -> None:
    """Raises ExportError for an option that these files make meaningless."""
    if files.mean_latent is not None and files.generator.suffix == NATIVE:
        raise ExportError(
            f"--mean-latent is given, but {files.generator} has its own mean; leave it out"
        )
    published = files.interpreter is not None and files.interpreter.suffix != NATIVE
    for flag, value in (("--recipe", files.recipe), ("--labels", files.classes)):
        if value is not None and not published:
            raise ExportError(
                f"{flag} describes an ensemble of model_<k>.pth files; "
                + (
                    f"{files.interpreter} has a card that describes it, leave it out"
                    if files.interpreter
                    else "name one with --interpreter"
                )
            )


def _generator_and_interpreter(files: WeightFiles) -> SourceWeights:
    network, card = generator_from_path(files.generator, files.mean_latent)
    if files.interpreter is None:
        return SourceWeights(network, card, None, None)
    if files.interpreter.suffix == NATIVE:
        ensemble, ensemble_card = _native_interpreter(files.interpreter, files.generator)
        if ensemble_card.features != network.config.features:
            raise ExportError(
                f"{files.interpreter} reads {ensemble_card.features} features per pixel; the taps "
                f"of {files.generator} have {network.config.features}"
            )
        return SourceWeights(network, card, ensemble, ensemble_card)
    return _with_published_interpreter(files, network, card)


def _native_interpreter(path: Path, generator: Path) -> tuple[Interpreter, InterpreterCard]:
    ensemble, card = interpreter_from_file(path)
    actual = sha256_of_file(generator)
    if card.generator_sha256 != actual:
        raise ExportError(
            f"{path} was trained on a generator with SHA-256 {card.generator_sha256}, {generator} "
            f"has {actual}; give that generator, or set generator_sha256 in "
            f"{path.with_suffix('.toml')} if they are the same network"
        )
    return ensemble, card


def _with_published_interpreter(
    files: WeightFiles, network: Generator, card: GeneratorCard
) -> SourceWeights:
    """The generator, and an ensemble read from a folder of model_<k>.pth by a recipe."""
    assert files.interpreter is not None
    if not files.interpreter.exists() and not is_pattern(files.interpreter):
        raise ExportError(
            f"{files.interpreter} does not exist; --interpreter takes a .safetensors with its "
            "card, a folder of model_<k>.pth, or a pattern such as car_model_*.pth"
        )
    if files.recipe is None:
        config = network.config
        matching = ", ".join(matching_recipes(config.features, config.tap_recipe))
        raise ExportError(
            f"{files.interpreter} does not record which features it reads; give --recipe, either "
            f"a TOML file or a published recipe that fits this generator: {matching or 'none does'}"
        )
    recipe = recipe_from_name(files.recipe)
    if files.classes is not None:
        recipe = recipe_with_classes(recipe, files.classes)
    members = [(str(path), read_foreign(path)) for path in member_paths(files.interpreter)]
    ensemble, ensemble_card = interpreter_from_published(
        members, recipe, network.config, sha256_of_file(files.generator)
    )
    return SourceWeights(network, card_with_recipe(card, recipe), ensemble, ensemble_card)


def refiner_for_images(
    path: Path, generator: Path, channels: int, spec: LabelSpec
) -> RefinerWeights:
    """Reads a refiner for images of `channels` channels and the spec's width, made by `generator`.

    Raises CheckpointError, and ExportError if the refiner does not fit them.
    """
    refiner, card = refiner_from_file(path)
    if card.config.channels != channels:
        raise ExportError(
            f"{path} refines images of {card.config.channels} channels; those of {generator} have "
            f"{channels}"
        )
    actual = sha256_of_file(generator)
    if card.generator_sha256 not in (None, actual):
        raise ExportError(
            f"{path} was trained on images of a generator with SHA-256 {card.generator_sha256}, "
            f"{generator} has {actual}; give that generator, or leave generator_sha256 out of "
            f"{path.with_suffix('.toml')} if this one's images look the same"
        )
    if card.width != spec.width:
        raise ExportError(
            f"{path} was trained on images {card.width} pixels wide; this bundle's are "
            f"{spec.width}. Train a refiner on images of that width: `python -m training refiner` "
            "with --source HOST:PORT of a service that makes them"
        )
    return RefinerWeights(refiner, card, sha256_of_file(path))


def views_for_generator(path: Path, generator: Path, card: GeneratorCard) -> ViewWeights:
    """Reads a view bank. Raises CheckpointError, and ExportError if it is not this generator's."""
    codes, bank = views_from_file(path)
    actual = sha256_of_file(generator)
    if bank.generator_sha256 != actual:
        raise ExportError(
            f"{path} has views of a generator with SHA-256 {bank.generator_sha256}, {generator} "
            f"has {actual}; give that generator, or make a bank of this one"
        )
    if bank.w_dim != card.config.w_dim:
        raise ExportError(
            f"{path} has codes of {bank.w_dim} values per row; w of {generator} has "
            f"{card.config.w_dim}"
        )
    if card.view_layers not in (0, bank.view_layers):
        raise ExportError(
            f"{path} has codes of {bank.view_layers} rows; the card of {generator} says that the "
            f"first {card.view_layers} rows of w+ carry the viewpoint (view_layers)"
        )
    num_ws = rows_of_ws(card.family, len(card.config.channels))
    if bank.view_layers > num_ws:
        raise ExportError(
            f"{path} has codes of {bank.view_layers} rows; {generator} has {num_ws} rows of w+"
        )
    return ViewWeights(codes, bank)
