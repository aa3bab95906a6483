"""Options of verbs that ask for samples: which ones, and which of them to keep."""

from __future__ import annotations

from collections.abc import Callable

import click

INDEX = click.IntRange(0, 2**64 - 1)
_SAMPLING = (
    click.option(
        "--model",
        default="",
        show_default=False,
        help="Name; may be left out when there is only one.",
    ),
    click.option("--seed", type=INDEX, default=0, show_default=True),
    click.option("--start-index", type=INDEX, default=0, show_default=True),
    click.option("--keep-fraction", type=float, help="Keep about this share, the least uncertain."),
    click.option("--max-uncertainty", type=float, help="Keep samples with at most this score."),
    click.option("--truncation-psi", type=float, help="In place of the model's own."),
    click.option("--class-index", type=click.IntRange(0), help="For class-conditional generators."),
    click.option("--views-per-object", type=click.IntRange(1), default=1, show_default=True),
    click.option(
        "--view",
        callback=lambda context, parameter, value: _view(value),
        help="Code of the model's view bank, or random, bank or drawn.  [default: bank for several "
        "views, where the model has one]",
    ),
)


def samples(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of a stream, under the names of `labelmint.options`."""
    for option in reversed(_SAMPLING):
        verb = option(verb)
    return verb


def _view(text: str | None) -> int | str | None:
    """As `labelmint.options` has it, which says what is wrong with others."""
    return int(text) if text is not None and text.isdecimal() else text
