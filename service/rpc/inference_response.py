"""Samples -> the bytes of a ModelInferResponse; tensors are copied once, see framing."""

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
_STREAM_BYTES = 16  # what the message of a stream adds


def response_from_message(
    message: Message, inference: Inference, model: ServedModel, streamed: bool
) -> bytes:
    """All samples in one response. Raises BadRequest when it exceeds max_message_bytes."""
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
    most = inference.query.max_message_bytes - _STREAM_BYTES
    if size > most:
        raise BadRequest(
            f"the answer has {size} bytes, the limit is {most}; ask for fewer samples or outputs"
        )
    return b"".join(field_parts(_RESPONSE, parts) if streamed else parts)


def refusal_for_stream(message: str, request_id: str, model_name: str) -> bytes:
    """What a stream says in place of an answer; its caller finds the request by the id."""
    refusal = ModelStreamInferResponse(error_message=message)
    refusal.infer_response.id = request_id
    refusal.infer_response.model_name = model_name
    refusal.infer_response.parameters["triton_final_response"].bool_param = True
    return bytes(refusal.SerializeToString())
