"""The flags that say what runs a bundle, and what they make of a configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engines.engine_cache import DEFAULT_CACHE
from engines.open import RUNTIMES, GpuOptions, Precision, Runtime
from service.option import option

PRECISIONS: dict[str, Precision] = {"fp16": "float16", "fp32": "float32"}


def engine_config(flags: dict[str, Any]) -> dict[str, Any]:
    """Fields of the Config."""
    return {
        "runtime": flags["engine"][0],
        "fallbacks": flags["engine"][1:],
        "precision": flags["precision"],
        "batch_sizes": flags["batch_size"],
        "gpu": GpuOptions(
            devices=flags["gpu"],
            contexts=flags["engine_contexts"],
            cache=flags["engine_cache"],
            build=flags["build_engine"],
        ),
    }


def _runtimes(context: click.Context, option: click.Parameter, value: str) -> tuple[Runtime, ...]:
    chosen: list[Runtime] = []
    for word in value.split(","):
        known = [runtime for runtime in RUNTIMES if runtime == word]
        if not known or known[0] in chosen:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(RUNTIMES)}, each once")
        chosen += known
    return tuple(chosen)


def _numbers(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    words = value.split(",")
    if not all(word.isdigit() for word in words) or len(set(words)) < len(words):
        raise click.BadParameter(f"{value!r} is no list of numbers, such as 0,1, each once")
    return tuple(int(word) for word in words)


def _batch_sizes(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    words = [word for word in value.split(",") if word]
    if not all(word.isdigit() for word in words):
        raise click.BadParameter(f"{value!r} is no list of sizes, such as 1,8")
    return tuple(int(word) for word in words)


ENGINE_FLAGS: tuple[Callable[[Any], Any], ...] = (
    option(
        "--engine",
        default="onnxruntime",
        callback=_runtimes,
        metavar="NAME[,NAME...]",
        help=f"What runs the bundle: {', '.join(RUNTIMES)}; fake computes arrays from latents "
        "alone. Where it cannot be had, the next one of the list is taken, and a metric says so.",
    ),
    option(
        "--precision",
        type=click.Choice(list(PRECISIONS)),
        callback=lambda context, option, value: PRECISIONS.get(value),
        help="Which graph of the bundle; absent: fp16 on a GPU where there is one, else fp32.",
    ),
    option(
        "--engine-cache",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_CACHE,
        help="Folder of TensorRT's engines, which `python -m export engine` builds.",
    ),
    option(
        "--build-engine",
        is_flag=True,
        help="Build a TensorRT engine that is not there; the first start then takes minutes.",
    ),
    option(
        "--gpu",
        default="0",
        callback=_numbers,
        metavar="N[,N...]",
        help="The driver's numbers of the GPUs; one server may use several.",
    ),
    option(
        "--engine-contexts",
        type=click.IntRange(1, 8),
        default=GpuOptions().contexts,
        help="Engines on each GPU: copies of one overlap with the computing of another.",
    ),
    option(
        "--batch-size",
        default="",
        callback=_batch_sizes,
        metavar="N[,N...]",
        help="Fixed engine batch sizes, ascending; absent: the engine's own choice.",
    ),
)
