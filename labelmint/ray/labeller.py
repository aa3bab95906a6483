"""Samples of indices in Ray's own workers, without a server: an engine in each actor of a pool.

Enter: batches of a data set whose rows are raw indices, such as `ray.data.range`. Leave: batches
with the columns of `Batch.columns`, without the rows that the filter rejects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from labelmint.errors import MissingExtra
from labelmint.options import StreamOptions

try:
    import ray
except ImportError as error:
    from labelmint.extras import install_from_extra

    raise MissingExtra(f"labelmint.ray needs {error.name}: {install_from_extra('ray')}") from error

if TYPE_CHECKING:
    from typing_extensions import Unpack

Columns = dict[str, npt.NDArray[Any]]


class Labeller:
    """Makes the samples of a bundle for `Dataset.map_batches`, in an actor of Ray.

        ray.data.range(1_000_000).map_batches(
            Labeller,
            fn_constructor_kwargs={"bundle": "/bundles/faces", "seed": 7, "keep_fraction": 0.9},
            batch_size=64, num_cpus=2, compute=ray.data.ActorPoolStrategy(size=8),
        )

    A row has the bits of the sample that a stream with the same options delivers, if the engine
    is the server's. The distribution labelmint-engine has to be installed on every node, and the
    bundle has to be there. Leave a CPU or two of the cluster to the tasks that make the indices:
    Ray waits forever for them if actors have all.
    """

    def __init__(
        self,
        bundle: str,
        *,
        column: str = "id",
        runtime: str = "onnxruntime",
        precision: str | None = None,
        batch_sizes: Sequence[int] = (),
        threads: int | None = None,
        cache: str | None = None,
        **options: Unpack[StreamOptions],
    ) -> None:
        """Opens the engine, on the first GPU that Ray has assigned if the runtime needs one.

        Args:
            bundle: folder of the bundle, on every node.
            column: the input's column of raw indices.
            runtime: engine, as `--engine` of the server.
            precision: "float16" or "float32". None: float16 on a GPU if the bundle has it.
            batch_sizes: rows of engine runs, ascending. Empty: the runtime's default.
            threads: CPU threads of a run. None: the CPUs that Ray has assigned to the actor.
            cache: folder of built TensorRT engines. None: the user's cache.
            options: see `labelmint.options.StreamOptions`; those of the sampling, the filter,
                outputs and bundle_id. What `Client.pin` returns for them fits, too.

        Raises:
            TypeError, ValueError: an option is unknown, or is one of streams alone.
            MissingExtra: labelmint-engine is not installed.
            Exception: labelmint_engine.BundleError or EngineError, in one line.
        """
        try:
            from labelmint_engine import BundleSamples, EngineOptions, GpuOptions
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"Labeller needs {error.name} on every node: pip install './labelmint_engine[cpu]' "
                "in the checkout of labelmint, or [gpu]"
            ) from error
        gpu = GpuOptions(contexts=1) if cache is None else GpuOptions(contexts=1, cache=Path(cache))
        engine = EngineOptions(
            runtime=cast(Any, runtime),
            precision=cast(Any, precision),
            batch_sizes=tuple(batch_sizes),
            threads=_assigned_cpus() if threads is None else threads,
            gpu=gpu,
        )
        self._column = column
        self._samples = BundleSamples(bundle, options, engine)

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> Columns:
        """The samples of a batch's indices that the filter keeps, in their order.

        Raises:
            ValueError: the batch has no such column, or it has no raw indices.
            Exception: labelmint_engine.EngineError.
        """
        if self._column not in batch:
            raise ValueError(
                f"the batch has columns {', '.join(batch)}; give the one of the raw indices as "
                f"column, it is {self._column!r}"
            )
        return self._samples.of_indices(np.asarray(batch[self._column]))


def _assigned_cpus() -> int:
    """Whole CPUs that Ray has assigned to this actor; 1 if it is a part of one, or none."""
    assigned: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
    return max(1, math.floor(assigned.get("CPU", 1)))
