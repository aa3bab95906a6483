"""Parsers of command-line lists: arms by letter, and seeds."""

import click

from examples.train_segmentation.arms import Arm

MAX_SEED = 999_999


def arms_from_text(context: click.Context, option: click.Parameter, text: str) -> tuple[Arm, ...]:
    """Parses letters of arms, such as a,e."""
    try:
        return tuple(Arm(letter.strip()) for letter in text.split(","))
    except ValueError as error:
        letters = ",".join(arm.value for arm in Arm)
        raise click.BadParameter(
            f"{text!r} is not a list of arms; choose from {letters}"
        ) from error


def seeds_from_text(context: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    """Parses integers, such as 0,1,2."""
    try:
        seeds = tuple(int(seed) for seed in text.split(","))
    except ValueError:
        seeds = (-1,)
    if not all(0 <= seed <= MAX_SEED for seed in seeds):
        raise click.BadParameter(
            f"{text!r} is not a list of seeds from 0 to {MAX_SEED}, such as 0,1,2"
        )
    return seeds
