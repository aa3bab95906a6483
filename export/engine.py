"""A bundle -> its TensorRT engine in the cache, and what there is to say of it."""

from dataclasses import dataclass
from pathlib import Path

from bundle.open import open_bundle
from engines.engine_cache import Sidecar, key_of, plan_path
from engines.open_gpu import BATCH_SIZES, Machine, default_precision
from engines.plan_build import PARITY_SAMPLES, PlanOptions, plans_for_bundle
from engines.plan_parity import PlanParity, Precision
from engines.plan_variant import variant_of
from engines.tensorrt_module import version_of

PRECISIONS: dict[str, Precision] = {"fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class EngineRequest:
    """What `python -m export engine` was asked for."""

    bundle: Path
    cache: Path
    precision: Precision | None = None  # None: float16 where the bundle has it
    batch_sizes: tuple[int, ...] = ()  # empty: what the service takes by itself
    device: int = 0
    fused: bool = False  # labels by the bundle's kernels
    rebuild: bool = False
    parity_samples: int = PARITY_SAMPLES


def lines_from_request(request: EngineRequest, machine: Machine) -> list[str]:
    """Builds the engine, or finds it, and describes it. Raises EngineError, BundleError."""
    bundle = open_bundle(request.bundle)
    precision = request.precision or default_precision(bundle)
    trt, device = machine.tensorrt(), machine.open_device(request.device)
    variant = variant_of(bundle, precision, device, request.fused)
    options = PlanOptions(
        cache=request.cache,
        batch_sizes=request.batch_sizes or BATCH_SIZES,
        build=True,
        force=request.rebuild,
        parity_samples=request.parity_samples,
    )
    lines = []
    for _, sidecar in plans_for_bundle(bundle, trt, device, variant, options):
        key = key_of(sidecar.bundle_id, device, version_of(trt), precision, sidecar.graph)
        lines += described(plan_path(request.cache, key), sidecar)
    return lines


def described(path: Path, sidecar: Sidecar) -> list[str]:
    """What the command prints."""
    sizes = ", ".join(map(str, sidecar.batch_sizes))
    return [
        f"engine     {path}",
        f"for        {sidecar.gpu}, TensorRT {sidecar.tensorrt}, {sidecar.precision}",
        f"batches    {sizes}",
        f"size       {sidecar.size / 1e6:.1f} MB, built in {sidecar.build_seconds:.0f} s",
        *(f"parity     {_figures(parity)}" for parity in sidecar.parity),
    ]


def _figures(parity: PlanParity) -> str:
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
