"""Decoded samples: `Chunk`, what one message brought, and `Batch`, what the caller gets.

Enter: SampleBatches from the wire. Leave: batches of exactly the size that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmint.codec import Array, array_from_tensor, name_from_output
from labelmint.errors import MalformedMessage
from labelmint.latents import UInt64s
from labelmint.v1 import label_service_pb2 as pb


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Labelled samples in ascending order of their indices; arrays are read-only.

    An output that was not asked for, or that the model does not have, is None. H and W are
    the image's extents for images, the label grid's for the rest. With group_views every n
    is [objects, views].
    """

    images: Array | None  # uint8 [n, H, W, 3], RGB
    masks: Array | None  # uint8 [n, H, W], class ids
    keypoints: Array | None  # float32 [n, K, 3]: x, y in label pixels (centres at +0.5), confidence
    depth: Array | None  # float16 [n, H, W], in the unit the head was trained in
    uncertainty: Array | None  # float32 [n], in nats for segmentation heads
    uncertainty_map: Array | None  # float16 [n, H, W]
    w: Array | None  # float32 [n, num_ws, w_dim], after truncation
    indices: UInt64s  # [n], raw: before the filter
    next_index: int  # start_index that continues the stream right after this batch
    discarded: int  # samples that the filter dropped since the previous batch
    bundle_id: str  # what made the samples
    views: Array | None = None  # int32 [n]: code of the view bank; -1: the object's own view
    cameras: Array | None = None  # float32 [n, 4], in the order of model.Camera; NaN: not known

    def __len__(self) -> int:
        """Number of samples, or of objects when they are grouped."""
        return len(self.indices)

    def __repr__(self) -> str:
        """Arrays by type and shape, not by what is in them."""
        words = [
            f"{name}={value.dtype}{list(value.shape)}"
            if isinstance(value, np.ndarray)
            else f"{name}={value!r}"
            for name, value in vars(self).items()
            if value is not None
        ]
        return f"Batch({', '.join(words)})"


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
}


@dataclass(frozen=True, eq=False)
class Chunk:
    """The samples of one message, or a run of them."""

    indices: UInt64s  # [n]
    arrays: dict[str, Array]  # field of Batch: [n, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, start: int, stop: int) -> Chunk:
        """A view of some samples."""
        arrays = {name: array[start:stop] for name, array in self.arrays.items()}
        return Chunk(self.indices[start:stop], arrays)

    def where(self, mask: npt.NDArray[np.bool_]) -> Chunk:
        """The marked samples; copied only when some are not."""
        if mask.all():
            return self
        arrays = {name: array[mask] for name, array in self.arrays.items()}
        return Chunk(self.indices[mask], arrays)


def chunk_from_proto(message: pb.SampleBatch) -> Chunk:
    """Decodes and checks a message's samples; raises MalformedMessage."""
    indices = np.array(message.indices, np.uint64)
    if np.any(indices[1:] <= indices[:-1]):
        raise MalformedMessage(f"sample indices {indices.tolist()[:8]}... do not ascend")
    arrays: dict[str, Array] = {}
    for tensor in message.tensors:
        array = array_from_tensor(tensor)
        try:
            field = FIELDS[name_from_output(tensor.output)]
        except ValueError as error:
            raise MalformedMessage(str(error)) from error
        if len(array) != len(indices) or field in arrays:
            raise MalformedMessage(
                f"{field} has {len(array)} samples; the message has {len(indices)} indices, "
                "and each output once"
            )
        arrays[field] = array
    return Chunk(indices, arrays)


def batch_from_chunks(
    chunks: Sequence[Chunk],
    next_index: int,
    discarded: int,
    bundle_id: str,
) -> Batch:
    """Joins runs of samples, already in order; a single run is not copied."""
    filled = [chunk for chunk in chunks if len(chunk)] or list(chunks[:1])
    shapes = [
        {name: (array.dtype, array.shape[1:]) for name, array in chunk.arrays.items()}
        for chunk in filled
    ]
    if any(shape != shapes[0] for shape in shapes):
        raise MalformedMessage(f"outputs changed within a stream: {shapes[0]}, then another")
    if not filled:
        filled = [Chunk(np.empty(0, np.uint64), {})]
    arrays = {name: _joined([chunk.arrays[name] for chunk in filled]) for name in filled[0].arrays}
    return Batch(
        **{field: arrays.get(field) for field in FIELDS.values()},
        indices=_joined([chunk.indices for chunk in filled]),
        next_index=next_index,
        discarded=discarded,
        bundle_id=bundle_id,
    )


def _joined(arrays: Sequence[Array]) -> Array:
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    joined.flags.writeable = False
    return joined
