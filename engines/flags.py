"""Values of the flags --precision and --batch-size, which the service and `export engine` share."""

import click

from engines.protocol import Precision

PRECISIONS: dict[str, Precision] = {"fp16": "float16", "fp32": "float32"}


def batch_sizes_from_flag(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[int, ...]:
    """Click callback: "1,8" -> (1, 8) and "" -> (). Raises click.BadParameter for other text."""
    words = [word for word in value.split(",") if word]
    if not all(word.isdigit() for word in words):
        raise click.BadParameter(f"{value!r} is not a list of batch sizes; write them as 1,8")
    return tuple(int(word) for word in words)
