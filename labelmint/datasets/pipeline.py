"""The pass that fetches samples and hands them to a writer, from a state on to the end."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from tqdm import tqdm

from labelmint.batch import Batch
from labelmint.client import Client
from labelmint.datasets.folder import Commits, State
from labelmint.datasets.request import Request
from labelmint.datasets.samples import Sample, outputs_from_model, samples_from_batch
from labelmint.datasets.writer import Writer
from labelmint.errors import MalformedMessage
from labelmint.latents import UInt64s
from labelmint.model import Model

_BATCH = 16
_MOST_INDICES = 4096  # of one call; servers take 65,536 unless told otherwise
_MOST_THREADS = 8  # that encode pictures


def write_samples(
    client: Client,
    request: Request,
    model: Model,
    chosen: UInt64s | None,
    writer: Writer,
    commits: Commits,
) -> None:
    """Writes what is left; chosen are the raw indices [n] of a filter that ranks, or None.

    Raises:
        LabelmintError: the stream failed; what came before is written.
        OSError: the disk did.
    """

    def prepared(sample: Sample) -> tuple[Sample, dict[int, int], Any]:
        return sample, _pixels(sample), writer.encoded(sample)

    state = commits.state
    batches = closing(_batches(client, request, model, state, chosen))
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    bar = tqdm(
        desc="samples", total=_total(request, state, chosen), initial=state.kept,
        unit=" samples", disable=None, dynamic_ncols=True,
    )  # fmt: skip
    with batches as arriving, pool, bar:
        for batch in arriving:
            for sample, pixels, encoded in pool.map(prepared, samples_from_batch(batch)):
                writer.add(encoded)
                state = dataclasses.replace(
                    state,
                    next_index=sample.index + 1,
                    kept=state.kept + 1,
                    mark=writer.mark(),
                    class_pixels=_sum(state.class_pixels, pixels),
                )
                commits.note(state)
            bar.set_postfix(examined=_examined(request, state), refresh=False)
            bar.update(len(batch))
    if chosen is not None and state.kept != len(chosen):
        raise MalformedMessage(f"{state.kept} samples came of {len(chosen)} that were asked for")
    if request.stop is not None and state.kept != request.limit:
        commits.note(dataclasses.replace(state, next_index=request.stop))


def _batches(
    client: Client,
    request: Request,
    model: Model,
    state: State,
    chosen: UInt64s | None,
) -> Generator[Batch, None, None]:
    options = request.sampling()
    options["model"], options["bundle_id"] = state.model, state.bundle_id
    options["outputs"] = outputs_from_model(model, request)
    if chosen is not None:
        rest = chosen[state.kept :]
        for start in range(0, len(rest), _MOST_INDICES):
            options["indices"] = rest[start : start + _MOST_INDICES]
            yield from client.stream(_BATCH, **options)
    elif state.kept != request.limit and state.next_index != request.stop:
        options["max_uncertainty"] = state.threshold
        options["filter_sets"] = bool(request.filter_sets)
        options["start_index"] = state.next_index
        options["end_index"] = request.stop or 0
        options["count"] = 0 if request.limit is None else request.limit - state.kept
        options["shard_index"] = request.shard_index
        options["num_shards"] = request.num_shards
        yield from client.stream(_BATCH, **options)


def _total(request: Request, state: State, chosen: UInt64s | None) -> int | None:
    """Samples that there will be, where that is known."""
    if chosen is not None:
        return len(chosen)
    if request.stop is None or state.threshold is not None:
        return request.limit
    return request.examined(request.stop)


def _examined(request: Request, state: State) -> str:
    examined = request.examined(state.next_index)
    return str(examined) if request.stop is None else f"{examined}/{request.examined(request.stop)}"


def _pixels(sample: Sample) -> dict[int, int]:
    if sample.mask is None:
        return {}
    counts = np.bincount(sample.mask.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def _sum(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
    return {label: left.get(label, 0) + right.get(label, 0) for label in sorted({*left, *right})}
