"""Names, dtypes and extents of the served graphs' inputs and outputs, from the manifest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from bundle.manifest import GeneratorFacts, Manifest
from bundle.views import CAMERA_FIELDS, ViewBank
from engines.content import BOXES, CONTENT, content_columns

# Outputs that tell which rows the graph kept: KEPT is their number, int32 []; SAMPLE is the input
# row of each output row, int32 [N], kept ones first; UNCERTAINTY is the score, float32 [N]; CONTENT
# is what predicates compare, in the order of the output rows.
KEPT, SAMPLE, UNCERTAINTY = "kept", "sample", "uncertainty"
W, VIEW, CAMERA = "w", "view", "camera"  # outputs that come from the sampler, not the graph
WEIGHT = "weight"  # output that comes from the content, and from how samples are selected


@dataclass(frozen=True)
class ArraySpec:
    """Dtype and extents of one array."""

    dtype: np.dtype[np.generic]
    extents: tuple[int, ...]  # without the batch axis
    batched: bool = True  # whether a batch axis comes first; False for a scalar of the batch


ArraySpecs = dict[str, ArraySpec]  # by input or output name


def labeller_outputs(manifest: Manifest) -> ArraySpecs:
    """Arrays of one sample of this bundle, in the order in which they are sent."""
    labels, heads = manifest.labels, manifest.heads
    if labels is None or heads is None:
        size = manifest.generator.size_at(manifest.generator.resolution)
        return {"image": _spec(np.uint8, *size, 3)}
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


def sample_outputs(manifest: Manifest, bank: ViewBank | None) -> ArraySpecs:
    """All arrays that a sample can have: the graph's, those of its latents and its view, and its
    weight."""
    generator = manifest.generator
    specs = labeller_outputs(manifest) | {W: _spec(np.float32, generator.num_ws, generator.w_dim)}
    if bank is not None:
        specs[VIEW] = _spec(np.int32)
        if bank.cameras is not None:
            specs[CAMERA] = _spec(np.float32, len(CAMERA_FIELDS))
    return specs | {WEIGHT: _spec(np.float32)}


def graph_outputs(manifest: Manifest) -> ArraySpecs:
    """All outputs of the labeller's graph: the sample's arrays, CONTENT if the bundle has it,
    SAMPLE and KEPT."""
    columns = len(content_columns(manifest))
    content = {CONTENT: _spec(np.float32, columns)} if columns else {}
    kept = ArraySpec(np.dtype(np.int32), (), batched=False)
    return labeller_outputs(manifest) | content | {SAMPLE: _spec(np.int32), KEPT: kept}


def graph_inputs(manifest: Manifest) -> ArraySpecs:
    """Inputs of the labeller's graph."""
    generator, extents = manifest.generator, boxes_extents(manifest)
    inputs = {
        "ws": _spec(np.float32, generator.num_ws, generator.w_dim),
        "max_uncertainty": _spec(np.float32),
    }
    return inputs if extents is None else inputs | {BOXES: _spec(np.float32, *extents)}


def boxes_extents(manifest: Manifest) -> tuple[int, int, int] | None:
    """Extents of one sample's BOXES, (B, 2, S); None for a bundle without predicates."""
    columns = len(content_columns(manifest))
    if manifest.heads is None or not columns:
        return None
    return manifest.heads.boxes, 2, columns


def mapping_inputs(generator: GeneratorFacts) -> ArraySpecs:
    """Inputs of the mapping's graph; `c` only if the generator has classes."""
    inputs = {"z": _spec(np.float32, generator.z_dim)}
    if generator.num_classes > 0:
        inputs["c"] = _spec(np.float32, generator.num_classes)
    return inputs


def _spec(dtype: DTypeLike, *extents: int) -> ArraySpec:
    return ArraySpec(np.dtype(dtype), extents)
