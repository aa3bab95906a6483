"""Native files of inverse-graphics networks: safetensors with nets' parameter names, and a card."""

from pathlib import Path

import torch

from bundle.records import range_problem
from checkpoints.card import InverseGraphicsCard
from checkpoints.errors import CardError
from checkpoints.pairs import write_pair
from checkpoints.toml import card_path, read_card
from checkpoints.weights import fill_module, tensors_from_file, tensors_of_module
from nets.inverse_graphics import InverseGraphics, InverseGraphicsConfig


def inverse_graphics_from_file(path: Path) -> tuple[InverseGraphics, InverseGraphicsCard]:
    """Reads weights (float32 or float16) and card.

    The network is float32, in evaluation mode. Raises CardError, WeightsError.
    """
    card = read_card(path, InverseGraphicsCard, _contradiction)
    tensors = tensors_from_file(path)
    # Not on torch's meta device: the constructor computes the sphere. The ranges of the card bound
    # its cost.
    with torch.random.fork_rng(devices=[]):
        network = InverseGraphics(config_from_inverse_graphics_card(card))
    fill_module(network, tensors, str(path), f"by {card_path(path).name} it")
    return network, card


def write_inverse_graphics(path: Path, network: InverseGraphics, card: InverseGraphicsCard) -> None:
    """Writes float32 weights and card.

    Raises CardError when the card breaks a rule or does not fit the network, WeightsError when a
    weight is not finite.
    """
    problem = range_problem(card) or _contradiction(card)
    if problem is None and config_from_inverse_graphics_card(card) != network.config:
        problem = "its shape is not the network's"
    if problem:
        raise CardError(f"{card_path(path)} is not written: {problem}")
    write_pair(path, tensors_of_module(path, network, torch.float32), card)


def config_from_inverse_graphics_card(card: InverseGraphicsCard) -> InverseGraphicsConfig:
    """nets' configuration of a card."""
    return InverseGraphicsConfig(
        extent=card.extent,
        hidden=card.hidden,
        texture=card.texture,
        radius=card.radius,
        camera=card.camera,
    )


def _contradiction(card: InverseGraphicsCard) -> str | None:
    if card.texture & (card.texture - 1):
        return f"texture is {card.texture}; it must be a power of two"
    for name, words in {"background": card.background, "keypoints": card.keypoints}.items():
        doubled = next((word for word in words if words.count(word) > 1), None)
        if doubled is not None:
            return f"{name} names {doubled} twice; it must name each once"
    return None
