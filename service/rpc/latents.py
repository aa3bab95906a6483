"""Latents that a request brings -> checked float32 rows."""

import math

import numpy as np

from bundle.manifest import GeneratorFacts
from engines.sampling import LatentSpace
from labelmint.codec import array_from_tensor
from labelmint.errors import MalformedMessage
from labelmint.v1 import label_service_pb2 as pb
from service.errors import BadRequest
from service.query import LatentRows

_SPACES: dict[int, LatentSpace] = {
    pb.LATENT_SPACE_Z: "z",
    pb.LATENT_SPACE_W: "w",
    pb.LATENT_SPACE_W_PLUS: "w+",
}
_CODECS = (pb.CODEC_UNSPECIFIED, pb.CODEC_RAW, pb.CODEC_ZSTD)


def latents_from_proto(
    proto: pb.ExplicitLatents, generator: GeneratorFacts, max_rows: int
) -> LatentRows:
    """Nothing is decoded before its size is known. Raises BadRequest."""
    if proto.space not in _SPACES:
        raise BadRequest(
            f"latents.space is {proto.space}; it is one of {', '.join(map(str, _SPACES))}, see "
            "LatentSpace"
        )
    space = _SPACES[proto.space]
    extents = {
        "z": [generator.z_dim],
        "w": [generator.w_dim],
        "w+": [generator.num_ws, generator.w_dim],
    }[space]
    _check_tensor(proto.rows, space, extents, max_rows)
    try:
        rows = array_from_tensor(proto.rows, max_rows * math.prod(extents) * 4)
    except MalformedMessage as error:
        raise BadRequest(f"latents.rows: {error}") from error
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        raise BadRequest(
            f"latents.rows has values in row {int(np.flatnonzero(~finite)[0])} that are not "
            "finite; every value must be"
        )
    return LatentRows(space, rows.astype(np.float32, copy=False))


def _check_tensor(rows: pb.Tensor, space: str, extents: list[int], max_rows: int) -> None:
    shape, pattern = list(rows.shape), f"[n, {', '.join(map(str, extents))}]"
    if rows.output != pb.OUTPUT_UNSPECIFIED:
        raise BadRequest(f"latents.rows.output is {rows.output}; leave it unspecified")
    if rows.dtype != pb.DATA_TYPE_FLOAT32:
        raise BadRequest(
            f"latents.rows.dtype is {rows.dtype}; it must be FLOAT32 ({pb.DATA_TYPE_FLOAT32})"
        )
    if rows.codec not in _CODECS:
        raise BadRequest(f"latents.rows.codec is {rows.codec}; send RAW or ZSTD")
    if shape[1:] != extents or len(shape) != 1 + len(extents):
        raise BadRequest(
            f"latents.rows has shape {shape}; {space} rows of this model are {pattern}"
        )
    if not 1 <= shape[0] <= max_rows:
        raise BadRequest(
            f"latents.rows has {shape[0]} rows; it must be 1 to {max_rows}, send more in several "
            "requests"
        )
