"""ONNX Runtime on the CPU: the reference for other runtimes, and what the demo and tests use.

`open_ort_engine` checks a bundle's graph and makes an OrtEngine of it; OrtMapping runs the mapping
network for every runtime. Sessions are opened and run in one place, at the end.
"""

import math
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bundle.manifest import LABELLER, MAPPING, Manifest
from bundle.open import Bundle
from engines.content import CONTENT
from engines.errors import EngineOpenError, EngineRunError
from engines.onnx_graph import OnnxGraph, graph_from_bundle
from engines.protocol import EngineResult, Precision
from engines.request import RunContract, check_batch_sizes
from engines.result import result_from_arrays
from engines.signature import (
    KEPT,
    SAMPLE,
    UNCERTAINTY,
    ArraySpec,
    graph_inputs,
    graph_outputs,
    mapping_inputs,
)

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # CPU quota of this container, by cgroup v2

_DTYPES = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int32)": np.dtype(np.int32),
}


def open_ort_engine(
    bundle: Bundle,
    precision: Precision = "float32",
    batch_sizes: tuple[int, ...] = (),  # empty: default_batch_sizes
    threads: int = 0,  # threads of one run; 0: one per available core
) -> "OrtEngine":
    """An engine for the bundle's labeller graph. Raises EngineOpenError, FileError."""
    manifest, graph = bundle.manifest, graph_from_bundle(bundle, LABELLER[precision])
    batch_sizes = batch_sizes or default_batch_sizes(manifest)
    check_batch_sizes(batch_sizes)
    size = only_size(batch_sizes)
    session = open_session(graph, threads, size)
    _check_nodes(graph.path, "input", graph_inputs(manifest), session.get_inputs(), size)
    _check_nodes(graph.path, "output", graph_outputs(manifest), session.get_outputs(), size)
    return OrtEngine(manifest, session, batch_sizes)


class OrtEngine:
    """Engine protocol over a CPU session. One thread at a time."""

    def __init__(
        self,
        manifest: Manifest,
        session: ort.InferenceSession,
        batch_sizes: tuple[int, ...],
        outputs: tuple[str, ...] | None = None,  # outputs the session has; None: the manifest's
        content: bool = False,  # whether it computes content beside these outputs
    ) -> None:
        """Raises EngineOpenError for batch sizes that are not positive and ascending."""
        self.name = "onnxruntime-cpu"
        self._contract = RunContract(manifest, batch_sizes, outputs, content)
        self.batch_sizes, self.outputs = batch_sizes, self._contract.outputs
        # Outputs that say which rows pass.
        score = (UNCERTAINTY,) if UNCERTAINTY in self.outputs else ()
        self._judged = score if self._contract.boxes is None else (*score, CONTENT)
        self._session: ort.InferenceSession | None = session
        self._run_options = run_options()
        # Without it a run computes the images that nobody asked for, too.
        self._run_options.only_execute_path_to_fetches = True

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
        boxes: NDArray[np.float32] | None = None,
    ) -> EngineResult:
        """See Engine.run. Raises EngineRunError, NotFiniteError."""
        feed = self._contract.feed(ws, max_uncertainty, outputs, boxes)
        assert self._session is not None  # only `close` ends it, and `feed` refuses from then on
        names = tuple(dict.fromkeys([*outputs, *self._judged, SAMPLE, KEPT]))
        raw = run_session(self._session, names, feed, self._run_options)
        return result_from_arrays(raw, feed, len(ws), outputs)

    def stop(self) -> None:
        self._run_options.terminate = True

    def close(self) -> None:
        self._contract.closed = True
        self._session = None


class OrtMapping:
    """Mapping protocol on the CPU. Safe for several threads at once.

    Every run has the same number of rows, so that the bits of a row do not depend on how many
    other rows come with it.
    """

    ROWS = 8

    def __init__(self, bundle: Bundle) -> None:
        """Raises EngineOpenError, FileError."""
        generator = bundle.manifest.generator
        graph = graph_from_bundle(bundle, MAPPING)
        # One thread: more would not speed up a few rows, and would wait for the engine's threads.
        session = open_session(graph, threads=1, batch=self.ROWS)
        self._session: ort.InferenceSession | None = session
        self._run_options = run_options()
        self._w_dim = generator.w_dim
        outputs = {"w": ArraySpec(np.dtype(np.float32), (generator.w_dim,))}
        inputs, nodes = mapping_inputs(generator), session.get_inputs()
        _check_nodes(graph.path, "input", inputs, nodes, self.ROWS)
        _check_nodes(graph.path, "output", outputs, session.get_outputs(), self.ROWS)

    def run(self, z: NDArray[np.float32], c: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """See Mapping.run. Raises EngineRunError."""
        inputs = {"z": z} if c is None else {"z": z, "c": c}
        w = np.empty((len(z), self._w_dim), np.float32)
        for start in range(0, len(z), self.ROWS):
            rows = min(self.ROWS, len(z) - start)
            feed = {}
            for name, array in inputs.items():
                feed[name] = np.zeros((self.ROWS, array.shape[1]), np.float32)
                feed[name][:rows] = array[start : start + rows]
            w[start : start + rows] = self._run(feed)[:rows]
        return w

    def stop(self) -> None:
        self._run_options.terminate = True

    def close(self) -> None:
        self._session = None

    def _run(self, feed: dict[str, NDArray[np.float32]]) -> NDArray[np.generic]:
        assert self._session is not None  # only `close` ends it
        return run_session(self._session, ("w",), feed, self._run_options)["w"]


def available_cores(cpu_max: Path = CPU_MAX) -> int:
    """Number of cores in the affinity mask, or fewer if the container's CPU quota allows fewer.

    Without the quota a runtime would start a thread per core of the node and be throttled.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # only Linux has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup, or "max": no quota
        return cores


def default_batch_sizes(manifest: Manifest) -> tuple[int, ...]:
    """One batch size, so that every sample is computed by the same kernels.

    It is small because samples of one batch compete for the CPU cache: at 64 px on two cores,
    batches of 1, 4, 8 and 16 took 53, 58, 61 and 69 ms of CPU time per sample.
    """
    return (4,) if manifest.generator.resolution <= 128 else (1,)


def only_size(batch_sizes: tuple[int, ...]) -> int | None:
    """The batch size of every run if there is only one, else None."""
    return batch_sizes[0] if len(batch_sizes) == 1 else None


def open_session(graph: OnnxGraph, threads: int, batch: int | None) -> ort.InferenceSession:
    """Opens a CPU session.

    Args:
        graph: the graph, from its bytes: a runtime that gets a path may open other files there.
        threads: threads of one run; 0 takes one per available core.
        batch: rows of every run, or None if they vary. With a fixed batch all extents are known:
            the graph is optimized further and loads in half the time.

    Raises:
        EngineOpenError: the runtime cannot load the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only; they are raised as exceptions anyway
    if batch is not None:
        options.add_free_dimension_override_by_name("N", batch)
    # Workers that spin between two runs would take the cores from encoding and the network.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no common exception class
        reason = first_line(error)
        raise EngineOpenError(f"{graph.path} cannot be loaded by ONNX Runtime: {reason}") from error


def run_options() -> ort.RunOptions:
    """Options of all runs of one owner. Setting `terminate` on another thread ends the run under
    way, also in a Loop without end, and every later one."""
    options = ort.RunOptions()
    options.log_severity_level = 4  # errors are raised as exceptions
    return options


def run_session(
    session: ort.InferenceSession,
    names: tuple[str, ...],
    feed: dict[str, NDArray[np.float32]],
    options: ort.RunOptions,
) -> dict[str, NDArray[np.generic]]:
    """The named outputs of one run. Raises EngineRunError."""
    try:
        arrays: list[NDArray[np.generic]] = session.run(list(names), feed, options)
    except Exception as error:  # the runtime has no common exception class
        raise EngineRunError(f"ONNX Runtime failed: {first_line(error)}") from error
    return dict(zip(names, arrays, strict=True))


def first_line(error: Exception) -> str:
    """First line of an error's message; in ONNX Runtime's messages the rest names its sources."""
    return next(iter(str(error).strip().splitlines()), repr(error))


def _check_nodes(
    path: Path,
    role: str,
    specs: dict[str, ArraySpec],
    nodes: list[ort.NodeArg],
    batch: int | None,  # fixed batch size of the session, which replaces "N" in its shapes
) -> None:
    """Raises EngineOpenError unless the graph has the manifest's inputs or outputs (`role`)."""
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
