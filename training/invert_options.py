"""Options that `encoder` and `invert` share."""

import click
import torch

from training.options import FILE

distance_option = click.option(
    "--distance",
    "distance_name",
    type=click.Choice(["auto", "lpips", "structure"]),
    default="auto",
    help="Perceptual distance; auto: LPIPS where its package and weights are, else our own.",
)
vgg_weights_option = click.option(
    "--vgg-weights", type=FILE, help="torchvision's VGG-16 for LPIPS; absent: from torch's cache."
)


def torch_device(name: str) -> torch.device:
    """A device that torch can compute on. Raises click.BadParameter."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise click.BadParameter(f"torch cannot use {name!r} here: {reason}") from error
    return device


device_option = click.option(
    "--device", type=torch_device, metavar="NAME", default="cpu", help="As cuda."
)
