"""A bundle -> its TensorRT engine, in the cache or in the bundle, and lines that describe it."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bundle.manifest import PORTABLE_PLAN, PortablePlan
from bundle.open import Bundle, open_bundle
from engines.build_report import BuildReport
from engines.engine_cache import Sidecar, key_of, plan_path
from engines.open_gpu import BATCH_SIZES, GpuDrivers, default_precision
from engines.plan_build import PARITY_SAMPLES, PlanOptions, plans_for_bundle
from engines.plan_parity import PlanParity
from engines.plan_variant import variant_of
from engines.portable_plan import default_capabilities, write_portable_plan
from engines.protocol import Precision
from engines.tensorrt_module import version_of

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class PortableRequest:
    """Arguments of `python -m export engine --runtime tensorrt-rtx`."""

    bundle: Path
    precision: Precision | None = None  # None: float16 if the bundle has it
    batch_sizes: tuple[int, ...] = ()  # samples per run; empty: the service's default
    capabilities: tuple[str, ...] = ()  # empty: default_capabilities
    rebuild: bool = False  # even if the bundle has this plan
    report: bool = False  # whether to describe the engine's layers; builds in any case


def lines_from_portable(request: PortableRequest, drivers: GpuDrivers) -> list[str]:
    """Builds the plan into the bundle, or finds it there, and describes it; needs no GPU.

    Raises EngineError, BundleError.
    """
    bundle = open_bundle(request.bundle)
    precision = request.precision or default_precision(bundle)
    trt = drivers.tensorrt_rtx()
    sizes = request.batch_sizes or BATCH_SIZES
    capabilities = request.capabilities or default_capabilities(trt)
    known = bundle.manifest.plans.get(PORTABLE_PLAN[precision])
    if known and not (request.rebuild or request.report):
        asked = (list(sizes), sorted(capabilities), version_of(trt))
        if (known.batch_sizes, sorted(known.capabilities), known.tensorrt_rtx) == asked:
            return lines_from_plan(bundle, known)
    _log.info("building %s, which takes minutes", bundle.path / PORTABLE_PLAN[precision])
    plan, report = write_portable_plan(
        bundle, trt, precision, sizes, capabilities, with_report=request.report
    )
    return lines_from_plan(bundle, plan) + (lines_from_report(report, sizes) if report else [])


def lines_from_plan(bundle: Bundle, plan: PortablePlan) -> list[str]:
    """The command's output for a portable plan."""
    return [
        f"engine     {bundle.path / PORTABLE_PLAN[plan.precision]}",
        f"for        compute capability {', '.join(plan.capabilities)}, TensorRT for RTX "
        f"{plan.tensorrt_rtx}, {plan.precision}",
        f"batches    {', '.join(map(str, plan.batch_sizes))}",
        f"size       {plan.file.size / 1e6:.1f} MB",
        "parity     not measured: building needs no GPU, running it does",
    ]


def lines_from_report(report: BuildReport, batch_sizes: tuple[int, ...]) -> list[str]:
    """What `--report` adds: layers, precision and memory, then one line per layer."""
    lines = [
        f"layers     {report.parsed_layers} in the graph",
        f"weights    {report.weights_bytes / 1e6:.1f} MB",
    ]
    for compiled, rows in enumerate(batch_sizes):
        layers = report.layers_of(compiled)
        counts = Counter(layer.precision for layer in layers)
        shares = ", ".join(f"{n} {precision}" for precision, n in counts.most_common())
        working = report.activation_bytes[compiled] / 1e6
        lines.append(
            f"batch {rows:<5}{len(layers)} layers after fusion ({shares}), working memory "
            f"{working:.1f} MB"
        )
    lines += [
        f"layer      {layer.precision:<12}{layer.kind:<18}{' '.join(layer.operators[:3])}"
        + (f" and {len(layer.operators) - 3} more" if len(layer.operators) > 3 else "")
        for layer in report.layers_of()
    ]
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
