"""Parts of a message are counted right, before protobuf sees it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from labelmint.errors import MalformedMessage
from labelmint.v1 import label_service_pb2 as pb
from labelmint.wire.message_parts import MAX_PACKED_BYTES, check_parts
from tests.client.scripted_calls import Server
from tests.client.scripted_service import MODEL, Script

KIND = pb.StreamSamplesResponse.DESCRIPTOR


def honest() -> bytes:
    call = Server(Script(message_samples=(4,))).open_call(pb.SampleQuery()).call
    return next(call).SerializeToString()


def test_honest_messages_have_few_parts() -> None:
    check_parts(honest(), KIND, max_parts=50)
    check_parts(MODEL.SerializeToString(), pb.Model.DESCRIPTOR, max_parts=80)
    check_parts(b"", KIND, max_parts=0)


@given(st.integers(1, 40))
def test_parts_of_inner_messages_count(tensors: int) -> None:
    message = pb.StreamSamplesResponse(next_index=2**64 - 1)
    message.batch.tensors.extend([pb.Tensor(data=b"x", shape=[1, 2])] * tensors)
    data = message.SerializeToString()
    parts = 2 + 3 * tensors
    check_parts(data, KIND, parts)
    with pytest.raises(MalformedMessage, match="over"):
        check_parts(data, KIND, parts - 1)


def test_bytes_and_packed_numbers_are_one_part_of_bounded_length() -> None:
    check_parts(pb.Tensor(data=b"\x2a\x00" * 99_999).SerializeToString(), pb.Tensor.DESCRIPTOR, 1)
    numbers = pb.SampleBatch(indices=range(1 << 10)).SerializeToString()
    check_parts(numbers, pb.SampleBatch.DESCRIPTOR, 1)
    check_parts(packed_indices(MAX_PACKED_BYTES), pb.SampleBatch.DESCRIPTOR)
    for fields in (1, 3):  # protobuf joins the numbers of a field that comes several times
        data = packed_indices(MAX_PACKED_BYTES // fields + 1) * fields
        with pytest.raises(MalformedMessage, match=r"indices makes 83.* bytes of packed numbers"):
            check_parts(data, pb.SampleBatch.DESCRIPTOR)


def packed_indices(size: int) -> bytes:
    """A field of SampleBatch with `size` bytes of numbers."""
    varint = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    return b"\x0a" + varint + bytes(size)


@given(st.data())
def test_what_is_let_through_is_what_protobuf_parses(data: st.DataObject) -> None:
    """Damaged in any way: more is refused than protobuf would, and nothing else raised."""
    damaged = bytearray(honest())
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        check_parts(cut, KIND)
    except MalformedMessage:
        return
    with suppress(DecodeError):  # text that is not UTF-8
        pb.StreamSamplesResponse.FromString(cut)


@given(st.binary(max_size=60))
def test_noise_is_refused_or_let_through(noise: bytes) -> None:
    with suppress(MalformedMessage):
        check_parts(noise, KIND)


def test_texts_have_a_limit_in_total() -> None:
    """A name of 50 MiB was copied four times before it was found to be no model's."""
    query = pb.SampleQuery(model="m" * 600, bundle_id="b" * 424)
    check_parts(query.SerializeToString(), pb.SampleQuery.DESCRIPTOR, max_text_bytes=1024)
    with pytest.raises(MalformedMessage, match=r"1024 bytes of text; the limit is 1023"):
        check_parts(query.SerializeToString(), pb.SampleQuery.DESCRIPTOR, max_text_bytes=1023)
