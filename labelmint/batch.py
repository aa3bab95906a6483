"""Decoded samples: `KeptSamples`, the samples of one message, and `Batch`, what the caller gets.

Enter: pb.SampleBatches from the wire. Leave: batches, joined from the samples of messages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmint.codec import (
    MAX_DECODED_BYTES,
    Array,
    array_from_tensor,
    name_from_output,
)
from labelmint.errors import MalformedMessage
from labelmint.latents import UInt64s
from labelmint.v1 import label_service_pb2 as pb


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Labeled samples in ascending order of their indices; arrays are read-only.

    An output that was not requested, or that the model does not have, is None. H and W are the
    height and width of the image for images, of the label grid for everything else. With
    group_views every n is [objects, views].
    """

    images: Array | None  # uint8 [n, H, W, 3], RGB
    masks: Array | None  # uint8 [n, H, W], class ids
    keypoints: Array | None  # float32 [n, K, 3]: x, y in label pixels (centers at +0.5), confidence
    depth: Array | None  # float16 [n, H, W], in the units the head was trained in
    # float32 [n]: mean of the map's largest values; Model.score_words has its unit and range
    uncertainty: Array | None
    uncertainty_map: Array | None  # float16 [n, H, W], by Model.score_measure
    w: Array | None  # float32 [n, num_ws, w_dim], after truncation
    indices: UInt64s  # uint64 [n], raw: counted before the filter
    next_index: int  # start_index that resumes the stream right after this batch
    discarded: int  # number of samples rejected since the previous batch
    bundle_id: str  # bundle that made the samples
    views: Array | None = None  # int32 [n]: code of the view bank; -1: the object's own view
    cameras: Array | None = None  # float32 [n, 4], fields of model.Camera; NaN: unknown
    weights: Array | None = None  # float32 [n], over 0, about 1 in the mean; see docs/streams.md
    edits: dict[str, float] | None = None  # strengths by direction that w has; None: plain samples
    # Of the proposal, directions and calibration that the stream depends on; None: on none.
    learned_id: str | None = None

    def __len__(self) -> int:
        """Number of samples; with group_views, of objects."""
        return len(self.indices)

    def columns(self) -> dict[str, Array]:
        """The arrays by column: "index", and the batch's outputs by their names in requests.

        Their dtypes and the shapes of one sample are those of `Model.schema`.
        """
        outputs = {name: getattr(self, field) for name, field in FIELDS.items()}
        given = {name: array for name, array in outputs.items() if array is not None}
        return {INDEX: self.indices, **given}

    def __repr__(self) -> str:
        """The dtype and shape of each array, and the other fields."""
        words = [
            f"{name}={value.dtype}{list(value.shape)}"
            if isinstance(value, np.ndarray)
            else f"{name}={value!r}"
            for name, value in vars(self).items()
            if value is not None
        ]
        return f"Batch({', '.join(words)})"


INDEX = "index"  # column of the raw indices, beside those of the outputs
FIELDS = {  # output name: field of Batch
    "image": "images",
    "mask": "masks",
    "keypoints": "keypoints",
    "depth": "depth",
    "uncertainty": "uncertainty",
    "uncertainty_map": "uncertainty_map",
    "w": "w",
    "view": "views",
    "camera": "cameras",
    "weight": "weights",
}


@dataclass(frozen=True, eq=False)
class KeptSamples:
    """Samples that passed the server's filter: those of one message, or a run of them."""

    indices: UInt64s  # [n], raw, ascending
    arrays: dict[str, Array]  # by field of Batch, each [n, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, start: int, stop: int) -> KeptSamples:
        """The samples [start, stop), as views of the arrays."""
        arrays = {name: array[start:stop] for name, array in self.arrays.items()}
        return KeptSamples(self.indices[start:stop], arrays)

    def where(self, mask: npt.NDArray[np.bool_]) -> KeptSamples:
        """The samples where the mask, [n], is true; copied unless it is true everywhere."""
        if mask.all():
            return self
        arrays = {name: array[mask] for name, array in self.arrays.items()}
        return KeptSamples(self.indices[mask], arrays)


def kept_from_proto(
    proto: pb.SampleBatch,
    codecs: Collection[pb.Codec] = (),
    max_bytes: int = MAX_DECODED_BYTES,
) -> KeptSamples:
    """Decodes and checks the samples of one message.

    Args:
        proto: the message.
        codecs: accepted ones beside RAW. Empty: ZSTD.
        max_bytes: limit of all its arrays together.

    Raises:
        MalformedMessage: the arrays do not fit the indices, the codecs or max_bytes.
        MissingExtra: a codec is not installed.
    """
    samples = len(proto.indices)
    if samples and not proto.tensors:
        raise MalformedMessage(f"the message has {samples} indices and no outputs")
    fields: list[str] = []
    for tensor in proto.tensors:  # before the first one takes memory
        try:
            field = FIELDS[name_from_output(tensor.output)]
        except ValueError as error:
            raise MalformedMessage(str(error)) from error
        rows = tensor.shape[0] if tensor.shape else 0
        if rows != samples or field in fields:
            raise MalformedMessage(
                f"{field} has {rows} samples; the message has {samples} indices, and must have "
                "each output once"
            )
        if tensor.codec not in (*(codecs or (pb.CODEC_ZSTD,)), pb.CODEC_RAW, pb.CODEC_UNSPECIFIED):
            raise MalformedMessage(f"{field} has codec {tensor.codec}, which was not accepted")
        fields.append(field)
    indices = np.array(proto.indices, np.uint64)
    if np.any(indices[1:] <= indices[:-1]):
        raise MalformedMessage(f"sample indices {indices.tolist()[:8]}... do not ascend")
    arrays: dict[str, Array] = {}
    left_bytes = max_bytes
    for field, tensor in zip(fields, proto.tensors, strict=True):
        arrays[field] = array_from_tensor(tensor, left_bytes)
        left_bytes -= arrays[field].nbytes
    return KeptSamples(indices, arrays)


def batch_from_kept(
    samples: Sequence[KeptSamples],
    next_index: int,
    discarded: int,
    bundle_id: str,
    learned_id: str = "",
    edits: Iterable[pb.Edit] = (),
) -> Batch:
    """Joins runs of samples, already in index order; a single run is not copied.

    `edits` are those of the query, which the server said that it applied.

    Raises MalformedMessage when they have different outputs, dtypes or extents.
    """
    runs = [kept for kept in samples if len(kept)] or list(samples[:1])
    layouts = [
        {name: (array.dtype, array.shape[1:]) for name, array in kept.arrays.items()}
        for kept in runs
    ]
    for layout in layouts:
        if layout != layouts[0]:
            raise MalformedMessage(
                f"outputs changed within a stream, from {layouts[0]} to {layout}"
            )
    if not runs:
        runs = [KeptSamples(np.empty(0, np.uint64), {})]
    arrays = {name: _joined([kept.arrays[name] for kept in runs]) for name in runs[0].arrays}
    return Batch(
        **{field: arrays.get(field) for field in FIELDS.values()},
        indices=_joined([kept.indices for kept in runs]),
        next_index=next_index,
        discarded=discarded,
        bundle_id=bundle_id,
        edits={edit.direction: edit.strength for edit in edits} or None,
        learned_id=learned_id or None,
    )


def _joined(arrays: Sequence[Array]) -> Array:
    """One read-only array; a single one is returned as it is."""
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    joined.flags.writeable = False
    return joined
