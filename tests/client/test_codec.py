"""Codec: what goes in comes out, and hostile bytes raise one error without using memory."""

import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelmint import codec
from labelmint.errors import MalformedMessage
from labelmint.v1 import label_service_pb2 as pb

LOSSLESS = (pb.CODEC_UNSPECIFIED, pb.CODEC_RAW, pb.CODEC_ZSTD)
DTYPES = [np.dtype(name) for name in ("u1", "<f2", "<f4", "<i4", ">f4", ">i4")]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.tuples(st.integers(0, 4), st.lists(st.integers(1, 5), max_size=3)).map(
            lambda extents: (extents[0], *extents[1])
        ),
    )
)


def photo(count: int = 2, height: int = 20, width: int = 30) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack([rows * 4, columns * 3, rows + columns], axis=-1)
    return np.stack([smooth + 10 * number for number in range(count)]).astype(np.uint8)


def zstd(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


@given(ARRAYS, st.sampled_from(LOSSLESS))
def test_lossless_codecs_return_the_same_elements(array: codec.Array, packing: pb.Codec) -> None:
    tensor = codec.tensor_from_array(array, codec=packing)
    decoded = codec.array_from_tensor(pb.Tensor.FromString(tensor.SerializeToString()))
    assert decoded.shape == array.shape
    assert decoded.dtype == array.dtype.newbyteorder("<")
    assert decoded.tobytes() == array.astype(decoded.dtype).tobytes()
    assert not decoded.flags.writeable


@given(ARRAYS)
def test_zstd_never_takes_more_than_raw(array: codec.Array) -> None:
    tensor = codec.tensor_from_array(array, codec=pb.CODEC_ZSTD)
    assert len(tensor.data) <= array.nbytes


@pytest.mark.parametrize("packing", [pb.CODEC_RAW, pb.CODEC_ZSTD])
@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::2], np.s_[..., 1:]])
def test_any_memory_order_is_packed_as_c_order(view: Any, packing: pb.Codec) -> None:
    array = (np.arange(600, dtype=np.int32) // 200).reshape(10, 12, 5)[view]
    for ordered in (array, np.asfortranarray(array)):
        tensor = codec.tensor_from_array(ordered, codec=packing)
        assert tensor.codec == packing
        assert (codec.array_from_tensor(tensor) == array).all()


def test_raw_arrays_are_not_copied_beyond_protobufs_own_bytes() -> None:
    packed = codec.tensor_from_array(np.zeros((4, 1 << 20), np.uint8))
    tracemalloc.start()
    try:
        decoded = codec.array_from_tensor(packed)
        assert tracemalloc.get_traced_memory()[1] < decoded.nbytes + (1 << 16)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("quality", [60, 90, 100])
def test_jpeg_round_trips_images_closely(quality: int) -> None:
    pytest.importorskip("simplejpeg")
    images = photo()
    tensor = codec.tensor_from_array(images, pb.OUTPUT_IMAGE, pb.CODEC_JPEG, quality)
    decoded = codec.array_from_tensor(tensor)
    assert tensor.codec == pb.CODEC_JPEG
    assert len(tensor.offsets) == 3
    assert decoded.shape == images.shape
    assert np.abs(decoded.astype(int) - images).mean() < 6
    assert not decoded.flags.writeable


@pytest.mark.parametrize("extent", [(1, 1), (17, 33), (64, 64)])
def test_no_jpeg_exceeds_its_bound(extent: tuple[int, int]) -> None:
    pytest.importorskip("simplejpeg")
    noise = np.random.default_rng(0).integers(0, 256, (2, *extent, 3), np.uint8)
    tensor = codec.tensor_from_array(noise, pb.OUTPUT_IMAGE, pb.CODEC_JPEG, 100)
    bound = codec.max_packed_bytes_per_sample(pb.OUTPUT_IMAGE, (*extent, 3), pb.CODEC_JPEG)
    assert len(tensor.data) <= 2 * bound


@pytest.mark.parametrize("spec", codec.OUTPUTS.values(), ids=codec.OUTPUTS)
def test_the_table_agrees_with_itself_and_the_wire(spec: codec.OutputSpec) -> None:
    shape = (2, 4, 3, 3)[: 1 + spec.sample_rank]
    array = np.ones(shape, spec.dtype)
    tensor = codec.tensor_from_array(array, spec.output)
    assert codec.array_from_tensor(tensor).dtype == spec.dtype
    assert codec.output_from_name(spec.name) == spec.output
    assert codec.name_from_output(spec.output) == spec.name
    per_sample = codec.raw_bytes_per_sample(spec.output, shape[1:])
    assert 2 * per_sample == len(tensor.data)
    assert codec.max_packed_bytes_per_sample(spec.output, shape[1:], pb.CODEC_ZSTD) == per_sample
    assert pb.Output.Name(spec.output) == f"OUTPUT_{spec.name.upper()}"


def test_every_output_and_codec_of_the_proto_has_a_name() -> None:
    assert len(codec.OUTPUTS) == len(pb.Output.values()) - 1
    assert len(codec.CODECS) == len(pb.Codec.values()) - 1


def tensor(**changes: Any) -> pb.Tensor:
    """A valid [2, 3] float32 tensor, changed."""
    fields: dict[str, Any] = {
        "dtype": pb.DATA_TYPE_FLOAT32,
        "shape": [2, 3],
        "codec": pb.CODEC_RAW,
        "data": bytes(24),
    }
    return pb.Tensor(**{**fields, **changes})


HUGE = [2**32 - 1] * 3
HOSTILE = {
    "no dtype": tensor(dtype=pb.DATA_TYPE_UNSPECIFIED),
    "unknown dtype": tensor(dtype=99),
    "unknown codec": tensor(codec=99),
    "unknown output": tensor(output=99),
    "no shape": tensor(shape=[]),
    "rank too high": tensor(shape=[1, 1, 2, 3, 1]),
    "zero extent": tensor(shape=[2, 0], data=b""),
    "short": tensor(data=bytes(23)),
    "long": tensor(data=bytes(25)),
    "empty": tensor(data=b""),
    "huge shape": tensor(shape=HUGE),
    "huge shape, no samples": tensor(shape=[0, *HUGE], data=b""),
    "offsets on raw": tensor(offsets=[0, 24]),
    "wrong rank for output": tensor(output=pb.OUTPUT_MASK),
    "wrong dtype for output": tensor(output=pb.OUTPUT_DEPTH, shape=[1, 2, 3]),
    "image of four channels": tensor(
        output=pb.OUTPUT_IMAGE, dtype=pb.DATA_TYPE_UINT8, shape=[1, 2, 3, 4]
    ),
    "camera of three numbers": tensor(output=pb.OUTPUT_CAMERA, shape=[2, 3]),
    "not a frame": tensor(codec=pb.CODEC_ZSTD),
    "no frame": tensor(codec=pb.CODEC_ZSTD, data=b""),
    "frame of other size": tensor(codec=pb.CODEC_ZSTD, data=zstd(bytes(25))),
    "frame of unstated other size": tensor(
        codec=pb.CODEC_ZSTD, data=zstd(bytes(25), write_content_size=False)
    ),
    "frame of unstated smaller size": tensor(
        codec=pb.CODEC_ZSTD, data=zstd(bytes(23), write_content_size=False)
    ),
    "two frames": tensor(codec=pb.CODEC_ZSTD, data=zstd(bytes(24)) + zstd(bytes(24))),
    "truncated frame": tensor(codec=pb.CODEC_ZSTD, data=zstd(bytes(24))[:-1]),
    "zstd bomb": tensor(codec=pb.CODEC_ZSTD, data=zstd(bytes(64 << 20))),
    "unstated zstd bomb": tensor(
        codec=pb.CODEC_ZSTD, data=zstd(bytes(64 << 20), write_content_size=False)
    ),
    "bomb that fits its shape": tensor(
        codec=pb.CODEC_ZSTD, shape=[1 << 26], data=zstd(bytes(64 << 20))
    ),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tensors_raise_one_error_and_take_no_memory(hostile: pb.Tensor) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            codec.array_from_tensor(hostile, max_bytes=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_frames_need_not_state_their_size() -> None:
    plain = tensor(codec=pb.CODEC_ZSTD, data=zstd(bytes(24), write_content_size=False))
    assert codec.array_from_tensor(plain).tolist() == [[0.0] * 3] * 2


def jpeg_tensor(**changes: Any) -> pb.Tensor:
    packed = codec.tensor_from_array(photo(), pb.OUTPUT_IMAGE, pb.CODEC_JPEG)
    for name, value in changes.items():
        if name == "offsets":
            value = [len(packed.data) if each == "end" else each for each in value]
        packed.ClearField(name)
        packed.MergeFrom(pb.Tensor(**{name: value}))
    return packed


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": []},
        {"offsets": [0]},
        {"offsets": [0, 10]},
        {"offsets": [0, 0, 10]},
        {"offsets": [0, 0, "end"]},
        {"offsets": [0, "end", "end"]},
        {"offsets": [0, 2**32 - 1, "end"]},
        {"offsets": [1, 400, "end"]},
        {"offsets": [2**32 - 1] * 3},
        {"data": b""},
        {"data": bytes(600)},
        {"shape": [2, 20, 31, 3]},
        {"shape": [2, 30, 20, 3]},
        {"shape": [2, 65535, 65535, 3]},
        {"shape": [1, 20, 30, 3]},
        {"shape": [2, 20, 30]},
        {"dtype": pb.DATA_TYPE_INT32},
        {"output": pb.OUTPUT_MASK},
    ],
    ids=str,
)
def test_hostile_jpegs_raise_the_same_error(changes: dict[str, Any]) -> None:
    pytest.importorskip("simplejpeg")
    with pytest.raises(MalformedMessage):
        codec.array_from_tensor(jpeg_tensor(**changes))


@given(st.data())
def test_damaged_tensors_decode_or_raise_that_error(data: st.DataObject) -> None:
    array = photo(1) if data.draw(st.booleans()) else np.zeros((2, 50), np.int32)
    codecs = [pb.CODEC_ZSTD, pb.CODEC_RAW]
    if array.ndim == 4 and pytest.importorskip("simplejpeg"):
        codecs.append(pb.CODEC_JPEG)
    packed = codec.tensor_from_array(array, codec=data.draw(st.sampled_from(codecs)))
    damaged = bytearray(packed.data)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    packed.data = bytes(damaged)
    with suppress(MalformedMessage):
        assert codec.array_from_tensor(packed).shape == array.shape


@pytest.mark.parametrize(
    ("array", "output", "packing", "word"),
    [
        (np.zeros((1, 2), np.float64), pb.OUTPUT_UNSPECIFIED, pb.CODEC_RAW, "float64"),
        (np.zeros((1, 2, 2), np.float32), pb.OUTPUT_DEPTH, pb.CODEC_RAW, "float16"),
        (np.zeros((1, 2, 2), np.uint8), pb.OUTPUT_MASK, pb.CODEC_JPEG, "RAW or ZSTD"),
        (np.zeros((1, 2, 2, 3), np.uint8), pb.OUTPUT_IMAGE, 9, "codec 9"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_when_packing(
    array: codec.Array, output: pb.Output, packing: pb.Codec, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        codec.tensor_from_array(array, output, packing)
