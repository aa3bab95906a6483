"""Options that `encoder` and `invert` share."""

import click

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
