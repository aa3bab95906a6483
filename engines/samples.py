"""Samples of indices without a service: a bundle, options of a stream, indices -> arrays.

Latents, mapping, thresholds and the padding of runs are the service's own, so on the same engine
a row has the bits of the sample that a stream delivers for its index.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.open import open_bundle
from engines.edits import edited, shift_from_query
from engines.errors import BundleLacks, EngineRunError, NotFiniteError, SamplingError
from engines.learned import learned_id_of_query
from engines.open import EngineOptions, open_engine, open_mapping
from engines.proposal import screened
from engines.sampling import view_arrays, ws_from_indices
from engines.sampling_request import (
    can_reject,
    is_weighted,
    max_uncertainty_from_filter,
    options_from_proto,
    proposal_from_filter,
    selection_from_filter,
)
from engines.signature import WEIGHT, W, sample_outputs
from labelmint.batch import INDEX
from labelmint.codec import OUTPUTS, name_from_output, sent_by_default
from labelmint.latents import Mt19937Rows, uint64_from_indices
from labelmint.options import SamplingOptions, StreamOptions, query_from_options

Arrays = dict[str, NDArray[Any]]
# Options of a stream that samples depend on, or that choose among them and their outputs.
TAKEN = (
    *SamplingOptions.__annotations__, "model", "bundle_id", "learned_id", "keep_fraction",
    "max_uncertainty", "where", "max_class_uncertainty", "filter_sets", "balance", "keep_by",
    "proposal", "outputs",
)  # fmt: skip
END_OF_INDICES = 2**64 - 1  # exclusive, as for streams


class BundleSamples:
    """One engine and what it draws from. One thread at a time.

    Attributes:
        bundle_id: bundle that makes the samples.
        columns: names of the arrays, in the order of `Batch.columns`.
        batch_size: rows of a full engine run.
    """

    def __init__(
        self,
        path: Path | str,
        options: StreamOptions,
        engine: EngineOptions | None = None,
        *,
        verify: bool = True,
    ) -> None:
        """Opens bundle, mapping network and engine.

        Args:
            path: folder of the bundle.
            options: those of TAKEN; `model` is a name of a server and not looked at.
            engine: as the server has it. None: ONNX Runtime on the CPU.
            verify: compare every file with the manifest's hash, not its size alone. What is
                loaded is compared in any case.

        Raises:
            TypeError, ValueError: an option is unknown, or is one of streams alone.
            BundleError: the bundle cannot be read; NotCalibrated without the threshold.
            EngineError: SamplingError, BundleLacks for options that do not fit the bundle; or
                the engine cannot be opened.
        """
        proto = query_from_options(options)
        for name, value in options.items():
            if name not in TAKEN and value is not None:
                raise ValueError(
                    f"option {name!r} is of streams alone; indices are given with each call: leave "
                    "it out"
                )
        bundle = open_bundle(path, verify=verify)
        self.bundle_id = bundle.manifest.bundle_id
        if proto.bundle_id not in ("", self.bundle_id):
            raise SamplingError(
                f"bundle_id is {proto.bundle_id}, {path} has {self.bundle_id}; give the folder of "
                "that bundle, or leave bundle_id out"
            )
        self._options = options_from_proto(proto.sampling, bundle)
        self._limit = max_uncertainty_from_filter(proto.filter, bundle, self._options)
        self._selection = selection_from_filter(proto.filter, bundle, self._options)
        self._proposal = proposal_from_filter(proto.filter, bundle, self._options)
        self._shift = shift_from_query(proto, bundle, self._options)
        learned_id_of_query(proto, bundle, self._options)  # refuses another one
        sets = can_reject(proto.filter) and proto.filter.filter_sets
        self._unit = self._options.views_per_object if sets else 1  # kept or dropped together
        specs = sample_outputs(bundle.manifest, bundle.views)
        wanted = [name_from_output(output) for output in proto.outputs]
        missing = [name for name in wanted if name not in specs]
        if missing:
            raise BundleLacks(
                f"outputs has {missing[0]}, which this bundle lacks; it has {', '.join(specs)}"
            )
        of_bank = self._options.view_mode != "drawn"
        weighted = is_weighted(proto.filter)
        wanted = wanted or [name for name in specs if sent_by_default(name, of_bank, weighted)]
        self._specs = {name: specs[name] for name in OUTPUTS if name in wanted}
        self.columns = (INDEX, *self._specs)
        self._bundle, engine = bundle, engine or EngineOptions()
        self._sequence: Mt19937Rows | None = None
        if self._options.latent_source == "mt19937":
            generator = bundle.manifest.generator
            self._sequence = Mt19937Rows(self._options.seed, generator.z_dim)
        self._mapping = open_mapping(bundle, engine)
        self._engine = open_engine(bundle, engine)
        self.batch_size = self._engine.batch_sizes[-1]

    def of_indices(self, indices: Sequence[int] | NDArray[Any]) -> Arrays:
        """The samples of these indices that the filter keeps, in the order of the indices.

        With filter_sets the other views of their objects are computed too, and decide.

        Args:
            indices: raw indices, integers [n], in any order.

        Returns:
            By column, [kept, ...] each.

        Raises:
            ValueError: indices are no such integers.
            EngineError: SamplingError for an index beyond the last one; EngineRunError for a run
                that failed or a sample whose score or content is not finite.
        """
        asked = uint64_from_indices(indices)
        end = END_OF_INDICES // self._unit * self._unit
        if len(asked) and int(asked.max()) >= end:
            raise SamplingError(f"index is {asked.max()}; it must be under {end}")
        unit = np.uint64(self._unit)
        objects = np.unique(asked // unit)
        views = np.arange(self._unit, dtype=np.uint64)
        computed: NDArray[np.uint64] = (objects[:, None] * unit + views).reshape(-1)
        passed, arrays = self._computed(computed)
        whole = np.bincount(passed // self._unit, minlength=len(objects)) == self._unit  # [objects]
        row = np.full(len(computed), -1, np.intp)  # of the arrays, by place in `computed`
        row[passed] = np.where(whole[passed // self._unit], np.arange(len(passed)), -1)
        rows = row[np.searchsorted(computed, asked)]
        kept = rows >= 0
        picked = {name: array[rows[kept]] for name, array in arrays.items()}
        return {INDEX: asked[kept], **picked}

    def close(self) -> None:
        """Frees the engine; idempotent."""
        self._engine.close()

    def _computed(self, indices: NDArray[np.uint64]) -> tuple[NDArray[np.intp], Arrays]:
        """Places of the indices that are generated and pass the filter, ascending, and their
        arrays."""
        places, chances = np.arange(len(indices)), np.ones(len(indices), np.float32)
        if self._proposal is not None:
            generator = self._bundle.manifest.generator
            result = screened(self._mapping, generator, self._options, self._proposal, indices)
            places, chances = np.flatnonzero(result.chosen), result.weights
        passed = [np.empty(0, np.intp)]
        parts: list[Arrays] = [
            {name: np.empty((0, *spec.extents), spec.dtype) for name, spec in self._specs.items()}
        ]
        for start in range(0, len(places), self.batch_size):
            chunk = places[start : start + self.batch_size]
            sample, arrays = self._run(indices[chunk], chances[chunk])
            passed.append(chunk[sample])
            parts.append(arrays)
        joined = {name: np.concatenate([part[name] for part in parts]) for name in self._specs}
        return np.concatenate(passed), joined

    def _run(
        self, indices: NDArray[np.uint64], weights: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], Arrays]:
        """The samples of one batch that pass, and their arrays; weights are those of a proposal."""
        bundle, options = self._bundle, self._options
        ws = ws_from_indices(
            self._mapping, bundle.manifest.generator, options, indices, self._sequence, bundle.views
        )
        ws = edited(ws, self._shift)
        limits = np.full(len(ws), self._limit, np.float32)
        boxes = None
        if self._selection is not None:
            boxes = self._selection.boxes(options.seed, indices)
        names = tuple(name for name in self._engine.outputs if name in self._specs)
        try:
            result = self._engine.run(ws, limits, names, boxes)
        except NotFiniteError as error:
            index = indices[min(error.rows, default=0)]
            raise EngineRunError(
                f"the {error.output} of index {index} is not finite, the model fails at this "
                "sample; leave it out"
            ) from error
        if self._selection is not None and result.content is not None:
            weights = weights * self._selection.weights(result.content)
        sampled = {W: ws, WEIGHT: weights, **view_arrays(options, indices, bundle.views)}
        arrays: Arrays = {
            name: result.arrays[name] if name in names else sampled[name][result.sample]
            for name in self._specs
        }
        return result.sample, arrays
