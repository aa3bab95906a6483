"""Golden fixtures: what public code computed from random weights; fixtures/README.md tells how."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from checkpoints.foreign import PickledNetwork
from nets.generator import Generator

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Sampled:
    """Some values of a tensor [N, C, H, W]."""

    shape: tuple[int, ...]
    index: Tensor  # int64, into the flattened tensor
    value: Tensor  # float32

    def of(self, tensor: Tensor) -> Tensor:
        """The same places of another tensor."""
        assert tuple(tensor.shape) == self.shape
        return tensor.reshape(-1)[self.index]

    def difference(self, tensor: Tensor) -> float:
        """The largest, in units of the largest value."""
        return float((self.of(tensor) - self.value).abs().max() / self.value.abs().max())


@dataclass(frozen=True)
class Golden:
    """Weights and inputs, and what came out of the public code."""

    about: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    image: Sampled
    taps: list[Sampled]

    @property
    def noise(self) -> list[Tensor] | None:
        """Injected noise maps, where the public code draws them at random."""
        if "noise_seed" not in self.about:
            return None
        rng = np.random.RandomState(self.about["noise_seed"])
        shapes = self.about["noise_shapes"]
        return [torch.from_numpy(rng.randn(*s).astype(np.float32)) for s in shapes]


def assert_same_pixels_and_taps(generator: Generator, of: Golden) -> None:
    """Within 1e-4 of the largest value each."""
    synthesis = generator.synthesis(of.inputs["ws"], of.noise)
    assert of.image.difference(synthesis.image) < 1e-4
    for tap, expected in zip(synthesis.taps, of.taps, strict=True):
        assert expected.difference(tap) < 1e-4


def tensors_and_notes(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A fixture's tensors, and what its metadata says of how it was made."""
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["about"])


def golden(name: str) -> Golden:
    """Reads fixtures/<name>.safetensors."""
    tensors, about = tensors_and_notes(FIXTURES / f"{name}.safetensors")
    of = {
        kind: {k.removeprefix(kind): t for k, t in tensors.items() if k.startswith(kind)}
        for kind in ("weights/", "inputs/")
    }
    sampled = [
        Sampled(tuple(shape), tensors[f"{name}/index"].long(), tensors[f"{name}/value"])
        for name, shape in [("image", about["image_shape"])]
        + [(f"tap{i}", s) for i, s in enumerate(about["tap_shapes"])]
    ]
    return Golden(about, of["weights/"], of["inputs/"], sampled[0], sampled[1:])


def stored_fields(
    tensors: dict[str, Tensor], clamp: float | None, mapping_rate: float = 0.01
) -> dict[str, dict[str, object]]:
    """What the public classes of StyleGAN2-ADA store in each module beside these tensors."""
    architecture = "resnet" if any(".skip." in name for name in tensors) else "orig"
    if "synthesis.b4.torgb.weight" in tensors:
        architecture = "skip"
    fields: dict[str, dict[str, object]] = {"": {"training": False}}
    for name in [n.removesuffix(".weight") for n in tensors if n.endswith(".weight")]:
        rate = mapping_rate if name.startswith("mapping.fc") else 1
        into = tensors[f"{name}.weight"].shape[1] if tensors[f"{name}.weight"].ndim > 1 else 1
        gain = rate / math.sqrt(max(into, 1))
        last = name.rsplit(".", 1)[-1]
        if last in ("conv0", "conv1"):
            block, up = name.rsplit(".", 1)[0], 2 if last == "conv0" else 1
            fields[block] = {"resolution": int(block[11:]), "architecture": architecture}
            fields[name] = {"resolution": int(block[11:]), "up": up, "padding": 1}
            noise = f"{name}.noise_const" in tensors
            fields[name] |= {"use_noise": noise, "activation": "lrelu", "conv_clamp": clamp}
            fields[name] |= {"act_gain": math.sqrt(2)}
        elif last == "torgb":
            fields[name] = {"conv_clamp": clamp, "weight_gain": gain}
        elif last == "skip":
            fields[name] = {"activation": "linear", "up": 2, "down": 1, "conv_clamp": None}
            fields[name] |= {"padding": 0, "weight_gain": gain, "act_gain": 1}
        else:
            kind = "lrelu" if name.startswith("mapping.fc") else "linear"
            fields[name] = {"activation": kind, "weight_gain": gain, "bias_gain": rate}
    return fields


def pickled_network(of: Golden, **changes: object) -> PickledNetwork:
    """The golden network as read from a pickle; `changes` replace attributes in every module."""
    kwargs = of.about["kwargs"]
    later = {"conv_clamp": 256, **kwargs}  # StyleGAN3's code has a default
    clamp = kwargs.get("synthesis_kwargs", later).get("conv_clamp")
    fields = stored_fields(of.weights, clamp)
    for module in fields.values():
        module |= {name: value for name, value in changes.items() if name in module}
    return PickledNetwork("Generator", kwargs, dict(of.weights), fields)
