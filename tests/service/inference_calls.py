"""Calls of the Open Inference Protocol, with the service's own messages; see test_triton_client."""

from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from service.rpc import inference_messages as messages
from tests.hangs import HANG_S

DTYPES = {"UINT8": "u1", "INT32": "<i4", "FP16": "<f2", "FP32": "<f4", "UINT64": "<u8"}
DATATYPES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def call(channel: grpc.Channel, method: str, request: Any, **options: Any) -> Any:
    """The response of a unary method."""
    kind = getattr(messages, f"{method}Response")
    unary: Any = channel.unary_unary(
        f"/{messages.SERVICE}/{method}", lambda r: r.SerializeToString(), kind.FromString
    )
    return unary(request, **{"timeout": HANG_S, **options})


def ask(channel: grpc.Channel, method: str, metadata: Any = (), **fields: Any) -> Any:
    """The same, of a request's fields."""
    request = getattr(messages, f"{method}Request")(**fields)
    return call(channel, method, request, metadata=metadata)


def exchange(channel: grpc.Channel, requests: Any, **options: Any) -> Any:
    """Responses of ModelStreamInfer."""
    stream: Any = channel.stream_stream(
        f"/{messages.SERVICE}/ModelStreamInfer",
        lambda r: r.SerializeToString(),
        messages.ModelStreamInferResponse.FromString,
    )
    return stream(requests, **{"timeout": HANG_S, **options})


def infer_request(
    inputs: dict[str, NDArray[Any]],
    outputs: tuple[str, ...] = (),
    raw: bool = True,
    **fields: Any,
) -> Any:
    """A ModelInferRequest of arrays, by name."""
    request = messages.ModelInferRequest(**{"model_name": "fake", **fields})
    for name, array in inputs.items():
        datatype = DATATYPES[array.dtype]
        tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            request.raw_input_contents.append(array.tobytes())
        else:
            field = "fp32_contents" if datatype == "FP32" else "uint64_contents"
            getattr(tensor.contents, field).extend(array.ravel().tolist())
    for name in outputs:
        request.outputs.add(name=name)
    return request


def indices(*values: int, seed: int | None = None) -> dict[str, NDArray[Any]]:
    """The inputs index and seed."""
    inputs = {"index": np.array(values, np.uint64)}
    return inputs if seed is None else {"seed": np.array([seed], np.uint64), **inputs}


def arrays_of(response: Any) -> dict[str, NDArray[Any]]:
    """A ModelInferResponse's arrays by name."""
    assert len(response.outputs) == len(response.raw_output_contents)
    return {
        output.name: np.frombuffer(data, DTYPES[output.datatype]).reshape(tuple(output.shape))
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def index_of(channel: grpc.Channel, **fields: Any) -> dict[str, Any]:
    """RepositoryIndex's entries by name."""
    return {model.name: model for model in ask(channel, "RepositoryIndex", **fields).models}
