"""The native format of inverse-graphics networks: safetensors of nets' own names, and a card."""

from pathlib import Path

import torch

from checkpoints.card import InverseGraphicsCard
from checkpoints.errors import CardError
from checkpoints.toml import card_path, read_card, toml_from_card, write_text
from checkpoints.weights import fill_module, tensors_from_file, write_weights
from nets.encoder import LAST
from nets.inverse_graphics import TEXTURE_START, InverseGraphics, InverseGraphicsConfig

MAX_EXTENT = 4096  # pixels
MAX_HIDDEN = 4096  # bounds what an absurd card costs before the tensors contradict it: 300 MiB
LENGTHS = (1e-9, 1e9)  # object units, as of the view bank's cameras


def inverse_graphics_from_file(path: Path) -> tuple[InverseGraphics, InverseGraphicsCard]:
    """Reads weights (float32 or float16) and card; float32, in evaluation mode.

    Raises CardError, WeightsError.
    """
    card = read_card(path, InverseGraphicsCard)
    problem = _problem(card)
    if problem:
        raise CardError(f"{card_path(path)}: {problem}")
    tensors = tensors_from_file(path)
    # Not on torch's meta device: the sphere is computed while the network is built.
    with torch.random.fork_rng(devices=[]):
        network = InverseGraphics(config_from_inverse_graphics_card(card))
    fill_module(network, tensors, str(path), f"by {card_path(path).name} it")
    return network, card


def write_inverse_graphics(path: Path, network: InverseGraphics, card: InverseGraphicsCard) -> None:
    """Writes float32 weights and card. Raises CardError when the card is not this network's,
    WeightsError when a weight is not finite."""
    problem = _problem(card)
    if problem is None and config_from_inverse_graphics_card(card) != network.config:
        problem = "its shape is not the network's"
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_weights(path, network, torch.float32)
    write_text(card_path(path), toml_from_card(card))


def config_from_inverse_graphics_card(card: InverseGraphicsCard) -> InverseGraphicsConfig:
    """nets' configuration."""
    return InverseGraphicsConfig(
        extent=card.extent,
        hidden=card.hidden,
        texture=card.texture,
        radius=card.radius,
        camera=card.camera,
    )


def _problem(card: InverseGraphicsCard) -> str | None:
    """The first value out of range, in words."""
    ranges = {
        "extent": (card.extent, LAST, MAX_EXTENT),
        "hidden": (card.hidden, 1, MAX_HIDDEN),
        "texture": (card.texture, TEXTURE_START, MAX_EXTENT),
        "radius": (card.radius, *LENGTHS),
        "distance": (card.distance, *LENGTHS),
        "focal": (card.focal, *LENGTHS),
        "silhouette": (card.silhouette, 0, 1),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:  # nor NaN
            return f"{name} is {value:g}; it must be in [{low:g}, {high:g}]"
    if card.texture & (card.texture - 1):
        return f"texture is {card.texture}; it must be a power of two"
    for name, words in {"background": card.background, "keypoints": card.keypoints}.items():
        doubled = next((word for word in words if words.count(word) > 1), None)
        if doubled is not None:
            return f"{name} names {doubled} twice"
    return None
