"""`python -m export engine`; in images without torch, `python -m export.engine_command`."""

from pathlib import Path

import click

from bundle.errors import BundleError
from engines.engine_cache import DEFAULT_CACHE
from engines.errors import EngineError
from engines.flags import PRECISIONS, batch_sizes_from_flag
from engines.open_gpu import GpuDrivers
from engines.plan_build import PARITY_SAMPLES
from export.engine import EngineRequest, lines_from_request

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    help="Graph to build: fp16 is labeller.fp16.onnx, fp32 is labeller.onnx without TF32.",
    show_default="fp16 if the bundle has it",
)
@click.option(
    "--batch-size",
    default="",
    callback=batch_sizes_from_flag,
    metavar="N[,N...]",
    help="Batch sizes in samples, ascending.",
    show_default="the service's default",
)
@click.option(
    "--cache",
    type=FOLDER,
    default=DEFAULT_CACHE,
    envvar="LABELMINT_SERVER_ENGINE_CACHE",
    show_envvar=True,
    help="Folder to write the engine to; the same as the service's --engine-cache.",
)
@click.option(
    "--fused",
    is_flag=True,
    help="Build for --engine tensorrt-fused: the two graphs around the fused kernels.",
)
@click.option(
    "--gpu", default=0, type=click.IntRange(min=0), help="Number of the GPU, as the driver counts."
)
@click.option("--rebuild", is_flag=True, help="Build even if the cache has this engine.")
@click.option(
    "--parity-samples",
    default=PARITY_SAMPLES,
    type=click.IntRange(min=1),
    help="Number of samples to compare with ONNX Runtime.",
)
@click.option(
    "--builder-optimization-level",
    type=click.IntRange(0, 5),
    help="0 to 5, from a fast build to fast kernels. Takes effect when the engine is built: see "
    "--rebuild.",
    show_default="TensorRT's own, 3",
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
    builder_optimization_level: int | None,
) -> None:
    """Build a TensorRT engine for this machine's GPU and compare it with ONNX Runtime.

    Takes minutes. An engine runs on one GPU model and one TensorRT version only.
    """
    chosen = None if precision is None else PRECISIONS[precision]
    request = EngineRequest(
        bundle, cache, chosen, batch_size, gpu, fused, rebuild, parity_samples,
        builder_optimization_level,
    )  # fmt: skip
    try:
        print("\n".join(lines_from_request(request, GpuDrivers())))
    except (BundleError, EngineError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    engine()
