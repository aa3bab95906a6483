"""The native format of encoders: safetensors of nets' own names, and a card."""

from pathlib import Path

import torch

from checkpoints.card import EncoderCard
from checkpoints.errors import CardError
from checkpoints.toml import card_path, read_card, toml_from_card, write_text
from checkpoints.weights import module_from_weights, write_weights
from nets.encoder import Encoder, EncoderConfig

MAX_EXTENT = 4096  # pixels
MAX_WIDTH = 1 << 20  # of any layer; the tensors decide, this only bounds the arithmetic
MAX_HALVINGS = 16
MAX_ITERATIONS = 64


def encoder_from_file(path: Path) -> tuple[Encoder, EncoderCard]:
    """Reads weights (float32 or float16) and card; float32, in evaluation mode.

    Raises CardError, WeightsError.
    """
    card = read_card(path, EncoderCard)
    problem = _problem(card)
    if problem:
        raise CardError(f"{card_path(path)}: {problem}")
    encoder = module_from_weights(
        path, card_path(path), lambda: Encoder(config_from_encoder_card(card))
    )
    return encoder, card


def write_encoder(path: Path, encoder: Encoder, card: EncoderCard) -> None:
    """Writes float32 weights and card. Raises CardError when the card is not this encoder's."""
    problem = _problem(card)
    if problem is None and config_from_encoder_card(card) != encoder.config:
        problem = "its shape is not the encoder's"
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_weights(path, encoder, torch.float32)
    write_text(card_path(path), toml_from_card(card))


def config_from_encoder_card(card: EncoderCard) -> EncoderConfig:
    """nets' configuration. Raises ValueError where the widths are impossible."""
    return EncoderConfig(
        height=card.height,
        width=card.width,
        num_ws=card.num_ws,
        w_dim=card.w_dim,
        channels=tuple(card.channels),
        hidden=card.hidden,
        iterations=card.iterations,
    )


def _problem(card: EncoderCard) -> str | None:
    """The first value out of range, in words."""
    ranges = {
        "grid": (card.grid, 4, MAX_EXTENT),
        "crop_top": (card.crop_top, 0, card.grid - 1),
        "rows": (card.rows, 1, card.grid - card.crop_top),
        "height": (card.height, 1, MAX_EXTENT),
        "width": (card.width, 1, MAX_EXTENT),
        "num_ws": (card.num_ws, 1, MAX_WIDTH),
        "w_dim": (card.w_dim, 1, MAX_WIDTH),
        "channels, their number": (len(card.channels), 2, MAX_HALVINGS),
        "channels": (max(card.channels, default=0), 1, MAX_WIDTH),
        "hidden": (card.hidden, 1, MAX_WIDTH),
        "iterations": (card.iterations, 1, MAX_ITERATIONS),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            return f"{name} is {value}; it must be in [{low}, {high}]"
    return None
