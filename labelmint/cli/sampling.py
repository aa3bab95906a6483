"""Command-line options that choose samples: model, seed, range, filter, truncation and views."""

from __future__ import annotations

from collections.abc import Callable

import click

INDEX = click.IntRange(0, 2**64 - 1)
_SAMPLING = (
    click.option(
        "--model",
        default="",
        show_default="the only one",
        help="Name of the model; required if the server has several.",
    ),
    click.option(
        "--seed",
        type=INDEX,
        default=0,
        help="Seed of the stream; the same seed and index give the same sample.",
    ),
    click.option(
        "--start-index",
        type=INDEX,
        default=0,
        help="First raw index. Raw indices number all samples of a seed, before any filter.",
    ),
    click.option(
        "--keep-fraction",
        type=float,
        help="Fraction of samples to keep, in (0, 1]: about that many, the least uncertain, by a "
        "threshold from the bundle's calibration.  [default: no filter]",
    ),
    click.option(
        "--max-uncertainty",
        type=float,
        help="Highest uncertainty score of a sample to keep.  [default: no filter]",
    ),
    click.option(
        "--where",
        help="Predicate of the samples to keep, such as \"share('glasses') >= 0.02 and "
        "visible('left_eye')\"; docs/streams.md has the language.  [default: no filter]",
    ),
    click.option(
        "--max-class-uncertainty",
        multiple=True,
        metavar="CLASS=LIMIT",
        callback=lambda context, parameter, values: _limits(values),
        help="Highest mean uncertainty of the pixels of a class in a sample to keep, such as "
        "pupil=0.1; may be given for several classes.  [default: no filter]",
    ),
    click.option(
        "--keep-by",
        multiple=True,
        metavar="CONDITION",
        callback=lambda context, parameter, values: list(values) or None,
        help="Class or predicate: keep --keep-fraction of the samples with it and of those without "
        "it, by a threshold for each; may be given up to three times.  [default: one threshold]",
    ),
    click.option(
        "--balance",
        multiple=True,
        metavar="CONDITION=SHARE",
        callback=lambda context, parameter, values: _balance(values),
        help="Share of the samples to keep that should show a class or meet a predicate, such as "
        "glasses=0.5; may be given several times. Or classes alone: raises every rare class.  "
        "[default: as they are drawn]",
    ),
    click.option(
        "--proposal",
        help="Name of a proposal of the model, see labelmint models: generate only the samples "
        "that it chooses, for a --where that few meet.  [default: generate all]",
    ),
    click.option(
        "--edit",
        "edits",
        multiple=True,
        metavar="DIRECTION=STRENGTH",
        callback=lambda context, parameter, values: _edits(values),
        help="The same samples with more of what a direction of the model changes, such as "
        "glasses=1.5, or with less, as glasses=-1, see labelmint models; may be given for several "
        "directions.  [default: as they are]",
    ),
    click.option(
        "--truncation-psi",
        type=float,
        help="Truncation psi, from 0 to 2.  [default: the model's]",
    ),
    click.option(
        "--class-index",
        type=click.IntRange(0),
        help="Class of all samples, for class-conditional generators.  [default: drawn for "
        "each object]",
    ),
    click.option(
        "--views-per-object",
        type=click.IntRange(1),
        default=1,
        help="Number of views of each object; each view is a sample of its own.",
    ),
    click.option(
        "--view",
        callback=lambda context, parameter, value: _view(value),
        help="Viewpoint: a code of the model's view bank (the same view for all samples), random "
        "(a random view of the bank for each sample), bank (the bank's first views, one per view "
        "of an object) or drawn (no bank).  [default: bank if --views-per-object is over 1 and the "
        "model has a bank, otherwise drawn]",
    ),
)


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of a stream to a subcommand, named as in `labelmint.options`."""
    for option in reversed(_SAMPLING):
        command = option(command)
    return command


def _limits(values: tuple[str, ...]) -> dict[str, float] | None:
    """The option `max_class_uncertainty` of `labelmint.options`."""
    return _numbers(values, "no limit; write CLASS=0.1")


def _balance(values: tuple[str, ...]) -> dict[str, float] | str | None:
    """The option `balance` of `labelmint.options`."""
    if values == ("classes",):
        return "classes"
    return _numbers(values, "no share; write CLASS=0.5, CONDITION=0.5, or classes alone")


def _edits(values: tuple[str, ...]) -> dict[str, float] | None:
    """The option `edits` of `labelmint.options`."""
    return _numbers(values, "no strength; write DIRECTION=1.5")


def _numbers(values: tuple[str, ...], lacks: str) -> dict[str, float] | None:
    """The numbers of NAME=NUMBER by name; `lacks` says what a value without one has not."""
    numbers: dict[str, float] = {}
    for value in values:
        name, equals, number = value.rpartition("=")
        try:
            found = float(number)
        except ValueError:
            equals = ""
        if not equals or not name or name[-1] in "<>":  # the = of a comparison is no share's
            raise click.BadParameter(f"{value!r} has {lacks}")
        if name in numbers:
            raise click.BadParameter(f"{name!r} is given twice; give each once")
        numbers[name] = found
    return numbers or None


def _view(text: str | None) -> int | str | None:
    """The option `view` of `labelmint.options`, which refuses unknown words."""
    return int(text) if text is not None and text.isdecimal() else text
