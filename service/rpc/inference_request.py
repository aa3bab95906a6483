"""ModelInferRequest -> a checked Query, the same as for a SampleQuery of LabelService."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.signature import WEIGHT
from labelmint.codec import OUTPUTS
from labelmint.v1 import label_service_pb2 as pb
from service.config import ServerLimits
from service.errors import BadRequest, UnknownModel
from service.models import ServedModel
from service.query import Query
from service.rpc.inference_tensors import (
    INDEX,
    SEED,
    SPACES,
    TensorSpec,
    inputs_of_generator,
    own_name,
    wire_name,
)
from service.rpc.query import bounded_query_from_proto

MAX_NUMBER_CHARACTERS = 400  # of a number as text; later ones are not read
MAX_RANK = 10  # of shapes that messages show
MAX_ID_CHARACTERS = 256  # of a request's id, which the response repeats
PSI, CUTOFF, CLASS = "truncation_psi", "truncation_cutoff", "class_index"
VIEW = "view"  # code of the view bank, for all samples
# Parameter that Triton's clients may send. It has no effect, because each request has exactly one
# response, which is marked as final.
_FINAL = "triton_enable_empty_final_response"
_FILTERS = (  # of streams
    "where", "keep_fraction", "max_uncertainty", "balance", "balance_classes", "keep_by",
    "proposal", "edits",
)  # fmt: skip
_INPUT_HINT = f"send one of {', '.join(SPACES)}, or {INDEX} with or without {SEED}"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Inference:
    """A checked ModelInferRequest."""

    id: str
    query: Query
    samples: int  # number of samples
    outputs: tuple[str, ...]  # names in the protocol, in the caller's order
    order: NDArray[np.intp] | None  # sample of the query for each response row; None: unchanged


def inference_from_request(request: Any, model: ServedModel, limits: ServerLimits) -> Inference:
    """Checks a request. Raises ServiceError, SamplingError."""
    check_version(request.model_version, model)
    if len(request.id) > MAX_ID_CHARACTERS:
        raise BadRequest(
            f"id has {len(request.id)} characters; it may have at most {MAX_ID_CHARACTERS}"
        )
    arrays = _arrays(request, inputs_of_generator(model.bundle.manifest.generator), limits)
    proto = pb.SampleQuery(
        sampling=_sampling(request, arrays),
        accept_codecs=[pb.CODEC_RAW],
        max_message_bytes=limits.max_message_bytes,
    )
    order = _add_source(proto, arrays)
    names = _output_names(request)
    proto.outputs.extend(OUTPUTS[own_name(name)].output for name in names)
    query, samples = bounded_query_from_proto(proto, model, limits)
    outputs = names or [wire_name(output.name) for output in query.outputs]
    return Inference(request.id, query, samples, tuple(outputs), order)


def check_version(version: str, model: ServedModel) -> None:
    """Checks a model's version, which is its bundle_id. Raises UnknownModel."""
    bundle_id = model.bundle.manifest.bundle_id
    if version not in ("", bundle_id):
        raise UnknownModel(
            f"version is {version[:100]!r}; {model.name} has version {bundle_id}: use this one or "
            "leave the version out"
        )


def _add_source(proto: pb.SampleQuery, arrays: Arrays) -> NDArray[np.intp] | None:
    """Adds indices or latents to the query. Returns the sample of the query for each row of the
    response: indices are sorted and unique in a query, but not in a request."""
    sources = [name for name in (*SPACES, INDEX) if name in arrays]
    if len(sources) != 1:
        found = ", ".join(sources) or f"none of {', '.join((*SPACES, INDEX))}"
        raise BadRequest(f"inputs has {found}; {_INPUT_HINT}")
    name, array = sources[0], arrays[sources[0]]
    if name != INDEX and SEED in arrays:
        raise BadRequest(f"inputs has {SEED} and {name}; {SEED} is only allowed with {INDEX}")
    if name == INDEX:
        indices, order = np.unique(array, return_inverse=True)
        proto.indices.extend(indices.tolist())
        return None if np.array_equal(indices, array) else order
    proto.latents.space = SPACES[name]
    proto.latents.rows.CopyFrom(
        pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())
    )
    return None


def _arrays(request: Any, tensors: dict[str, TensorSpec], limits: ServerLimits) -> Arrays:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; send "
            "one for each, or none"
        )
    arrays: Arrays = {}
    for position, given in enumerate(request.inputs):
        name = given.name
        if name not in tensors:
            raise BadRequest(f"inputs has {name[:100]!r}; it may only have {', '.join(tensors)}")
        if name in arrays:
            raise BadRequest(f"inputs has {name} twice; send it once")
        _check_no_parameters(f"inputs {name}", given.parameters)
        _check_tensor(given, tensors[name], limits)
        data = raw[position] if raw else None
        arrays[name] = _array(given, tensors[name], data)
    return arrays


def _check_tensor(given: Any, tensor: TensorSpec, limits: ServerLimits) -> None:
    name, shape = given.name, given.shape[:MAX_RANK]
    if given.datatype != tensor.datatype:
        raise BadRequest(f"{name} is {given.datatype[:20]!r}; it must be {tensor.datatype}")
    fits = len(given.shape) == len(tensor.shape) and all(
        size == wanted or wanted < 0 for size, wanted in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise BadRequest(
            f"{name} has shape {shape}; it must be {list(tensor.shape)}, where -1 is the "
            "number of samples"
        )
    limit = limits.max_explicit_indices if name == INDEX else limits.max_explicit_rows
    if not 1 <= shape[0] <= limit:
        raise BadRequest(
            f"{name} has {shape[0]} rows; it must have 1 to {limit}, send more in several requests"
        )


def _array(given: Any, tensor: TensorSpec, raw: bytes | None) -> NDArray[Any]:
    name, shape = given.name, tuple(given.shape)
    if raw is not None:
        if given.HasField("contents"):
            raise BadRequest(f"{name} has contents beside raw_input_contents; send one of them")
        needed = int(np.prod(shape)) * tensor.dtype.itemsize
        if len(raw) != needed:
            raise BadRequest(f"{name} has {len(raw)} raw bytes; shape {list(shape)} needs {needed}")
        array = np.frombuffer(raw, tensor.dtype.newbyteorder("<")).astype(tensor.dtype, copy=False)
    else:
        field = "fp32_contents" if tensor.datatype == "FP32" else "uint64_contents"
        values = getattr(given.contents, field)
        if len(values) != np.prod(shape):
            raise BadRequest(
                f"{name} has {len(values)} values in {field}; shape {list(shape)} needs "
                f"{int(np.prod(shape))}, there or in raw_input_contents"
            )
        array = np.array(values, tensor.dtype)
    array = array.reshape(shape)
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise BadRequest(f"{name} has NaN or infinite values in row {row}; all must be finite")
    return array


def _sampling(request: Any, arrays: Arrays) -> pb.SamplingOptions:
    sampling = pb.SamplingOptions(seed=int(arrays[SEED][0]) if SEED in arrays else 0)
    for name, parameter in request.parameters.items():
        if name == PSI:
            sampling.truncation_psi = _number(name, parameter)
        elif name in (CUTOFF, CLASS):
            setattr(sampling, name, _count(name, parameter))
        elif name == VIEW:
            sampling.view, sampling.view_mode = _count(name, parameter), pb.VIEW_MODE_FIXED
        elif name in _FILTERS:
            raise BadRequest(
                f"parameters has {name}; a response has a row for each row of the request, so "
                "nothing is filtered here: use StreamSamples of labelmint.v1.LabelService"
            )
        elif name != _FINAL:
            raise BadRequest(
                f"parameters has {name[:100]!r}; it may only have {PSI}, {CUTOFF}, {CLASS} and "
                f"{VIEW}"
            )
    return sampling


def _number(name: str, parameter: Any) -> float:
    """A number, or text such as "0.7": Triton's client can send fractions only as text."""
    kind = parameter.WhichOneof("parameter_choice")
    value: Any = getattr(parameter, kind) if kind else None
    if isinstance(value, str):
        value = value[:MAX_NUMBER_CHARACTERS]  # to read one of megabytes takes seconds
    try:
        return float("" if isinstance(value, (bool, type(None))) else value)
    except ValueError:
        text = f"{value!r}"[:100]
        raise BadRequest(
            f"parameter {name} is {text}; it must be a number or a number as text"
        ) from None


def _count(name: str, parameter: Any) -> int:
    number = _number(name, parameter)
    if not 0 <= number < 1 << 32 or number != int(number):
        given = repr(number).removesuffix(".0")  # all digits: 2^32 is not 4.29497e+09
        raise BadRequest(f"parameter {name} is {given}; it must be an integer in [0, 2^32)")
    return int(number)


def _output_names(request: Any) -> list[str]:
    known = [wire_name(name) for name in OUTPUTS if name != WEIGHT]
    names: list[str] = []
    for output in request.outputs:
        name = output.name
        if name not in known:
            raise BadRequest(f"outputs has {name[:100]!r}; it may only have {', '.join(known)}")
        if name in names:
            raise BadRequest(f"outputs has {name} twice; send it once")
        _check_no_parameters(f"outputs {name}", output.parameters)
        names.append(name)
    return names


def _check_no_parameters(where: str, parameters: Any) -> None:
    for name in parameters:
        raise BadRequest(
            f"{where} has parameter {name[:100]!r}; leave it out: shared memory and classification "
            "are not supported"
        )
