"""ONNX Runtime on the CPU: the reference runtime, and the one of the demo and the tests."""

import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bundle.manifest import LABELLER, MAPPING, Manifest
from bundle.open import Bundle
from engines.errors import EngineOpenError, EngineRunError
from engines.protocol import EngineResult
from engines.request import check_batch_sizes, check_request, padded_feed
from engines.result import result_from_arrays
from engines.signature import (
    KEPT,
    SAMPLE,
    UNCERTAINTY,
    ArraySpec,
    graph_inputs,
    graph_outputs,
    labeller_outputs,
    mapping_inputs,
)

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def available_cores(cpu_max: Path = CPU_MAX) -> int:
    """Cores of the affinity mask, or fewer where a container's quota allows fewer.

    A runtime that starts a thread per core of the node is throttled as soon as it works.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup, or "max": no quota
        return cores


_DTYPES = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int32)": np.dtype(np.int32),
}


class OrtEngine:
    """Runs the labeller on the CPU. One thread at a time."""

    def __init__(
        self,
        bundle: Bundle,
        precision: Literal["float32", "float16"] = "float32",
        batch_sizes: tuple[int, ...] = (),
        threads: int = 0,
    ) -> None:
        """Raises EngineOpenError, FileError."""
        self._manifest = bundle.manifest
        self._specs = labeller_outputs(bundle.manifest)
        self._batch_sizes = batch_sizes or default_batch_sizes(bundle.manifest)
        check_batch_sizes(self._batch_sizes)
        path = bundle.file(LABELLER[precision])
        size = only_size(self._batch_sizes)
        self._session: ort.InferenceSession | None = open_session(path, threads, size)
        self._score = (UNCERTAINTY,) if UNCERTAINTY in self._specs else ()
        _check_nodes(path, "input", graph_inputs(bundle.manifest), self._session.get_inputs(), size)
        _check_nodes(
            path, "output", graph_outputs(bundle.manifest), self._session.get_outputs(), size
        )

    @property
    def name(self) -> str:
        return "onnxruntime-cpu"

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return self._batch_sizes

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
    ) -> EngineResult:
        """As the protocol says. Raises EngineRunError, NotFiniteError."""
        check_request(self._manifest, self, ws, max_uncertainty, outputs)
        if self._session is None:
            raise EngineRunError("the engine is closed")
        feed = padded_feed(self._batch_sizes, ws, max_uncertainty)
        names = tuple(dict.fromkeys([*outputs, *self._score, SAMPLE, KEPT]))
        raw = run_session(self._session, names, feed)
        return result_from_arrays(raw, len(ws), max_uncertainty, outputs)

    def close(self) -> None:
        self._session = None


class OrtMapping:
    """Runs the mapping network on the CPU, always on the same number of rows, so that a row's
    bits do not depend on how many others come with it. Safe for several threads at once."""

    ROWS = 8

    def __init__(self, bundle: Bundle) -> None:
        """Raises EngineOpenError, FileError."""
        generator = bundle.manifest.generator
        path = bundle.file(MAPPING)
        # One thread: a few rows gain nothing from more, and would wait for the engine's.
        self._session = open_session(path, threads=1, batch=self.ROWS)
        self._w_dim = generator.w_dim
        outputs = {"w": ArraySpec(np.dtype(np.float32), (generator.w_dim,))}
        _check_nodes(
            path, "input", mapping_inputs(generator), self._session.get_inputs(), self.ROWS
        )
        _check_nodes(path, "output", outputs, self._session.get_outputs(), self.ROWS)

    def run(self, z: NDArray[np.float32], c: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """As the protocol says."""
        given = {"z": z} if c is None else {"z": z, "c": c}
        w = np.empty((len(z), self._w_dim), np.float32)
        for start in range(0, len(z), self.ROWS):
            rows = min(self.ROWS, len(z) - start)
            feed = {}
            for name, array in given.items():
                feed[name] = np.zeros((self.ROWS, array.shape[1]), np.float32)
                feed[name][:rows] = array[start : start + rows]
            w[start : start + rows] = run_session(self._session, ("w",), feed)["w"][:rows]
        return w


def default_batch_sizes(manifest: Manifest) -> tuple[int, ...]:
    """One size, so that a sample always meets the same kernels.

    Small, because samples of a batch share nothing but the way to the engine and compete for
    the cache: at 64 px on two cores batches of 1, 4, 8 and 16 took 53, 58, 61 and 69 ms of CPU
    per sample.
    """
    return (4,) if manifest.generator.resolution <= 128 else (1,)


def only_size(batch_sizes: tuple[int, ...]) -> int | None:
    """The batch size of every run, where there is only one."""
    return batch_sizes[0] if len(batch_sizes) == 1 else None


def open_session(path: Path, threads: int, batch: int | None) -> ort.InferenceSession:
    """A CPU session on so many threads (0: one per core this process may use).

    With `batch` every run has that many rows: all extents are then known, and the graph is
    optimised further and loads in half the time.

    Raises EngineOpenError when the runtime refuses the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors come as exceptions
    if batch is not None:
        options.add_free_dimension_override_by_name("N", batch)
    # Spinning workers would take the cores from encoding and the network between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no common exception class
        reason = first_line(error)
        raise EngineOpenError(f"{path} cannot be loaded by ONNX Runtime: {reason}") from error


def run_session(
    session: ort.InferenceSession,
    names: tuple[str, ...],
    feed: dict[str, NDArray[np.float32]],
) -> dict[str, NDArray[np.generic]]:
    """The named outputs. Raises EngineRunError."""
    try:
        arrays: list[NDArray[np.generic]] = session.run(list(names), feed)
    except Exception as error:  # the runtime has no common exception class
        raise EngineRunError(f"ONNX Runtime failed: {first_line(error)}") from error
    return dict(zip(names, arrays, strict=True))


def first_line(error: Exception) -> str:
    """What a message begins with; the rest of ONNX Runtime's is about its own sources."""
    return next(iter(str(error).strip().splitlines()), repr(error))


def _check_nodes(
    path: Path,
    role: str,
    specs: dict[str, ArraySpec],
    nodes: list[ort.NodeArg],
    batch: int | None,  # the session's fixed batch, which it reports in place of "N"
) -> None:
    """Raises EngineOpenError unless the graph's inputs or outputs are those of the manifest."""
    found = {node.name: node for node in nodes}
    if found.keys() != specs.keys():
        raise EngineOpenError(
            f"{path} has {role}s {', '.join(sorted(found))}; the manifest needs "
            f"{', '.join(sorted(specs))}"
        )
    for name, spec in specs.items():
        node = found[name]
        expected = [batch or "N", *spec.extents] if spec.batched else []
        fits = len(node.shape) == len(expected) and all(
            isinstance(a, str) or a == b for a, b in zip(node.shape, expected, strict=True)
        )
        if not fits or _DTYPES.get(node.type) != spec.dtype:
            raise EngineOpenError(
                f"{path} has {role} {name} of {node.type} {node.shape}; the manifest needs "
                f"{spec.dtype} {expected}"
            )
