"""`python -m export engine`; in images without torch, `python -m export.engine_command`."""

import logging
import re
from pathlib import Path

import click
from click.core import ParameterSource

from bundle.errors import BundleError
from engines.engine_cache import DEFAULT_CACHE
from engines.errors import EngineError
from engines.flags import PRECISIONS, batch_sizes_from_flag
from engines.open_gpu import GpuDrivers
from engines.plan_build import PARITY_SAMPLES
from export.engine import (
    EngineRequest,
    PortableRequest,
    lines_from_portable,
    lines_from_request,
)

RTX = "tensorrt-rtx"
# Options of one runtime alone, by parameter name.
OF_TENSORRT = {
    "cache": "--cache", "fused": "--fused", "gpu": "--gpu", "parity_samples": "--parity-samples",
    "builder_optimization_level": "--builder-optimization-level",
}  # fmt: skip
OF_RTX = {"capabilities": "--compute-capability", "report": "--report"}
FOLDER = click.Path(file_okay=False, path_type=Path)


def capabilities_from_flag(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[str, ...]:
    """Click callback: "8.6,8.9" -> ("8.6", "8.9") and "" -> ()."""
    words = tuple(word for word in value.split(",") if word)
    if not all(re.fullmatch(r"\d+\.\d", word) for word in words) or len(set(words)) < len(words):
        raise click.BadParameter(f"{value!r} is not a list of capabilities; write them as 8.6,8.9")
    return words


@click.command()
@click.pass_context
@click.argument("bundle", type=FOLDER)
@click.option(
    "--runtime",
    default="tensorrt",
    type=click.Choice(["tensorrt", RTX]),
    show_default=True,
    help="tensorrt builds for this machine's GPU; tensorrt-rtx needs no GPU and writes a portable "
    "plan into the bundle.",
)
@click.option(
    "--compute-capability",
    "capabilities",
    default="",
    callback=capabilities_from_flag,
    metavar="X.Y[,X.Y...]",
    help="With tensorrt-rtx: compute capabilities of the GPUs that the plan is for.",
    show_default="all that can run it, from 8.0",
)
@click.option(
    "--report",
    is_flag=True,
    help="With tensorrt-rtx: build even if there is a plan, and print its layers, precisions and "
    "memory.",
)
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
    help="Build for the service's --engine tensorrt-fused: the two graphs around the fused kernel.",
)
@click.option(
    "--gpu",
    default=0,
    type=click.IntRange(min=0),
    help="Number of the GPU to build for, as the driver counts.",
)
@click.option("--rebuild", is_flag=True, help="Replace an engine that exists already.")
@click.option(
    "--parity-samples",
    default=PARITY_SAMPLES,
    type=click.IntRange(min=1),
    help="Number of samples to compare with ONNX Runtime.",
)
@click.option(
    "--builder-optimization-level",
    type=click.IntRange(0, 5),
    help="Effort of the build, from 0 (fast build) to 5 (fast kernels). Has no effect on an "
    "engine that exists; see --rebuild.",
    show_default="TensorRT's own, 3",
)
def engine(
    context: click.Context,
    bundle: Path,
    runtime: str,
    capabilities: tuple[str, ...],
    report: bool,
    precision: str | None,
    batch_size: tuple[int, ...],
    cache: Path,
    fused: bool,
    gpu: int,
    rebuild: bool,
    parity_samples: int,
    builder_optimization_level: int | None,
) -> None:
    """Build the TensorRT engine of a bundle.

    It is built for this machine's GPU and compared with ONNX Runtime, which takes minutes. It runs
    on that GPU model and that TensorRT version only. With --runtime tensorrt-rtx, build a plan for
    NVIDIA RTX GPUs instead, on any machine, and store it in BUNDLE.
    """
    chosen = None if precision is None else PRECISIONS[precision]
    refuse_options_of_the_other(context, runtime)
    logging.basicConfig(format="%(message)s", level=logging.INFO)  # long builds are announced
    try:
        if runtime == RTX:
            portable = PortableRequest(bundle, chosen, batch_size, capabilities, rebuild, report)
            print("\n".join(lines_from_portable(portable, GpuDrivers())))
            return
        request = EngineRequest(
            bundle, cache, chosen, batch_size, gpu, fused, rebuild, parity_samples,
            builder_optimization_level,
        )  # fmt: skip
        print("\n".join(lines_from_request(request, GpuDrivers())))
    except (BundleError, EngineError) as error:
        raise click.ClickException(str(error)) from error


def refuse_options_of_the_other(context: click.Context, runtime: str) -> None:
    """Raises click.UsageError for an option on the command line that this runtime does not have."""
    foreign = OF_TENSORRT if runtime == RTX else OF_RTX
    for name, flag in foreign.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{flag} is not an option of --runtime {runtime}; leave it out")


if __name__ == "__main__":
    engine()
