"""Serves a bundle's graphs with PyTriton, unfiltered, in a separate Python; see against_pytriton.

    PYTHON benchmarks/against_pytriton_server.py BUNDLE GRPC_PORT HTTP_PORT METRICS_PORT

z float32 [N, z_dim] enters; image, mask and uncertainty leave. Imports no package of the project.
"""

import sys
from pathlib import Path
from typing import Any

MAX_BATCH = 32


def main(folder: Path, grpc_port: int, http_port: int, metrics_port: int) -> None:
    import numpy as np
    import onnxruntime as ort
    from pytriton.decorators import batch
    from pytriton.model_config import DynamicBatcher, ModelConfig
    from pytriton.model_config import Tensor as Spec
    from pytriton.triton import Triton, TritonConfig

    mapping = ort.InferenceSession(folder / "mapping.onnx", providers=["CPUExecutionProvider"])
    labeller = ort.InferenceSession(folder / "labeller.onnx", providers=["CPUExecutionProvider"])
    num_ws = labeller.get_inputs()[0].shape[1]

    @batch  # type: ignore[untyped-decorator, unused-ignore]
    def infer(z: Any) -> dict[str, Any]:
        (w,) = mapping.run(["w"], {"z": z})
        ws = np.repeat(w[:, None], num_ws, axis=1)
        everything = np.full(len(z), np.inf, np.float32)
        names = ["image", "mask", "uncertainty"]
        feed = {"ws": ws, "max_uncertainty": everything}
        for node in labeller.get_inputs()[2:]:  # no bounds: nothing passes, and all is computed
            feed[node.name] = np.zeros((len(z), *node.shape[1:]), np.float32)
        image, mask, uncertainty = labeller.run(names, feed)
        return {"image": image, "mask": mask, "uncertainty": uncertainty[:, None]}

    config = TritonConfig(
        grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port, log_verbose=0
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="demo",
            infer_func=infer,
            inputs=[Spec(name="z", dtype=np.float32, shape=(mapping.get_inputs()[0].shape[1],))],
            outputs=[
                Spec(name="image", dtype=np.uint8, shape=(-1, -1, 3)),
                Spec(name="mask", dtype=np.uint8, shape=(-1, -1)),
                Spec(name="uncertainty", dtype=np.float32, shape=(1,)),
            ],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher()),
        )
        triton.serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
