"""Names, datatypes and shapes of a model's inputs and outputs, in the protocol's words."""

from dataclasses import dataclass

import numpy as np

from bundle.manifest import GeneratorFacts
from labelmint.v1 import label_service_pb2 as pb
from service.batch import W
from service.models import ServedModel

WS = "ws"  # the protocol's name, and the graph's, of what LabelService calls w
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
class Tensor:
    """An input or output."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]  # -1: the samples

    @property
    def datatype(self) -> str:
        return DATATYPES[self.dtype]


def inputs_of_generator(generator: GeneratorFacts) -> dict[str, Tensor]:
    """All of them are optional: a request brings one of z, w and ws, or index and maybe seed."""
    floats, integers = np.dtype(np.float32), np.dtype(np.uint64)
    return {
        "z": Tensor(floats, (-1, generator.z_dim)),
        "w": Tensor(floats, (-1, generator.w_dim)),
        WS: Tensor(floats, (-1, generator.num_ws, generator.w_dim)),
        SEED: Tensor(integers, (1,)),
        INDEX: Tensor(integers, (-1,)),
    }


def outputs_of_model(model: ServedModel) -> dict[str, Tensor]:
    """What can be asked for."""
    return {
        wire_name(name): Tensor(spec.dtype, (-1, *spec.extents))
        for name, spec in model.outputs.items()
    }


def wire_name(name: str) -> str:
    """An output's name in the protocol."""
    return WS if name == W else name


def own_name(name: str) -> str:
    """An output's name on this side."""
    return W if name == WS else name
