"""Names, dtypes and extents of the served graphs' inputs and outputs, from the manifest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from bundle.manifest import GeneratorFacts, Manifest

# The graph's own bookkeeping; every other output is a sample's.
KEPT, SAMPLE, UNCERTAINTY = "kept", "sample", "uncertainty"


@dataclass(frozen=True)
class ArraySpec:
    """One array without its batch axis."""

    dtype: np.dtype[np.generic]
    extents: tuple[int, ...]
    batched: bool = True  # false: a scalar of the whole batch


Arrays = dict[str, ArraySpec]  # by name


def labeller_outputs(manifest: Manifest) -> Arrays:
    """What a sample of this bundle consists of, by output name, in wire order."""
    labels, heads = manifest.labels, manifest.heads
    if labels is None or heads is None:
        size = manifest.generator.resolution
        return {"image": _spec(np.uint8, size, size, 3)}
    pixels = (labels.height, labels.width)
    outputs = {"image": _spec(np.uint8, *pixels, 3)}
    if heads.segmentation is not None:
        outputs["mask"] = _spec(np.uint8, *pixels)
    if heads.keypoints is not None:
        outputs["keypoints"] = _spec(np.float32, len(heads.keypoints.names), 3)
    if heads.depth is not None:
        outputs["depth"] = _spec(np.float16, *pixels)
    if heads.score_source is not None:
        outputs[UNCERTAINTY] = _spec(np.float32)
        outputs["uncertainty_map"] = _spec(np.float16, *pixels)
    return outputs


def graph_outputs(manifest: Manifest) -> Arrays:
    """All outputs of the labeller's graph: a sample's arrays and the bookkeeping."""
    kept = ArraySpec(np.dtype(np.int32), (), batched=False)
    return labeller_outputs(manifest) | {SAMPLE: _spec(np.int32), KEPT: kept}


def graph_inputs(manifest: Manifest) -> Arrays:
    """Inputs of the labeller's graph."""
    generator = manifest.generator
    return {
        "ws": _spec(np.float32, generator.num_ws, generator.w_dim),
        "max_uncertainty": _spec(np.float32),
    }


def mapping_inputs(generator: GeneratorFacts) -> Arrays:
    """Inputs of the mapping's graph; the class only where there are classes."""
    inputs = {"z": _spec(np.float32, generator.z_dim)}
    if generator.num_classes > 0:
        inputs["c"] = _spec(np.float32, generator.num_classes)
    return inputs


def _spec(dtype: DTypeLike, *extents: int) -> ArraySpec:
    return ArraySpec(np.dtype(dtype), extents)
