"""A bundle -> engines on GPUs, one per device and context; if one fails, all are closed."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bundle.manifest import LABELLER
from bundle.open import Bundle
from engines.cuda import open_device
from engines.device import Device
from engines.device_engine import DeviceEngine
from engines.engine_cache import DEFAULT_CACHE
from engines.onnx_graph import graph_from_bundle
from engines.ort_launch import OrtLauncher, Provider
from engines.plan_build import PlanOptions, open_plans, plans_for_bundle
from engines.plan_variant import Plans, Variant, labeller_variant, variant_of
from engines.portable_plan import read_portable_plan
from engines.protocol import Engine, Precision
from engines.tensorrt_module import tensorrt_module, tensorrt_rtx_module

BATCH_SIZES = (8,)  # in samples; not tuned yet


@dataclass(frozen=True)
class GpuOptions:
    """Options of the runtimes that use a GPU."""

    devices: tuple[int, ...] = (0,)  # GPUs to use, by the driver's numbers
    contexts: int = 2  # engines per GPU; with two, one copies while the other computes
    cuda_graphs: bool = True
    cache: Path = DEFAULT_CACHE  # folder of built TensorRT engines
    build: bool = False  # whether to build a TensorRT engine that the cache lacks
    builder_optimization_level: int | None = None  # 0 to 5; None: TensorRT's default, 3


@dataclass(frozen=True)
class GpuDrivers:
    """How to open a GPU and import TensorRT; tests replace all with fakes."""

    open_device: Callable[[int], Device] = open_device
    tensorrt: Callable[[], Any] = tensorrt_module
    tensorrt_rtx: Callable[[], Any] = tensorrt_rtx_module


@dataclass(frozen=True)
class GpuRequest:
    """A bundle to open on GPUs, and how."""

    bundle: Bundle
    precision: Precision | None  # None: default_precision
    batch_sizes: tuple[int, ...]  # empty: BATCH_SIZES
    gpu: GpuOptions

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes of the engines; never empty."""
        return self.batch_sizes or BATCH_SIZES

    @property
    def chosen_precision(self) -> Precision:
        """Precision of the engines."""
        return self.precision or default_precision(self.bundle)


def default_precision(bundle: Bundle) -> Precision:
    """Precision on a GPU if none is given: float16 if the bundle has that graph."""
    return "float16" if LABELLER["float16"] in bundle.manifest.files else "float32"


def open_tensorrt(
    request: GpuRequest, drivers: GpuDrivers, *, fused: bool = False
) -> tuple[Engine, ...]:
    """Engines from plans in the cache, which are built first if GpuOptions.build allows.

    With `fused` the bundle's own CUDA kernels compute the labels. Raises EngineError, BundleError.
    """
    trt, gpu, bundle = drivers.tensorrt(), request.gpu, request.bundle

    def plans_for(device: Device) -> tuple[Variant, tuple[bytes, ...]]:
        variant = variant_of(bundle, request.chosen_precision, device, fused)
        wanted = PlanOptions(
            gpu.cache, request.sizes, gpu.build,
            builder_optimization_level=gpu.builder_optimization_level, unkept=True,
        )  # fmt: skip
        built = plans_for_bundle(bundle, trt, device, variant, wanted)
        return variant, tuple(plan for plan, _ in built)

    return _engines_from_plans(request, drivers, trt, plans_for)


def open_tensorrt_rtx(request: GpuRequest, drivers: GpuDrivers) -> tuple[Engine, ...]:
    """Engines from the bundle's own portable plan. Raises EngineError, BundleError."""
    trt, bundle, precision = drivers.tensorrt_rtx(), request.bundle, request.chosen_precision
    variant = labeller_variant(bundle, precision)

    def plans_for(device: Device) -> tuple[Variant, tuple[bytes, ...]]:
        return variant, (read_portable_plan(bundle, trt, device, precision, request.sizes),)

    return _engines_from_plans(request, drivers, trt, plans_for)


def _engines_from_plans(
    request: GpuRequest,
    drivers: GpuDrivers,
    trt: Any,
    plans_for: Callable[[Device], tuple[Variant, tuple[bytes, ...]]],
) -> tuple[Engine, ...]:
    gpu, sizes = request.gpu, request.sizes
    with ExitStack() as on_failure:
        engines: list[Engine] = []
        for device in map(drivers.open_device, gpu.devices):
            variant, data = plans_for(device)
            plans: Plans = ()
            for _ in range(gpu.contexts):
                if not (plans and all(plan.shares_profiles for plan in plans)):
                    plans = open_plans(trt, variant, data, device)
                launcher = variant.opener(plans, sizes, gpu.cuda_graphs)
                engine = DeviceEngine(
                    request.bundle.manifest, variant.precision, sizes, device, launcher
                )
                on_failure.callback(engine.close)
                engines.append(engine)
        on_failure.pop_all()
    return tuple(engines)


def open_onnxruntime(
    request: GpuRequest, drivers: GpuDrivers, provider: Provider
) -> tuple[Engine, ...]:
    """Engines over ONNX Runtime sessions of that provider. Raises EngineError, BundleError."""
    precision, sizes = request.chosen_precision, request.sizes
    graph = graph_from_bundle(request.bundle, LABELLER[precision])
    manifest = request.bundle.manifest
    with ExitStack() as on_failure:
        engines: list[Engine] = []
        for device in map(drivers.open_device, request.gpu.devices):
            launcher = partial(
                OrtLauncher, graph,
                batch_sizes=sizes, provider=provider, half=precision == "float16",
            )  # fmt: skip
            for _ in range(request.gpu.contexts):
                engine = DeviceEngine(manifest, precision, sizes, device, launcher)
                on_failure.callback(engine.close)
                engines.append(engine)
        on_failure.pop_all()
    return tuple(engines)
