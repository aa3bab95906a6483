"""The native format of generators: safetensors of nets' own names, and a card."""

from pathlib import Path

import torch
from torch import Tensor

from checkpoints.card import ConfigCard, GeneratorCard
from checkpoints.errors import CardError, WeightsError
from checkpoints.toml import card_path, read_card, toml_from_card, write_text
from checkpoints.weights import fill_module, meta_module, module_from_weights, write_weights
from nets.config import GeneratorConfig
from nets.generator import Generator, generator_from_config

MAX_RESOLUTION = 4096
MAX_MAPPING_LAYERS = 64
MAX_WIDTH = 1 << 20  # of any layer; the tensors decide, this only bounds the arithmetic


def generator_from_file(path: Path) -> tuple[Generator, GeneratorCard]:
    """Reads weights (float32 or float16) and card; the generator is float32, in evaluation mode.

    Raises CardError, WeightsError.
    """
    card = read_card(path, GeneratorCard)
    problem = _problem(card)
    if problem:
        raise CardError(f"{card_path(path)}: {problem}")
    generator = module_from_weights(
        path, card_path(path), lambda: generator_from_config(config_from_card(card))
    )
    return generator, card


def write_generator(
    path: Path, generator: Generator, card: GeneratorCard, storage: torch.dtype = torch.float32
) -> None:
    """Writes weights and card. Raises CardError when the card is not this generator's."""
    config = generator.config
    if (card.family, card.config) != (config.family, card_from_config(config)):
        raise CardError(f"{card_path(path)} is not written: its config is not the generator's")
    problem = _problem(card)
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_weights(path, generator, storage)
    write_text(card_path(path), toml_from_card(card))


def generator_from_tensors(
    config: GeneratorConfig, tensors: dict[str, Tensor], source: str, noise_seed: int | None = None
) -> tuple[Generator, GeneratorCard]:
    """A generator of somebody else's weights, under nets' own names, and its card.

    The card has no truncation and no licence: neither is in such files. Raises WeightsError,
    beginning with `source`.
    """
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
        made={"from": source},
    )
    problem = _problem(card)
    if problem:
        raise WeightsError(f"{source}: {problem}")
    generator = meta_module(lambda: generator_from_config(config))
    fill_module(generator, tensors, source)
    return generator, card


def card_from_config(config: GeneratorConfig) -> ConfigCard:
    """The card's [config] of a generator."""
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
    )


def config_from_card(card: GeneratorCard) -> GeneratorConfig:
    """nets' configuration. Raises ValueError where the two contradict each other."""
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
    )


def _problem(card: GeneratorCard) -> str | None:
    """The first value out of range, in words."""
    config = card.config
    ranges = {
        "resolution": (config.resolution, 8, MAX_RESOLUTION),
        "mapping_layers": (config.mapping_layers, 1, MAX_MAPPING_LAYERS),
        "z_dim": (config.z_dim, 1, MAX_WIDTH),
        "w_dim": (config.w_dim, 1, MAX_WIDTH),
        "c_dim": (config.c_dim, 0, MAX_WIDTH),
        "img_channels": (config.img_channels, 3, 3),
        "channels": (min(config.channels, default=0), 1, MAX_WIDTH),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            return f"config.{name} is {value}; it must be in [{low}, {high}]"
    if config.conv_clamp is not None and not config.conv_clamp > 0:
        return f"config.conv_clamp is {config.conv_clamp}; it must be over 0, or left out"
    num_ws = 2 * len(config.channels)
    rows = {"view_layers": card.view_layers, "truncation_cutoff": card.truncation_cutoff}
    for name, value in rows.items():
        if not 0 <= value <= num_ws:
            return f"{name} is {value}; it must be in [0, {num_ws}], the rows of w+"
    if not 0 <= card.truncation_psi <= 2:
        return f"truncation_psi is {card.truncation_psi}; it must be in [0, 2]"
    return None
