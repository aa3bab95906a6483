"""python -m export engine; also python -m export.engine_command, where there is no torch."""

from pathlib import Path

import click

from bundle.errors import BundleError
from engines.engine_cache import DEFAULT_CACHE
from engines.errors import EngineError
from engines.open_gpu import Machine
from engines.plan_build import PARITY_SAMPLES
from export.engine import PRECISIONS, EngineRequest, lines_from_request

FOLDER = click.Path(file_okay=False, path_type=Path)


def _batch_sizes(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    words = [word for word in value.split(",") if word]
    if not all(word.isdigit() for word in words):
        raise click.BadParameter(f"{value!r} is no list of sizes, such as 1,8")
    return tuple(int(word) for word in words)


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    help="fp16 builds labeller.fp16.onnx, fp32 labeller.onnx without TF32; absent: fp16 where the "
    "bundle has it.",
)
@click.option(
    "--batch-size",
    default="",
    callback=_batch_sizes,
    metavar="N[,N...]",
    help="Fixed batch sizes, ascending; absent: what the service takes by itself.",
)
@click.option(
    "--cache",
    type=FOLDER,
    default=DEFAULT_CACHE,
    envvar="LABELMINT_SERVER_ENGINE_CACHE",
    show_envvar=True,
    help="Folder of engines, the service's --engine-cache.",
)
@click.option(
    "--fused", is_flag=True, help="For the engine tensorrt-fused: the graphs around its kernels."
)
@click.option("--gpu", default=0, type=click.IntRange(min=0), help="The driver's number of it.")
@click.option("--rebuild", is_flag=True, help="Build even what is in the cache.")
@click.option(
    "--parity-samples",
    default=PARITY_SAMPLES,
    type=click.IntRange(min=1),
    help="Compared with ONNX Runtime.",
)
def engine(
    bundle: Path,
    precision: str | None,
    batch_size: tuple[int, ...],
    cache: Path,
    fused: bool,
    gpu: int,
    rebuild: bool,
    parity_samples: int,
) -> None:
    """Builds a TensorRT engine for the GPU at hand, and checks it against ONNX Runtime.

    Takes minutes. An engine is good for one GPU model and one version of TensorRT.
    """
    wanted = None if precision is None else PRECISIONS[precision]
    request = EngineRequest(bundle, cache, wanted, batch_size, gpu, fused, rebuild, parity_samples)
    try:
        print("\n".join(lines_from_request(request, Machine())))
    except (BundleError, EngineError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    engine()
