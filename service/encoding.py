"""Messages of kept samples -> the bytes of responses; runs off the event loop."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelmint.codec import CODECS, tensor_from_array
from labelmint.v1 import label_service_pb2 as pb
from service.delivery import KeptSamples, Message
from service.errors import BadRequest
from service.framing import Part, response_parts, size_of, tensor_parts
from service.query import Query, WantedOutput


def bytes_from_message(message: Message, query: Query) -> bytes:
    """A serialized StreamSamplesResponse; GenerateSamplesResponse has the same fields.

    Raises BadRequest when a single sample does not fit into max_message_bytes.
    """
    return b"".join(parts_from_message(message, query))


def parts_from_message(message: Message, query: Query) -> list[Part]:
    """The bytes of bytes_from_message in parts, to be written one after the other."""
    response = pb.StreamSamplesResponse(
        next_index=message.next_index,
        discarded=message.discarded,
        bundle_id=query.bundle_id,
        applied=query.applied,
        learned_id=query.learned_id,
    )
    parts: list[Part] = [response.SerializeToString()]
    if message.kept:
        indices = np.concatenate([kept.indices for kept in message.kept]).tolist()
        tensors = [_tensor_parts(message.kept, output, query) for output in query.outputs]
        parts = response_parts(response, indices, tensors)
    size = size_of(parts)
    if size > query.max_message_bytes:
        raise over_limit(query, size)
    return parts


def over_limit(query: Query, message_bytes: int) -> BadRequest:
    """The refusal of a query of which a single sample does not fit into a message."""
    names = {number: name for name, number in CODECS.items()}
    sizes = ", ".join(f"{o.name} {o.raw_bytes} ({names[o.codec]})" for o in query.outputs)
    return BadRequest(
        f"one sample takes {message_bytes} bytes, max_message_bytes is "
        f"{query.max_message_bytes}; ask for fewer outputs, accept JPEG, or raise "
        f"max_message_bytes; raw bytes of the outputs: {sizes}"
    )


def arrays_from_kept(samples: Sequence[KeptSamples], name: str) -> list[NDArray[np.generic]]:
    """One output of the samples, an array [n, ...] for each item."""
    return [_picked(kept.arrays[name], kept.picks) for kept in samples]


def _tensor_parts(samples: Sequence[KeptSamples], output: WantedOutput, query: Query) -> list[Part]:
    """One output of all samples of a message."""
    arrays = arrays_from_kept(samples, output.name)
    if output.codec != pb.CODEC_RAW:
        array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        tensor = tensor_from_array(array, output.output, output.codec, query.jpeg_quality)
        return [tensor.SerializeToString()]
    tensor = tensor_from_array(arrays[0][:0], output.output)
    tensor.shape[0] = sum(len(array) for array in arrays)
    little_endian = arrays[0].dtype.newbyteorder("<")
    return tensor_parts(tensor, [np.ascontiguousarray(a, little_endian).data for a in arrays])


def _picked(array: NDArray[np.generic], picks: NDArray[np.intp]) -> NDArray[np.generic]:
    """array[picks], without a copy where the picks are consecutive."""
    first, last = int(picks[0]), int(picks[-1])
    if last - first == len(picks) - 1:
        return array[first : last + 1]
    return array[picks]
