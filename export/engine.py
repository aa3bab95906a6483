"""A bundle -> its TensorRT engine in the cache, and the lines that describe the engine."""

from dataclasses import dataclass
from pathlib import Path

from bundle.open import open_bundle
from engines.engine_cache import Sidecar, key_of, plan_path
from engines.open_gpu import BATCH_SIZES, GpuDrivers, default_precision
from engines.plan_build import PARITY_SAMPLES, PlanOptions, plans_for_bundle
from engines.plan_parity import PlanParity
from engines.plan_variant import variant_of
from engines.protocol import Precision
from engines.tensorrt_module import version_of


@dataclass(frozen=True)
class EngineRequest:
    """Arguments of `python -m export engine`."""

    bundle: Path
    cache: Path
    precision: Precision | None = None  # None: float16 if the bundle has it
    batch_sizes: tuple[int, ...] = ()  # samples per run; empty: the service's default
    device: int = 0  # number of the GPU, as the driver counts
    fused: bool = False  # the two graphs around the bundle's fused kernels
    rebuild: bool = False  # even if the cache has this engine
    parity_samples: int = PARITY_SAMPLES
    builder_optimization_level: int | None = None  # 0 to 5; None: TensorRT's default


def lines_from_request(request: EngineRequest, drivers: GpuDrivers) -> list[str]:
    """Builds the engine, or finds it in the cache, and describes it.

    Raises EngineError, BundleError.
    """
    bundle = open_bundle(request.bundle)
    precision = request.precision or default_precision(bundle)
    trt, device = drivers.tensorrt(), drivers.open_device(request.device)
    variant = variant_of(bundle, precision, device, request.fused)
    options = PlanOptions(
        cache=request.cache,
        batch_sizes=request.batch_sizes or BATCH_SIZES,
        build=True,
        force=request.rebuild,
        parity_samples=request.parity_samples,
        builder_optimization_level=request.builder_optimization_level,
    )
    lines = []
    for _, sidecar in plans_for_bundle(bundle, trt, device, variant, options):
        key = key_of(sidecar.bundle_id, device, version_of(trt), precision, sidecar.graph)
        lines += lines_from_sidecar(plan_path(request.cache, key), sidecar)
    return lines


def lines_from_sidecar(path: Path, sidecar: Sidecar) -> list[str]:
    """The command's output for one plan file."""
    sizes = ", ".join(map(str, sidecar.batch_sizes))
    return [
        f"engine     {path}",
        f"for        {sidecar.gpu}, TensorRT {sidecar.tensorrt}, {sidecar.precision}",
        f"batches    {sizes}",
        f"size       {sidecar.size / 1e6:.1f} MB, built in {sidecar.build_seconds:.0f} s",
        *(f"parity     {_parity_text(parity)}" for parity in sidecar.parity),
    ]


def _parity_text(parity: PlanParity) -> str:
    words = [f"batch {parity.batch_size}, {parity.samples} samples against {parity.reference}"]
    words.append(f"image {parity.image_max_steps} steps at most")
    for label, value in (
        ("mask differs at", parity.mask_mismatch_share),
        ("uncertainty excess", parity.uncertainty_max_excess),
        ("keypoints px", parity.keypoints_p95_px),
        ("depth", parity.depth_max_relative),
    ):
        if value is not None:
            words.append(f"{label} {value:.3g}")
    return "; ".join(words)
