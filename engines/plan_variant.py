"""The two ways to run a bundle with TensorRT: the labeller as one plan, or as two plans with fused
kernels between them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundle.fused import (
    FILTER,
    FUSED,
    PICTURE,
    TAPS,
    Fused,
    fused_from_bytes,
)
from bundle.manifest import LABELLER
from bundle.open import Bundle
from engines.device import Device
from engines.device_engine import Launcher
from engines.engine_cache import GraphName
from engines.errors import EngineOpenError
from engines.fused_launch import FusedLauncher
from engines.kernel_runs import KernelSet
from engines.protocol import Precision
from engines.run_memory import RunMemory
from engines.signature import ArraySpecs, graph_inputs, graph_outputs
from engines.tensorrt_launch import TensorRTLauncher
from engines.tensorrt_plan import TensorRTPlan

Plans = tuple[TensorRTPlan, ...]


@dataclass(frozen=True)
class PlanGraph:
    """One ONNX graph that a plan is built from."""

    name: GraphName
    file: Path  # which the manifest lists
    half: bool  # whether it computes in float16
    inputs: ArraySpecs
    outputs: ArraySpecs


@dataclass(frozen=True)
class Variant:
    """Graphs in the order in which they run, and how their plans are launched."""

    precision: Precision
    graphs: tuple[PlanGraph, ...]
    # (plans, memory, batch sizes, whether to record CUDA graphs) -> launcher
    launcher: Callable[[Plans, RunMemory, tuple[int, ...], bool], Launcher]

    def opener(
        self, plans: Plans, batch_sizes: tuple[int, ...], graphs: bool
    ) -> Callable[[RunMemory], Launcher]:
        """The argument `open_launcher` of DeviceEngine."""
        return lambda memory: self.launcher(plans, memory, batch_sizes, graphs)


def variant_of(bundle: Bundle, precision: Precision, device: Device, fused: bool) -> Variant:
    """The fused variant or the plain one. Raises EngineOpenError, BundleError."""
    if fused:
        return fused_variant(bundle, precision, device)
    return labeller_variant(bundle, precision)


def labeller_variant(bundle: Bundle, precision: Precision) -> Variant:
    """The whole labeller as one graph. Raises BundleError."""
    manifest = bundle.manifest
    file = bundle.file(LABELLER[precision])
    graph = PlanGraph(
        "labeller", file, precision == "float16", graph_inputs(manifest), graph_outputs(manifest)
    )

    def launcher(
        plans: Plans, memory: RunMemory, batch_sizes: tuple[int, ...], graphs: bool
    ) -> Launcher:
        return TensorRTLauncher(plans[0], memory, batch_sizes, graphs)

    return Variant(precision, (graph,), launcher)


def fused_variant(bundle: Bundle, precision: Precision, device: Device) -> Variant:
    """Two graphs, and the kernels for this device between them. Raises EngineOpenError,
    BundleError."""
    if FUSED not in bundle.manifest.files:
        raise EngineOpenError(
            f"{bundle.path} has no fused kernels; export it again with `--fused "
            f"{_capability_of(device)}`, or use the engine tensorrt"
        )
    if precision != "float16":
        raise EngineOpenError(
            f"precision is {precision}; fused kernels compute in float16, use that or the engine "
            "tensorrt"
        )
    fused = fused_from_bytes(bundle.read(FUSED), bundle.file(FUSED))
    kernels = KernelSet(bundle, fused, _kernel_capability(fused, device))
    inputs, outputs = graph_inputs(bundle.manifest), graph_outputs(bundle.manifest)
    features, labels = kernels.of_kind("features"), kernels.of_kind("labels")
    taps = PlanGraph("taps", bundle.file(TAPS), True, {"ws": inputs.pop("ws")}, features)
    to_filter = {PICTURE: features[PICTURE]} | inputs | labels
    finish = PlanGraph("filter", bundle.file(FILTER), False, to_filter, outputs)

    def launcher(
        plans: Plans, memory: RunMemory, batch_sizes: tuple[int, ...], graphs: bool
    ) -> Launcher:
        return FusedLauncher(plans, kernels, memory, batch_sizes, graphs)

    return Variant(precision, (taps, finish), launcher)


def _kernel_capability(fused: Fused, device: Device) -> str:
    """The compute capability whose kernels this device runs. Raises EngineOpenError.

    Kernels for 8.x also run on later GPUs 8.y; from 9.0 on they run on one capability only.
    """
    major, minor = device.capability
    lowest = 0 if major == 8 else minor
    for candidate in range(minor, lowest - 1, -1):
        if f"{major}.{candidate}" in fused.programs:
            return f"{major}.{candidate}"
    own = _capability_of(device)
    raise EngineOpenError(
        f"the bundle's kernels are for compute capability {', '.join(sorted(fused.programs))}; "
        f"{device.name} has {own}, export the bundle again with `--fused {own}`"
    )


def _capability_of(device: Device) -> str:
    return f"{device.capability[0]}.{device.capability[1]}"
