"""Names, datatypes and shapes of a model's inputs and outputs in the Open Inference Protocol."""

from dataclasses import dataclass

import numpy as np

from bundle.manifest import GeneratorFacts
from engines.signature import WEIGHT, W
from labelmint.v1 import label_service_pb2 as pb
from service.models import ServedModel

WS = "ws"  # name of w+ here and in the graph; the output is called "w" in LabelService
SEED, INDEX = "seed", "index"
SPACES = {"z": pb.LATENT_SPACE_Z, "w": pb.LATENT_SPACE_W, WS: pb.LATENT_SPACE_W_PLUS}
DATATYPES = {
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.uint64): "UINT64",
    np.dtype(np.int32): "INT32",
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
}


@dataclass(frozen=True)
class TensorSpec:
    """Dtype and shape of an input or output."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]  # -1 is the number of samples

    @property
    def datatype(self) -> str:
        return DATATYPES[self.dtype]


def inputs_of_generator(generator: GeneratorFacts) -> dict[str, TensorSpec]:
    """Inputs that a request may have: one of z, w and ws, or index with or without seed."""
    floats, integers = np.dtype(np.float32), np.dtype(np.uint64)
    return {
        "z": TensorSpec(floats, (-1, generator.z_dim)),
        "w": TensorSpec(floats, (-1, generator.w_dim)),
        WS: TensorSpec(floats, (-1, generator.num_ws, generator.w_dim)),
        SEED: TensorSpec(integers, (1,)),
        INDEX: TensorSpec(integers, (-1,)),
    }


def outputs_of_model(model: ServedModel) -> dict[str, TensorSpec]:
    """Outputs that a request may ask for: all but the weight, which is 1 here."""
    return {
        wire_name(name): TensorSpec(spec.dtype, (-1, *spec.extents))
        for name, spec in model.outputs.items()
        if name != WEIGHT
    }


def wire_name(name: str) -> str:
    """An output's name in LabelService -> its name in the protocol."""
    return WS if name == W else name


def own_name(name: str) -> str:
    """An output's name in the protocol -> its name in LabelService."""
    return W if name == WS else name
