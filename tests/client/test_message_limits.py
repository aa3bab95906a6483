"""Messages that are larger than they look: what a server may make the client hold."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import zstandard

from labelmint import Client, codec
from labelmint.batch import kept_from_proto
from labelmint.errors import LabelmintError, MalformedMessage, ServerFault
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.message_parts import MAX_PARTS
from labelmint.wire.shared_memory import SharedMemory
from tests.client.scripted_service import BUNDLE_ID, MODEL, ScriptedService


def bomb(tensors: int, extent: int) -> pb.SampleBatch:
    """One sample of compressed zeros: each tensor takes extent * extent * 4 bytes or fewer."""
    batch = pb.SampleBatch(indices=[0])
    for spec in itertools.islice(codec.OUTPUTS.values(), tensors):
        shape = [1, *((extent, extent, 3) if spec.sample_rank == 3 else (extent, extent))]
        shape = shape[: 1 + spec.sample_rank]
        shape[-1] = {"keypoints": 3}.get(spec.name, shape[-1])
        nbytes = int(np.prod(shape)) * spec.dtype.itemsize
        frame = zstandard.ZstdCompressor(level=1).compress(bytes(nbytes))
        batch.tensors.add(
            output=spec.output, dtype=codec.tensor_from_array(np.empty(1, spec.dtype)).dtype,
            shape=shape, codec=pb.CODEC_ZSTD, data=frame,
        )  # fmt: skip
    return batch


def test_the_tensors_of_a_message_share_one_limit() -> None:
    small = bomb(7, 1024)
    assert small.ByteSize() < 64 << 10
    whole = sum(array.nbytes for array in kept_from_proto(small).arrays.values())
    assert whole > 12 << 20
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage, match="the limit is"):
            kept_from_proto(small, max_bytes=6 << 20)
        assert tracemalloc.get_traced_memory()[1] < 7 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("field", ["shape", "offsets", "indices", "outputs"])
def test_numbers_without_end_are_refused_before_they_are_listed(field: str) -> None:
    batch = bomb(1, 8)
    many = [1] * (1 << 20)
    if field == "indices":
        batch.indices.extend(many)
    elif field == "outputs":
        batch.tensors.extend([pb.Tensor(output=pb.OUTPUT_IMAGE)] * (1 << 16))
    else:
        getattr(batch.tensors[0], field).extend(many)
        batch.tensors[0].codec = pb.CODEC_JPEG if field == "offsets" else pb.CODEC_ZSTD
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            kept_from_proto(batch, [pb.CODEC_JPEG, pb.CODEC_ZSTD])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_answer_of_a_small_call_is_not_large(target: str, service: ScriptedService) -> None:
    service.models = [pb.Model(name="x" * (1 << 20))] * 9
    with Client(target) as client, pytest.raises(LabelmintError, match="larger than max"):
        client.models()


def test_a_message_of_endless_parts_in_shared_memory_is_not_parsed() -> None:
    memory = SharedMemory(1 << 20)
    try:
        part = pb.StreamSamplesResponse(batch=pb.SampleBatch(tensors=[pb.Tensor()]))
        data = part.SerializeToString() * (MAX_PARTS + 1)
        memory._map[: len(data)] = data
        with pytest.raises(MalformedMessage, match="parts"):
            memory.message(0, len(data))
    finally:
        memory.close()


def test_an_answer_of_endless_parts_is_not_parsed(target: str, service: ScriptedService) -> None:
    """Each takes two bytes on the wire, and up to eighty when parsed: 2 GiB from 60 MiB."""
    many = pb.StreamSamplesResponse(bundle_id=BUNDLE_ID)
    many.batch.tensors.extend([pb.Tensor()] * 30_000)
    service.lie = lambda query, honest: iter([many])
    service.models = [pb.Model()] * 300_000
    with Client(target) as client:
        calls = (client.models, lambda: next(client.stream(2)), lambda: client.generate(count=1))
        for call in calls:
            with pytest.raises(ServerFault, match="deserializ"):
                call()
        service.models = [MODEL] * 300  # about as many as a description may have
        assert len(client.models()) == 300


def test_shared_memory_that_holds_no_message_is_malformed() -> None:
    memory = SharedMemory(1 << 12)
    memory._map[:8] = b"\xff" * 8
    with pytest.raises(MalformedMessage, match=r"does not parse|cut off"):
        memory.message(0, 8)
    with pytest.raises(MalformedMessage, match="in a slot of 4096"):
        memory.message(0, 1 << 13)
    memory.close()
