"""Outputs and codecs of a request -> the arrays of each delivered sample, and their encoding."""

from importlib.util import find_spec

from engines.signature import ArraySpec
from labelmint.codec import (
    CODECS,
    OUTPUTS,
    max_packed_bytes_per_sample,
    raw_bytes_per_sample,
    sent_by_default,
)
from labelmint.v1 import label_service_pb2 as pb
from service.errors import BadRequest, FailedPrecondition
from service.query import WantedOutput

_CAN_JPEG = find_spec("simplejpeg") is not None  # an extra; without it images are sent RAW
MAX_JPEG_QUALITY = 100
DEFAULT_JPEG_QUALITY = 90


def outputs_from_proto(
    proto: pb.SampleQuery, available: dict[str, ArraySpec], of_bank: bool, weighted: bool
) -> tuple[WantedOutput, ...]:
    """Outputs of a request, sorted by Output.

    Args:
        proto: the request.
        available: what the model has, by name.
        of_bank: whether views come from the view bank.
        weighted: whether samples have weights other than 1.

    Raises:
        BadRequest: an output or codec does not exist.
        FailedPrecondition: the model lacks an output.
    """
    codecs = _codecs(proto)
    wanted = []
    for name in _names(proto, available, of_bank, weighted):
        spec, output = available[name], OUTPUTS[name].output
        codec = _codec(name, codecs)
        wanted.append(
            WantedOutput(
                name=name,
                output=output,
                codec=codec,
                raw_bytes=raw_bytes_per_sample(output, spec.extents, spec.dtype),
                max_packed_bytes=max_packed_bytes_per_sample(output, spec.extents, codec),
            )
        )
    return tuple(sorted(wanted, key=lambda output: output.output))


def jpeg_quality_from_proto(proto: pb.SampleQuery) -> int:
    """JPEG quality, 1 to 100. Raises BadRequest."""
    if proto.jpeg_quality > MAX_JPEG_QUALITY:
        raise BadRequest(
            f"jpeg_quality is {proto.jpeg_quality}; it must be in [1, {MAX_JPEG_QUALITY}], or 0 "
            f"for {DEFAULT_JPEG_QUALITY}"
        )
    if proto.jpeg_quality and pb.CODEC_JPEG not in proto.accept_codecs:
        raise BadRequest(
            f"jpeg_quality is {proto.jpeg_quality} and accept_codecs lacks JPEG; add JPEG, or set "
            "jpeg_quality to 0"
        )
    return proto.jpeg_quality or DEFAULT_JPEG_QUALITY


def _names(
    proto: pb.SampleQuery, available: dict[str, ArraySpec], of_bank: bool, weighted: bool
) -> list[str]:
    if not proto.outputs:
        return [name for name in available if sent_by_default(name, of_bank, weighted)]
    names = {spec.output: name for name, spec in OUTPUTS.items()}
    for output in set(proto.outputs):  # each once: a request may have very many
        if output not in names:
            raise BadRequest(
                f"outputs has {output}; it may only have {', '.join(map(str, names))}, see Output"
            )
        if names[output] not in available:
            raise FailedPrecondition(
                f"outputs has {names[output]}, which this model lacks; it has "
                f"{', '.join(available)}"
            )
    return [names[output] for output in sorted(set(proto.outputs))]


def _codecs(proto: pb.SampleQuery) -> set[int]:
    for codec in set(proto.accept_codecs):
        if codec not in (pb.CODEC_UNSPECIFIED, *CODECS.values()):
            known = ", ".join(map(str, CODECS.values()))
            raise BadRequest(f"accept_codecs has {codec}; it may only have {known}, see Codec")
    return set(proto.accept_codecs) or {pb.CODEC_RAW, pb.CODEC_ZSTD}


def _codec(name: str, accepted: set[int]) -> pb.Codec:
    if name == "image" and pb.CODEC_JPEG in accepted and _CAN_JPEG:
        return pb.CODEC_JPEG
    if name == "mask" and pb.CODEC_ZSTD in accepted:
        return pb.CODEC_ZSTD
    return pb.CODEC_RAW
