"""A plan's bytes -> a deserialized TensorRT engine with the inputs and outputs of its graph."""

from typing import Any

import numpy as np

from engines.device import Device
from engines.errors import EngineOpenError, PlanError, RuntimeMissing
from engines.signature import ArraySpec, ArraySpecs
from engines.tensorrt_module import (
    logger_from_module,
    major_of,
    member,
    product_of,
    version_of,
)

DTYPES: dict[str, np.dtype[np.generic]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT32": np.dtype(np.int32),
    "UINT8": np.dtype(np.uint8),
}
SHARED_PROFILES_FROM = 10  # major version; before it, only one context at a time uses a profile


class TensorRTPlan:
    """An ICudaEngine and its batch sizes.

    From TensorRT 10 on, several contexts may run it at once.
    """

    def __init__(
        self, trt: Any, data: bytes, inputs: ArraySpecs, outputs: ArraySpecs, device: Device
    ) -> None:
        """Raises PlanError, RuntimeMissing, DeviceLost."""
        self.inputs, self.outputs = inputs, outputs
        device.use()
        self.log = logger_from_module(trt)
        self.log.forget()
        # Working memory for the profile that a context is set to, not for the largest one.
        self._strategy = member(trt, "ExecutionContextAllocationStrategy", "ON_PROFILE_CHANGE")
        self.version = version_of(trt)
        self.product = product_of(trt)
        # Whether several contexts may use one profile, and so this plan, at once.
        self.shares_profiles = major_of(trt) >= SHARED_PROFILES_FROM
        try:
            self._runtime = trt.Runtime(self.log)
        except TypeError as error:  # raised by the package when there is no GPU
            raise RuntimeMissing(f"TensorRT cannot start: {self.log.last_error}") from error
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise PlanError(
                f"TensorRT {self.version} on {device.name} refuses the engine: "
                f"{self.log.last_error}; build it again on this machine"
            )
        self._check_tensors()
        self.profiles = self._profiles()

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes that it was built for, ascending."""
        return tuple(sorted(self.profiles))

    def context(self) -> Any:
        """A new IExecutionContext with device memory of its own, which versions from 10 allocate
        when its profile is set. Raises EngineOpenError."""
        self.log.forget()
        strategy = () if self._strategy is None else (self._strategy,)
        context = self._engine.create_execution_context(*strategy)
        if context is None:
            raise EngineOpenError(
                f"TensorRT cannot create an execution context: {self.log.last_error}; use "
                "smaller batches or fewer contexts"
            )
        return context

    def _profiles(self) -> dict[int, int]:
        """Number of the optimization profile for each batch size."""
        profiles = {}
        first = next(iter(self.inputs))
        for index in range(self._engine.num_optimization_profiles):
            least, _, most = (
                tuple(shape) for shape in self._engine.get_tensor_profile_shape(first, index)
            )
            if least != most:
                raise PlanError(
                    f"profile {index} of the engine is for batches of {least[0]} to {most[0]}; "
                    "each profile must be for one batch size: build the engine again"
                )
            profiles[int(least[0])] = index
        return profiles

    def _check_tensors(self) -> None:
        engine = self._engine
        names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        roles = {"INPUT": self.inputs, "OUTPUT": self.outputs}
        expected = {name for specs in roles.values() for name in specs}
        if names != expected:
            raise PlanError(
                f"the engine has tensors {', '.join(sorted(names))}; the bundle needs "
                f"{', '.join(sorted(expected))}"
            )
        for role, specs in roles.items():
            for name, spec in specs.items():
                mode = engine.get_tensor_mode(name).name
                dtype = DTYPES.get(engine.get_tensor_dtype(name).name)
                shape = tuple(engine.get_tensor_shape(name))
                if (mode, dtype) != (role, spec.dtype) or not _may_become(shape, spec):
                    raise PlanError(
                        f"the engine's {name} is {mode.lower()} {dtype} {list(shape)}; the bundle "
                        f"needs {role.lower()} {spec.dtype} {list(shape_of(spec, -1))}"
                    )


def shape_of(spec: ArraySpec, rows: int) -> tuple[int, ...]:
    """Shape of the array in a run of `rows` rows."""
    return (rows, *spec.extents) if spec.batched else spec.extents


def _may_become(shape: tuple[int, ...], spec: ArraySpec) -> bool:
    """Whether a plan's shape fits the spec, where -1 is an extent not known yet.

    The batch axis is -1 until a context sets it, unless the plan is for one batch size alone.
    PlanContexts checks the final shapes.
    """
    wanted = shape_of(spec, -1)
    return len(shape) == len(wanted) and all(
        -1 in (found, needed) or found == needed
        for found, needed in zip(shape, wanted, strict=True)
    )
