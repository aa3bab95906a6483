"""`Labeller`: generator, label ensemble, score and filter as one module, exported as one graph.

ws, one score limit and one predicate's bounds per sample enter; uint8 images and labels leave, kept
samples first. In one graph, taps never leave the device, and rejected samples need not be copied to
the host.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from export.graph.content import Content
from export.graph.ensemble import PointsFromHeatmaps
from export.graph.filter import kept_first, top_mean, within_boxes
from export.graph.label_branch import LabelBranch, PixelLabels, resized
from export.graph.refiner import RefinerStage
from export.graph.spec import LabelSpec
from export.graph.stylegan1 import ServedStyleGAN1
from export.graph.stylegan2 import ServedSynthesis
from export.graph.stylegan3 import ServedStyleGAN3
from nets import stylegan1, stylegan2, stylegan3
from nets.generator import Generator
from nets.interpreter import Interpreter

__all__ = ["LabelSpec", "Labeller"]

Precision = Literal["float32", "float16"]
# Alternatives of a predicate that graphs compare. 16 bounds of 43 statistics are 5.5 KB of a
# sample's input, a sixth of its w+ of 18 rows of 512.
BOXES = 16


def served_synthesis(
    generator: Generator, dtype: torch.dtype
) -> ServedSynthesis | ServedStyleGAN1 | ServedStyleGAN3:
    """The generator's synthesis in operators that ONNX and TensorRT have, computing in `dtype`."""
    match generator:
        case stylegan1.Generator():
            return ServedStyleGAN1(generator.synthesis, dtype)
        case stylegan2.Generator():
            return ServedSynthesis(generator.synthesis, dtype)
        case stylegan3.Generator():
            return ServedStyleGAN3(generator.synthesis, dtype)


def constant_tap(generator: Generator) -> Tensor:
    """The tap that is the same for every image, float32 [1, C, h, w] at the coarsest extent.

    C is 0 for a StyleGAN1 and for a StyleGAN3.
    """
    if isinstance(generator, stylegan2.Generator):
        return generator.synthesis.blocks()[0].const.detach()[None]
    extent, _ = generator.config.taps[0]
    return torch.zeros(1, 0, extent, extent)


def tap_extents(generator: Generator) -> list[int]:
    """Extents of the taps that vary between images, ascending."""
    extents = [extent for extent, _ in generator.config.taps]
    return extents[1:] if isinstance(generator, stylegan2.Generator) else extents


def level_channels(generator: Generator, grid: int) -> dict[int, int]:
    """Channels of the taps by extent, without the constant tap; finer taps count at the grid.

    Example: channels (24, 20, 16) at 4, 8, 16, grid 8, StyleGAN2: {4: 24, 8: 72}. Raises ValueError
    if all taps are at the grid.
    """
    taps = generator.config.taps
    if taps[0][0] >= grid:
        raise ValueError(
            f"the label grid is {grid}; it must be over {taps[0][0]}, the pixels of this "
            "generator's coarsest feature maps"
        )
    channels = {taps[0][0]: -constant_tap(generator).shape[1]}
    for extent, width in taps:
        reduced = min(extent, grid)
        channels[reduced] = channels.get(reduced, 0) + width
    return channels


class Labeller(nn.Module):
    """Labeled samples from latents.

    Inputs: ws float32 [N, num_ws, w_dim]; max_uncertainty float32 [N], the largest score that a
    sample may have to be kept (inf: always kept, -inf: a padding row, never kept); with content,
    boxes float32 [N, B, 2, S], the lowest and highest values of the S statistics in each of the B
    alternatives of a predicate, of which a kept sample meets at least one.

    Outputs in this order, without those of heads that the interpreter lacks. Kept samples come
    first, then the others; both are in input order.

        image            uint8 [N, H, W, 3]
        mask             uint8 [N, H, W]
        keypoints        float32 [N, K, 3]     x, y in pixels, confidence
        depth            float16 [N, H, W]
        uncertainty      float32 [N]           the score
        uncertainty_map  float16 [N, H, W]
        content          float32 [N, S]        see Content; not if boxes is 0
        sample           int32 [N]             input row of each output row
        kept             int32 []              number of kept samples
    """

    def __init__(
        self,
        generator: Generator,
        interpreter: Interpreter | None,
        spec: LabelSpec,
        precision: Precision = "float32",
        *,
        refine: RefinerStage | None = None,  # None: images as the generator makes them
        tile: int = 8,
        strip_pixels: int = 2048,
        boxes: int = BOXES,  # B; 0: neither content nor predicates
    ) -> None:
        super().__init__()
        self.spec = spec
        self.refine = refine
        self.resolution = generator.config.resolution
        if spec.grid > generator.config.resolution:
            raise ValueError(
                f"the label grid is {spec.grid}, larger than the generator's "
                f"{generator.config.resolution} pixels"
            )
        if spec.start != generator.config.start:
            raise ValueError(
                f"the labels are for a constant of {spec.start}; this generator's is "
                f"{generator.config.start}"
            )
        dtype = torch.float32 if precision == "float32" else torch.float16
        self.synthesis = served_synthesis(generator, dtype)
        self.labels = None
        self.head_outputs: dict[str, int] = {}
        self.content: Content | None = None
        self.boxes = 0
        self.points = PointsFromHeatmaps(spec.height, spec.width, spec.keypoint_window_px)
        if interpreter is None:
            if spec.score_source is not None:
                raise ValueError(f"score_source is {spec.score_source!r} without an interpreter")
            return
        self._check_heads(generator, interpreter)
        kinds = list(interpreter.heads)
        self.head_outputs = {kind: interpreter.head(kind).config.outputs for kind in kinds}
        content = Content(
            self.head_outputs, spec.score_source is not None, spec.height * spec.width
        )
        if boxes and content.columns:
            self.content, self.boxes = content, boxes
        self.labels = LabelBranch(
            interpreter,
            spec,
            constant_tap(generator),
            level_channels(generator, spec.grid),
            dtype,
            tap_extents=tap_extents(generator),
            tile=tile,
            strip_pixels=strip_pixels,
        )

    def _check_heads(self, generator: Generator, interpreter: Interpreter) -> None:
        kinds = list(interpreter.heads)
        if self.spec.score_source is not None and self.spec.score_source not in kinds:
            raise ValueError(f"score_source is {self.spec.score_source!r}; the heads are {kinds}")
        if self.spec.tap_recipe != generator.config.tap_recipe:
            raise ValueError(
                f"the labels read taps {self.spec.tap_recipe!r}; this generator gives "
                f"{generator.config.tap_recipe!r}"
            )
        expected = generator.config.features
        actual = interpreter.head(kinds[0]).config.features
        if actual != expected:
            raise ValueError(f"heads read {actual} features; this generator's taps have {expected}")

    @property
    def output_extents(self) -> dict[str, tuple[int, ...] | None]:
        """Outputs by name in the order of `forward`: shape without N; None for a scalar."""
        height, width = self.spec.height, self.spec.width
        outputs: dict[str, tuple[int, ...] | None] = {"image": (height, width, 3)}
        if "segmentation" in self.head_outputs:
            outputs["mask"] = (height, width)
        if "keypoints" in self.head_outputs:
            outputs["keypoints"] = (self.head_outputs["keypoints"], 3)
        if "depth" in self.head_outputs:
            outputs["depth"] = (height, width)
        if self.spec.score_source is not None:
            outputs |= {"uncertainty": (), "uncertainty_map": (height, width)}
        if self.content is not None:
            outputs["content"] = (self.content.columns,)
        return outputs | {"sample": (), "kept": None}

    @property
    def filter_inputs(self) -> dict[str, Tensor]:
        """Example of one row of the inputs besides ws, by name in the order of `forward`."""
        inputs = {"max_uncertainty": torch.zeros(1)}
        if self.content is not None:
            inputs["boxes"] = torch.zeros(1, self.boxes, 2, self.content.columns)
        return inputs

    def forward(
        self, ws: Tensor, max_uncertainty: Tensor, boxes: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        image, taps = self.images_and_taps(ws)
        labels = PixelLabels(None, None, None, None) if self.labels is None else self.labels(taps)
        return self.filtered_outputs(image, labels, max_uncertainty, boxes)

    def images_and_taps(self, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        """ws -> resized, cropped, refined images float32 [N, 3, H, W]; taps but the constant."""
        image, taps = self.synthesis(ws)
        rows = slice(self.spec.crop_top, self.spec.crop_top + self.spec.height)
        if self.resolution > self.spec.grid:
            image = resized(image, self.spec.size)
        image = image[:, :, rows]
        if self.refine is not None:
            image = self.refine(image, ws)
        return image, taps

    def filtered_outputs(
        self,
        image: Tensor,
        labels: PixelLabels,
        max_uncertainty: Tensor,
        boxes: Tensor | None,  # None: there is no content
    ) -> tuple[Tensor, ...]:
        """Scores the samples, puts kept ones first, and converts to the types of the outputs."""
        if labels.uncertainty is None:
            keep = (max_uncertainty >= torch.finfo(torch.float32).min).to(torch.float32)
            score = None
        else:
            score = top_mean(
                labels.uncertainty.reshape(-1, self.spec.height * self.spec.width),
                self.spec.score_pixels,
            )
            keep = (score <= max_uncertainty).to(torch.float32)
        points = None if labels.heatmaps is None else self.points(labels.heatmaps)
        content = None
        if self.content is not None:
            assert boxes is not None
            content = self.content(labels.mask, labels.uncertainty, score, points, labels.depth)
            keep = keep * within_boxes(content, boxes)
        sample, kept = kept_first(keep)
        # Gather as float: TensorRT has uint8 only in a cast to an output.
        outputs = [_uint8(image.index_select(0, sample).permute(0, 2, 3, 1) * 127.5 + 128)]
        if labels.mask is not None:
            outputs.append(_uint8(labels.mask.index_select(0, sample)))
        if points is not None:
            outputs.append(points.index_select(0, sample))
        if labels.depth is not None:
            outputs.append(labels.depth.index_select(0, sample).to(torch.float16))
        if labels.uncertainty is not None and score is not None:
            maps = labels.uncertainty.index_select(0, sample)
            outputs += [score.index_select(0, sample), maps.to(torch.float16)]
        if content is not None:
            outputs.append(content.index_select(0, sample))
        return (*outputs, sample.to(torch.int32), kept)


def _uint8(x: Tensor) -> Tensor:
    return x.clamp(0, 255).to(torch.uint8)
