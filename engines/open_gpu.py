"""A bundle -> engines on GPUs: one for each device and context, or none at all."""

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
from engines.ort_launch import OrtLauncher, Provider
from engines.plan_build import PlanOptions, open_plans, plans_for_bundle
from engines.plan_parity import Precision
from engines.plan_variant import Plans, variant_of
from engines.protocol import Engine
from engines.tensorrt_module import tensorrt_module

BATCH_SIZES = (8,)  # not measured yet


@dataclass(frozen=True)
class GpuOptions:
    """What concerns runtimes on a GPU alone."""

    devices: tuple[int, ...] = (0,)  # the driver's numbers, engines on each
    contexts: int = 2  # engines per device, so that copies of one overlap the other's computing
    cuda_graphs: bool = True
    cache: Path = DEFAULT_CACHE  # of TensorRT's engines
    build: bool = False  # a TensorRT engine that is not in the cache


@dataclass(frozen=True)
class Machine:
    """Where devices and TensorRT come from: the device seam, for tests to stand in."""

    open_device: Callable[[int], Device] = open_device
    tensorrt: Callable[[], Any] = tensorrt_module


@dataclass(frozen=True)
class GpuRequest:
    """What is to run there."""

    bundle: Bundle
    precision: Precision | None  # None: float16 where the bundle has it
    batch_sizes: tuple[int, ...]  # empty: ours
    gpu: GpuOptions

    @property
    def sizes(self) -> tuple[int, ...]:
        """Never empty."""
        return self.batch_sizes or BATCH_SIZES

    @property
    def chosen_precision(self) -> Precision:
        """Never None."""
        return self.precision or default_precision(self.bundle)


def default_precision(bundle: Bundle) -> Precision:
    """What a GPU computes in unless told."""
    return "float16" if LABELLER["float16"] in bundle.manifest.files else "float32"


def open_tensorrt(
    request: GpuRequest, machine: Machine, *, fused: bool = False
) -> tuple[Engine, ...]:
    """Engines of plans in the cache, or built into it; `fused`: labels by the bundle's kernels.
    Raises EngineError, BundleError."""
    trt, gpu, bundle = machine.tensorrt(), request.gpu, request.bundle
    precision, sizes = request.chosen_precision, request.sizes
    with ExitStack() as failing:
        engines: list[Engine] = []
        for device in map(machine.open_device, gpu.devices):
            variant = variant_of(bundle, precision, device, fused)
            wanted = PlanOptions(gpu.cache, sizes, gpu.build)
            built = plans_for_bundle(bundle, trt, device, variant, wanted)
            data = tuple(one for one, _ in built)
            plans: Plans = ()
            for _ in range(gpu.contexts):
                if not (plans and all(plan.shared for plan in plans)):
                    plans = open_plans(trt, variant, data, device)
                launcher = variant.opener(plans, sizes, gpu.cuda_graphs)
                engine = DeviceEngine(bundle.manifest, precision, sizes, device, launcher)
                failing.callback(engine.close)
                engines.append(engine)
        failing.pop_all()
    return tuple(engines)


def open_onnxruntime(
    request: GpuRequest, machine: Machine, provider: Provider
) -> tuple[Engine, ...]:
    """Engines of sessions on that provider. Raises EngineError, BundleError."""
    precision, sizes = request.chosen_precision, request.sizes
    graph, manifest = request.bundle.file(LABELLER[precision]), request.bundle.manifest
    with ExitStack() as failing:
        engines: list[Engine] = []
        for device in map(machine.open_device, request.gpu.devices):
            launcher = partial(
                OrtLauncher, graph,
                batch_sizes=sizes, provider=provider, half=precision == "float16",
            )  # fmt: skip
            for _ in range(request.gpu.contexts):
                engine = DeviceEngine(manifest, precision, sizes, device, launcher)
                failing.callback(engine.close)
                engines.append(engine)
        failing.pop_all()
    return tuple(engines)
