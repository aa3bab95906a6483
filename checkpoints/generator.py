"""Native files of generators: safetensors with nets' parameter names, and a card."""

from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from bundle.records import range_problem
from checkpoints.card import (
    AliasFreeCard,
    BandCard,
    ConfigCard,
    GeneratorCard,
    LayerFiltersCard,
)
from checkpoints.errors import CardError, WeightsError
from checkpoints.pairs import write_pair
from checkpoints.toml import card_path, read_card
from checkpoints.weights import fill_module, meta_module, module_from_weights, tensors_of_module
from nets.config import (
    SQUARE,
    AliasFree,
    Band,
    GeneratorConfig,
    LayerFilters,
    rows_of_ws,
    stated_start,
)
from nets.generator import Generator, generator_from_config

# Channels of images, the ones of them that become red, green and blue, and what to say of that.
TO_RGB = {
    1: ((0, 0, 0), "grey in the file, repeated to RGB"),
    2: ((0, 0, 0), "grey with alpha in the file: grey repeated to RGB, alpha left out"),
    4: ((0, 1, 2), "RGB with alpha in the file: alpha left out"),
}


def generator_from_file(path: Path) -> tuple[Generator, GeneratorCard]:
    """Reads weights (float32 or float16) and card.

    The generator is float32, in evaluation mode. Raises CardError, WeightsError.
    """
    card = read_card(path, GeneratorCard, _contradiction)
    generator = module_from_weights(
        path, card_path(path), lambda: generator_from_config(config_from_card(card))
    )
    return generator, card


def write_generator(
    path: Path, generator: Generator, card: GeneratorCard, storage: torch.dtype = torch.float32
) -> None:
    """Writes weights, as dtype `storage`, and card.

    Raises CardError when the card breaks a rule or does not fit the generator, WeightsError when a
    weight is not finite in `storage`.
    """
    config = generator.config
    if (card.family, card.config) != (config.family, card_from_config(config)):
        raise CardError(f"{card_path(path)} is not written: its config is not the generator's")
    problem = range_problem(card) or _contradiction(card)
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_pair(path, tensors_of_module(path, generator, storage), card)


def generator_from_tensors(
    config: GeneratorConfig, tensors: dict[str, Tensor], source: str, noise_seed: int | None = None
) -> tuple[Generator, GeneratorCard]:
    """A generator with these tensors, by nets' names, and its card.

    For tensors from foreign files: they have neither truncation nor licenses, so the card has
    truncation psi 1 and no license. Raises WeightsError, beginning with `source`.
    """
    config, tensors, colors = _in_rgb(config, tensors, source)
    card = GeneratorCard(
        format=1,
        kind="generator",
        family=config.family,
        config=card_from_config(config),
        view_layers=0,
        truncation_psi=1.0,
        truncation_cutoff=config.num_ws,
        noise_seed=noise_seed,
        licences=[],
        provenance={"from": source, **({"colors": colors} if colors else {})},
    )
    problem = range_problem(card) or _contradiction(card)
    if problem:
        raise WeightsError(f"{source}: {problem}")
    generator = meta_module(lambda: generator_from_config(config))
    fill_module(generator, tensors, source)
    return generator, card


def _in_rgb(
    config: GeneratorConfig, tensors: dict[str, Tensor], source: str
) -> tuple[GeneratorConfig, dict[str, Tensor], str | None]:
    """A generator of grey images or of images with alpha as one of RGB, and what was done.

    Channels of images are independent of each other, so the others are what they were.
    """
    if config.img_channels not in TO_RGB:
        return config, tensors, None
    channels, done = TO_RGB[config.img_channels]
    changed = dict(tensors)
    for name in [n for n in tensors if n.endswith(("torgb.weight", "torgb.bias"))]:
        if tensors[name].ndim == 0 or len(tensors[name]) != config.img_channels:
            raise WeightsError(
                f"{source}: {name} is {list(tensors[name].shape)}; images have "
                f"{config.img_channels} channels"
            )
        changed[name] = tensors[name][list(channels)]
    return replace(config, img_channels=3), changed, done


def card_from_config(config: GeneratorConfig) -> ConfigCard:
    """The table [config] of a generator's card."""
    return ConfigCard(
        resolution=config.resolution,
        channels=list(config.channels),
        z_dim=config.z_dim,
        w_dim=config.w_dim,
        c_dim=config.c_dim,
        mapping_layers=config.mapping_layers,
        img_channels=config.img_channels,
        conv_clamp=config.conv_clamp,
        architecture=config.architecture,
        alias_free=None if config.alias_free is None else _card_from_design(config.alias_free),
        start=stated_start(config.start),
    )


def _card_from_design(design: AliasFree) -> AliasFreeCard:
    return AliasFreeCard(
        bands=[BandCard(**asdict(band)) for band in design.bands],
        filters=[LayerFiltersCard(**asdict(filters)) for filters in design.filters],
        output_scale=design.output_scale,
    )


def _design_from_card(card: AliasFreeCard) -> AliasFree:
    """Raises ValueError for an impossible one."""
    return AliasFree(
        bands=tuple(Band(**msgspec.structs.asdict(band)) for band in card.bands),
        filters=tuple(LayerFilters(**msgspec.structs.asdict(f)) for f in card.filters),
        output_scale=card.output_scale,
    )


def config_from_card(card: GeneratorCard) -> GeneratorConfig:
    """nets' configuration of a card. Raises ValueError for an impossible one."""
    config = card.config
    return GeneratorConfig(
        resolution=config.resolution,
        channels=tuple(config.channels),
        z_dim=config.z_dim,
        w_dim=config.w_dim,
        c_dim=config.c_dim,
        mapping_layers=config.mapping_layers,
        img_channels=config.img_channels,
        conv_clamp=config.conv_clamp,
        architecture=config.architecture,
        family=card.family,
        alias_free=None if config.alias_free is None else _design_from_card(config.alias_free),
        start=config.start or SQUARE,
    )


def _contradiction(card: GeneratorCard) -> str | None:
    num_ws = rows_of_ws(card.family, len(card.config.channels))
    rows = {"view_layers": card.view_layers, "truncation_cutoff": card.truncation_cutoff}
    for name, value in rows.items():
        if value > num_ws:
            return f"{name} is {value}; it must be in [0, {num_ws}], the rows of w+"
    return None
