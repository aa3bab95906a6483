"""Encoding of arrays as protobuf Tensors, decoding, and the table of outputs.

Enter: numpy arrays to send, or received Tensors, in which every field is checked. Leave: Tensors,
or read-only arrays. The service encodes with this module and the client decodes with it, so that
the format is defined once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from labelmint.errors import MalformedMessage, MissingExtra
from labelmint.extras import install_from_extra
from labelmint.v1 import label_service_pb2 as pb

Array = npt.NDArray[Any]

MAX_DECODED_BYTES = 256 << 20  # default limit for one tensor, and for those of one message
MAX_RANK = 4
ZSTD_LEVEL = 1  # higher levels cost more time than the bytes they save on masks


@dataclass(frozen=True)
class OutputSpec:
    """An output of a sample; `Output` in the proto describes each one."""

    name: str  # as in requests, manifests and engines
    output: pb.Output
    dtype: np.dtype[Any]
    sample_rank: int  # number of dimensions of one sample


OUTPUTS: dict[str, OutputSpec] = {
    spec.name: spec
    for spec in (
        OutputSpec("image", pb.OUTPUT_IMAGE, np.dtype("u1"), 3),
        OutputSpec("mask", pb.OUTPUT_MASK, np.dtype("u1"), 2),
        OutputSpec("keypoints", pb.OUTPUT_KEYPOINTS, np.dtype("<f4"), 2),
        OutputSpec("depth", pb.OUTPUT_DEPTH, np.dtype("<f2"), 2),
        OutputSpec("uncertainty", pb.OUTPUT_UNCERTAINTY, np.dtype("<f4"), 0),
        OutputSpec("uncertainty_map", pb.OUTPUT_UNCERTAINTY_MAP, np.dtype("<f2"), 2),
        OutputSpec("w", pb.OUTPUT_W, np.dtype("<f4"), 2),
        OutputSpec("view", pb.OUTPUT_VIEW, np.dtype("<i4"), 0),
        OutputSpec("camera", pb.OUTPUT_CAMERA, np.dtype("<f4"), 1),
        OutputSpec("weight", pb.OUTPUT_WEIGHT, np.dtype("<f4"), 0),
    )
}
CODECS: dict[str, pb.Codec] = {
    "raw": pb.CODEC_RAW,
    "zstd": pb.CODEC_ZSTD,
    "jpeg": pb.CODEC_JPEG,
}
_SPEC_OF_OUTPUT = {spec.output: spec for spec in OUTPUTS.values()}
_CHANNELS = {"image": 3, "keypoints": 3, "camera": 4}
_DTYPE_OF_TYPE: dict[pb.DataType, np.dtype[Any]] = {
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_INT32: np.dtype("<i4"),
}
_TYPE_OF_DTYPE = {dtype: data_type for data_type, dtype in _DTYPE_OF_TYPE.items()}


def sent_by_default(name: str, of_bank: bool, weighted: bool) -> bool:
    """Whether a request that names no outputs gets this one.

    Args:
        name: an output.
        of_bank: whether views come from the view bank, see `options.takes_bank`.
        weighted: whether samples have weights other than 1, see `options.is_weighted`.
    """
    if name in ("view", "camera"):
        return of_bank
    return weighted if name == "weight" else name not in ("uncertainty_map", "w")


def output_from_name(name: str) -> pb.Output:
    """The Output of this name; raises ValueError, listing the known names."""
    if name not in OUTPUTS:
        meant = str(name).removesuffix("s")  # the fields of Batch are plurals
        hint = f"did you mean {meant}?" if meant in OUTPUTS else f"choose from {', '.join(OUTPUTS)}"
        raise ValueError(f"output {name!r} is unknown; {hint}")
    return OUTPUTS[name].output


def name_from_output(output: pb.Output) -> str:
    """The name of an Output; raises ValueError for OUTPUT_UNSPECIFIED and unknown numbers."""
    if output not in _SPEC_OF_OUTPUT:
        known = ", ".join(str(number) for number in _SPEC_OF_OUTPUT)
        raise ValueError(f"output {output} is unknown; choose from {known}")
    return _SPEC_OF_OUTPUT[output].name


def codec_from_name(name: str) -> pb.Codec:
    """The Codec of this name; raises ValueError, listing the known names."""
    if name not in CODECS:
        raise ValueError(f"codec {name!r} is unknown; choose from {', '.join(CODECS)}")
    return CODECS[name]


def raw_bytes_per_sample(
    output: pb.Output,
    sample_shape: Sequence[int],
    dtype: npt.DTypeLike | None = None,
) -> int:
    """Bytes of one uncompressed sample of an output.

    Args:
        output: the output; raises ValueError if it is unknown.
        sample_shape: shape of one sample.
        dtype: type of the elements. None: the type of the output.
    """
    itemsize = (
        OUTPUTS[name_from_output(output)].dtype if dtype is None else np.dtype(dtype)
    ).itemsize
    return itemsize * math.prod(sample_shape)


def max_packed_bytes_per_sample(
    output: pb.Output,
    sample_shape: Sequence[int],
    codec: pb.Codec,
) -> int:
    """Upper bound of the bytes of one sample in Tensor.data, for choosing chunk sizes.

    ZSTD: the raw size, because incompressible data is sent as RAW. JPEG: the bound of libjpeg-turbo
    for 4:2:0, which counts whole blocks of 16 pixels and a header.
    """
    if codec == pb.CODEC_JPEG and output == pb.OUTPUT_IMAGE:
        height, width = (-(-extent // 16) * 16 for extent in sample_shape[:2])
        return 3 * height * width + 2048
    return raw_bytes_per_sample(output, sample_shape)


def tensor_from_array(
    array: Array,
    output: pb.Output = pb.OUTPUT_UNSPECIFIED,
    codec: pb.Codec = pb.CODEC_RAW,
    jpeg_quality: int = 90,
) -> pb.Tensor:
    """Encodes samples, [n, ...] in any memory order, as one Tensor.

    JPEG needs uint8 [n, H, W, 3] and subsamples chroma 4:2:0. A ZSTD frame that is no smaller than
    the elements is sent as RAW instead, which every reader accepts.

    Raises:
        ValueError: the message has no such dtype, or the array does not fit output or codec.
        MissingExtra: the extra `jpeg` is not installed.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _TYPE_OF_DTYPE:
        known = ", ".join(kind.name for kind in _TYPE_OF_DTYPE)
        raise ValueError(f"dtype {array.dtype} cannot be sent; convert to one of {known}")
    fault = _fault_of_output(output, dtype, array.shape)
    if fault:
        raise ValueError(fault)
    tensor = pb.Tensor(output=output, dtype=_TYPE_OF_DTYPE[dtype], codec=pb.CODEC_RAW)
    tensor.shape.extend(array.shape)
    if codec == pb.CODEC_JPEG:
        frames = _jpegs_from_images(array, jpeg_quality)
        tensor.codec = pb.CODEC_JPEG
        tensor.data = b"".join(frames)
        tensor.offsets.extend(np.cumsum([0, *map(len, frames)]).tolist())
        return tensor
    elements = np.ascontiguousarray(array, dtype)
    if codec == pb.CODEC_ZSTD:
        frame = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(elements.data)
        if len(frame) < elements.nbytes:
            tensor.codec = pb.CODEC_ZSTD
            tensor.data = frame
            return tensor
    elif codec not in (pb.CODEC_RAW, pb.CODEC_UNSPECIFIED):
        raise ValueError(f"codec {codec} is unknown; choose from {', '.join(CODECS)}")
    tensor.data = elements.tobytes()
    return tensor


def array_from_tensor(tensor: pb.Tensor, max_bytes: int = MAX_DECODED_BYTES) -> Array:
    """Decodes a received Tensor to a read-only array [n, ...]; RAW is not copied.

    All fields are checked first, and no more bytes are allocated than the shape needs.

    Raises:
        MalformedMessage: dtype, shape, codec, length and offsets do not fit together, or the
            array is larger than max_bytes.
        MissingExtra: the extra `jpeg` is not installed.
    """
    dtype = _DTYPE_OF_TYPE.get(tensor.dtype)
    if dtype is None:
        raise MalformedMessage(f"tensor dtype {tensor.dtype} is unknown")
    shape = tuple(tensor.shape[: MAX_RANK + 1])
    if not 1 <= len(shape) <= MAX_RANK or 0 in shape[1:]:
        raise MalformedMessage(
            f"tensor shape {list(shape)} needs 1 to {MAX_RANK} sizes; only the first may be 0"
        )
    # As if there were one sample at least: reshape overflows for huge sizes even if n is 0.
    nbytes = dtype.itemsize * math.prod(shape[1:]) * max(shape[0], 1)
    if nbytes > max_bytes:
        raise MalformedMessage(
            f"tensor shape {list(shape)} takes {nbytes} bytes; the limit is {max_bytes}"
        )
    fault = _fault_of_output(tensor.output, dtype, shape)
    if fault:
        raise MalformedMessage(fault)
    if tensor.codec == pb.CODEC_JPEG:
        return _images_from_jpegs(tensor, shape)
    if len(tensor.offsets):
        raise MalformedMessage(
            f"codec {tensor.codec} has {len(tensor.offsets)} offsets; only JPEG has offsets"
        )
    nbytes = dtype.itemsize * math.prod(shape)
    if tensor.codec == pb.CODEC_ZSTD:
        data = _bytes_from_frame(tensor.data, nbytes)
    elif tensor.codec in (pb.CODEC_RAW, pb.CODEC_UNSPECIFIED):
        data = tensor.data
    else:
        raise MalformedMessage(f"tensor codec {tensor.codec} is unknown")
    if len(data) != nbytes:
        raise MalformedMessage(
            f"tensor has {len(data)} bytes; shape {list(shape)} of {dtype.name} takes {nbytes}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _fault_of_output(output: pb.Output, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    """Why an array cannot be this output; empty if it can."""
    if output == pb.OUTPUT_UNSPECIFIED:
        return ""
    spec = _SPEC_OF_OUTPUT.get(output)
    if spec is None:
        return f"output {output} is unknown"
    channels = _CHANNELS.get(spec.name)
    channels_fit = channels is None or shape[-1] == channels
    if dtype != spec.dtype or len(shape) != 1 + spec.sample_rank or not channels_fit:
        return (
            f"{spec.name} is {dtype.name} {list(shape)}; it has to be {spec.dtype.name} with "
            f"{1 + spec.sample_rank} dimensions"
            + (f", the last of size {channels}" if channels else "")
        )
    return ""


def _bytes_from_frame(frame: bytes, nbytes: int) -> bytes:
    """Decompresses one Zstandard frame of exactly nbytes bytes."""
    # zstandard allocates the size in the frame's header, whatever max_output_size is.
    try:
        header_bytes = zstandard.get_frame_parameters(frame).content_size
        if header_bytes not in (nbytes, zstandard.CONTENTSIZE_UNKNOWN):
            raise MalformedMessage(f"zstd frame has {header_bytes} bytes; the shape takes {nbytes}")
        return zstandard.ZstdDecompressor().decompress(
            frame, max_output_size=nbytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise MalformedMessage(f"zstd frame does not decompress: {error}") from error


def _jpegs_from_images(images: Array, quality: int) -> list[bytes]:
    simplejpeg = _import_simplejpeg()
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"JPEG takes uint8 [n, H, W, 3]; got {images.dtype} "
            f"{list(images.shape)}; send it as RAW or ZSTD"
        )
    if not 1 <= quality <= 100:
        raise ValueError(f"jpeg_quality {quality} is outside 1 to 100; choose one within")
    return [
        simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "420")
        for image in images
    ]


def _images_from_jpegs(tensor: pb.Tensor, shape: tuple[int, ...]) -> Array:
    simplejpeg = _import_simplejpeg()
    if tensor.dtype != pb.DATA_TYPE_UINT8 or len(shape) != 4 or shape[3] != 3:
        raise MalformedMessage(
            f"JPEG tensor has shape {list(shape)}; it has to be uint8 [n, H, W, 3]"
        )
    # A slice, because there may be millions more of them than samples.
    offsets, data = tensor.offsets[: shape[0] + 2], tensor.data
    # Descending offsets give empty slices, which do not decode.
    if len(offsets) != shape[0] + 1 or offsets[0] != 0 or offsets[-1] != len(data):
        raise MalformedMessage(
            f"JPEG offsets have to be {shape[0] + 1} ascending positions from 0 to {len(data)}"
        )
    images = np.empty(shape, np.uint8)
    for image, (start, end) in zip(images, pairwise(offsets), strict=True):
        frame = data[start:end]
        try:
            extent = simplejpeg.decode_jpeg_header(frame)[:2]
            if extent != shape[1:3]:
                raise MalformedMessage(
                    f"JPEG is {extent[0]} x {extent[1]} pixels; the shape "
                    f"says {shape[1]} x {shape[2]}"
                )
            simplejpeg.decode_jpeg(frame, "RGB", buffer=image)
        except ValueError as error:
            raise MalformedMessage(f"JPEG does not decode: {error}") from error
    images.setflags(write=False)
    return images


def _import_simplejpeg() -> ModuleType:
    try:
        import simplejpeg
    except ImportError as error:
        raise MissingExtra(
            f"the JPEG codec needs simplejpeg: {install_from_extra('jpeg')}, or do not accept jpeg"
        ) from error
    module: ModuleType = simplejpeg
    return module
