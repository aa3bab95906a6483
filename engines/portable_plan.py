"""A bundle's portable plan: a plan of TensorRT for RTX, built without a GPU, kept in the bundle.

It runs on the GPUs that it was built for, with the version that built it; anything else is refused.
TensorRT reads the very bytes whose SHA-256 was checked, because plans contain code.
"""

from hashlib import sha256
from typing import Any

from bundle.manifest import LABELLER, PORTABLE_PLAN, FileEntry, PortablePlan
from bundle.open import Bundle
from bundle.write import add_plan
from engines.build_report import BuildReport, plan_and_report
from engines.device import Device
from engines.errors import EngineOpenError, PlanError, PlanMissing
from engines.onnx_graph import graph_from_bundle
from engines.protocol import Precision
from engines.signature import graph_inputs
from engines.tensorrt_build import PlanRequest, plan_from_graph, profiles_of
from engines.tensorrt_module import compute_capabilities, version_of

# TensorRT for RTX has no float32 matrix products for Turing, and every graph needs some.
NOT_BUILT_FOR = ("7.5",)
COMMAND = "`python -m export engine {} --runtime tensorrt-rtx`"


def default_capabilities(trt: Any) -> tuple[str, ...]:
    """The GPUs that a plan is built for if none are given: all that can run our graphs."""
    return tuple(c for c in compute_capabilities(trt) if c not in NOT_BUILT_FOR)


def read_portable_plan(
    bundle: Bundle, trt: Any, device: Device, precision: Precision, batch_sizes: tuple[int, ...]
) -> bytes:
    """The plan's bytes, for this device, version and these batch sizes.

    Raises PlanMissing, PlanError, FileError.
    """
    command = COMMAND.format(bundle.path)
    name = PORTABLE_PLAN[precision]
    plan = bundle.manifest.plans.get(name)
    if plan is None:
        raise PlanMissing(f"{bundle.path} has no portable plan {name}; build it with {command}")
    path, version = bundle.file(name), version_of(trt)
    if plan.tensorrt_rtx != version:
        raise PlanError(
            f"{path} was built by TensorRT for RTX {plan.tensorrt_rtx}, and {version} is "
            f"installed; install that version, or build the plan again with {command}"
        )
    capability = f"{device.capability[0]}.{device.capability[1]}"
    if capability not in plan.capabilities:
        known = compute_capabilities(trt)
        fix = (
            f"build it again with --compute-capability {capability}"
            if capability in known and capability not in NOT_BUILT_FOR
            else "use the engine tensorrt"
        )
        raise PlanError(
            f"{path} is for compute capability {', '.join(plan.capabilities)}; {device.name} has "
            f"{capability}, {fix}"
        )
    if missing := sorted(set(batch_sizes) - set(plan.batch_sizes)):
        raise PlanError(
            f"{path} was built for batches of {_joined(plan.batch_sizes)}, not of "
            f"{_joined(missing)}; build it again with those, or use these sizes"
        )
    return bundle.read(name)


def write_portable_plan(
    bundle: Bundle,
    trt: Any,
    precision: Precision,
    batch_sizes: tuple[int, ...],
    capabilities: tuple[str, ...],
    with_report: bool = False,
) -> tuple[PortablePlan, BuildReport | None]:
    """Builds a plan for GPUs of these compute capabilities and adds it to the bundle.

    Raises EngineOpenError, BundleError.
    """
    graph, name = LABELLER[precision], PORTABLE_PLAN[precision]
    request = PlanRequest(
        graph=graph_from_bundle(bundle, graph),
        half=precision == "float16",
        profiles=profiles_of(graph_inputs(bundle.manifest), batch_sizes),
        capabilities=capabilities,
    )
    report = None
    if with_report:
        data, report = plan_and_report(trt, request)
    else:
        data = plan_from_graph(trt, request)
    plan = PortablePlan(
        file=FileEntry(sha256=sha256(data).hexdigest(), size=len(data)),
        graph=graph,
        graph_sha256=bundle.manifest.files[graph].sha256,
        precision=precision,
        batch_sizes=list(batch_sizes),
        capabilities=list(capabilities),
        tensorrt_rtx=version_of(trt),
    )
    try:
        add_plan(bundle.path, name, data, plan)
    except OSError as error:
        raise EngineOpenError(
            f"{bundle.path} cannot be written ({error.strerror}); copy the bundle to a folder that "
            "can"
        ) from error
    return plan, report


def _joined(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))
