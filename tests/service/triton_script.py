"""Stock Triton client against the server at argv[1]; prints what it saw as JSON.

Run by test_triton_client in a process of its own, as a stranger would: none of our packages is
imported here.
"""

import hashlib
import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

TIMEOUT_S = 3000.0  # for hangs


def inputs_of_indices(seed: int, *values: int) -> list[Any]:
    seeds, indices = np.array([seed], np.uint64), np.array(values, np.uint64)
    inputs = [triton.InferInput("seed", [1], "UINT64")]
    inputs.append(triton.InferInput("index", [len(values)], "UINT64"))
    for tensor, array in zip(inputs, (seeds, indices), strict=True):
        tensor.set_data_from_numpy(array)
    return inputs


def inputs_of_latents(name: str, array: Any) -> list[Any]:
    tensor = triton.InferInput(name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]


def digests(result: Any) -> dict[str, str]:
    names = [output.name for output in result.get_response().outputs]
    return {n: hashlib.sha256(result.as_numpy(n).tobytes()).hexdigest() for n in names}


def error_of(run: Any) -> str:
    try:
        run()
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    return "no error"


def streamed(client: Any, model: str) -> list[tuple[str, Any]]:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(12):
        client.async_stream_infer(model, inputs_of_indices(7, number), request_id=str(number))
    client.async_stream_infer("unknown", inputs_of_indices(7, 1), request_id="unknown")
    got = [answers.get(timeout=TIMEOUT_S) for _ in range(13)]
    client.stop_stream()
    return [
        (str(error.message()), {}) if error
        else (result.get_response().id, digests(result))
        for result, error in got
    ]  # fmt: skip


def report(client: Any, model: str, headers: dict[str, str]) -> dict[str, Any]:
    """Every method that the server implements."""
    z = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    outputs = [triton.InferRequestedOutput(name) for name in ("ws", "mask")]
    metadata = client.get_model_metadata(model)
    seen = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "unknown_ready": client.is_model_ready("unknown"),
        "server": client.get_server_metadata().name,
        "outputs": [output.name for output in metadata.outputs],
        "config": client.get_model_config(model).config.backend,
        "infer": digests(
            client.infer(
                model,
                inputs_of_indices(7, 3, 4, 5),
                request_id="q",
                parameters={"truncation_psi": "0.5"},
            )
        ),
        "z": digests(client.infer(model, inputs_of_latents("z", z), outputs=outputs)),
        "stream": streamed(client, model),
        "unknown": error_of(lambda: client.infer("unknown", inputs_of_indices(7, 1))),
        "shape": error_of(lambda: client.infer(model, inputs_of_latents("z", z[:, :5].copy()))),
        "trace": error_of(lambda: client.get_trace_settings(model)),
        "denied": error_of(lambda: client.unload_model(model)),
    }
    statistics = client.get_inference_statistics(model).model_stats[0]
    seen["inferences"] = statistics.inference_count
    client.unload_model(model, headers=headers)
    seen["unloaded"] = [m.state for m in client.get_model_repository_index().models]
    client.load_model(model, headers=headers)
    seen["loaded"] = [m.state for m in client.get_model_repository_index().models]
    return seen


if __name__ == "__main__":
    target, model, token = sys.argv[1:]
    with triton.InferenceServerClient(target) as client:
        print(json.dumps(report(client, model, {"authorization": f"Bearer {token}"})))
