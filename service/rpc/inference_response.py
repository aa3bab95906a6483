"""Samples -> the bytes of a ModelInferResponse; tensors are copied once, see service.framing."""

import numpy as np

from service.delivery import Message
from service.encoding import arrays_from_kept
from service.errors import BadRequest
from service.framing import Part, field_parts
from service.models import ServedModel
from service.rpc.inference_messages import ModelInferResponse, ModelStreamInferResponse
from service.rpc.inference_request import Inference
from service.rpc.inference_tensors import DATATYPES, own_name

_RAW: int = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_RESPONSE: int = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
_STREAM_BYTES = 16  # upper bound of what ModelStreamInferResponse adds to its ModelInferResponse


def response_from_message(
    message: Message, inference: Inference, model: ServedModel, streamed: bool
) -> bytes:
    """One response with all samples, within a ModelStreamInferResponse if `streamed`.

    Raises BadRequest when it exceeds max_message_bytes.
    """
    head = ModelInferResponse(
        model_name=model.name,
        model_version=inference.query.bundle_id,
        id=inference.id,
    )
    if streamed:
        head.parameters["triton_final_response"].bool_param = True
    parts: list[Part] = []
    for name in inference.outputs:
        arrays = arrays_from_kept(message.kept, own_name(name))
        if inference.order is not None:
            arrays = [np.concatenate(arrays)[inference.order]]
        rows, dtype = sum(len(array) for array in arrays), arrays[0].dtype
        head.outputs.add(name=name, datatype=DATATYPES[dtype], shape=[rows, *arrays[0].shape[1:]])
        little_endian = dtype.newbyteorder("<")
        data: list[Part] = [np.ascontiguousarray(a, little_endian).data for a in arrays]
        parts.extend(field_parts(_RAW, data))
    parts.insert(0, head.SerializeToString())
    size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
    limit = inference.query.max_message_bytes - _STREAM_BYTES
    if size > limit:
        raise BadRequest(
            f"the response has {size} bytes, the limit is {limit}; request fewer samples or outputs"
        )
    return b"".join(field_parts(_RESPONSE, parts) if streamed else parts)


def error_response(message: str, request_id: str, model_name: str) -> bytes:
    """A ModelStreamInferResponse with an error; the caller finds its request by the id."""
    response = ModelStreamInferResponse(error_message=message)
    response.infer_response.id = request_id
    response.infer_response.model_name = model_name
    response.infer_response.parameters["triton_final_response"].bool_param = True
    return bytes(response.SerializeToString())
