"""The two graphs around the kernels: ws -> buffers, and buffers -> the labeller's outputs."""

from pathlib import Path

import torch
from torch import Tensor, nn

from bundle.fused import PICTURE
from export.kernel_taps import KernelTaps
from export.label_branch import LabelBranch, PixelLabels
from export.labeller import Labeller
from export.onnx_from_labeller import write_onnx


class FusedTaps(nn.Module):
    """ws float32 [N, num_ws, w_dim] -> picture float32 [N, 3, H, W], then KernelTaps' buffers."""

    def __init__(self, labeller: Labeller, taps: KernelTaps) -> None:
        super().__init__()
        self.labeller, self.taps = labeller, taps

    def by_name(self, ws: Tensor) -> dict[str, Tensor]:
        """By name, in the order of `forward`."""
        picture, taps = self.labeller.pictures(ws)
        branch = self.labeller.labels
        assert isinstance(branch, LabelBranch)
        levels = dict(zip(branch.extents, branch.levels(taps), strict=True))
        buffers: dict[str, Tensor] = self.taps(levels)
        return {PICTURE: picture} | buffers

    def forward(self, ws: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.by_name(ws).values())


class FusedFilter(nn.Module):
    """picture, max_uncertainty, scores (where the bundle scores), then labels by head
    -> the labeller's outputs."""

    def __init__(self, labeller: Labeller) -> None:
        super().__init__()
        self.labeller = labeller

    def forward(
        self, picture: Tensor, max_uncertainty: Tensor, *given: Tensor
    ) -> tuple[Tensor, ...]:
        left = list(given)
        scores = left.pop(0) if self.labeller.spec.score_source is not None else None
        labels = dict(zip(self.labeller.head_outputs, left, strict=True))
        mask, depth = (labels[k][:, 0] if k in labels else None for k in ("segmentation", "depth"))
        found = PixelLabels(mask, labels.get("keypoints"), depth, scores)
        return self.labeller.finished(picture, found, max_uncertainty)


def taps_onnx(labeller: Labeller, taps: KernelTaps, path: Path) -> None:
    """Writes FusedTaps: input ws, outputs picture and the buffers by name."""
    synthesis = labeller.synthesis
    ws = torch.zeros(1, synthesis.num_ws, synthesis.w_dim)
    module = FusedTaps(labeller, taps)
    with torch.no_grad():
        outputs = {name: tuple(value.shape[1:]) for name, value in module.by_name(ws).items()}
    write_onnx(module, {"ws": ws}, outputs, path)


def filter_onnx(labeller: Labeller, path: Path) -> None:
    """Writes FusedFilter: inputs by their buffers' names, outputs as the labeller's."""
    spec = labeller.spec
    pixels = (spec.height, spec.width)
    inputs = {PICTURE: torch.zeros(1, 3, *pixels), "max_uncertainty": torch.zeros(1)}
    if spec.score_source is not None:
        inputs["scores"] = torch.zeros(1, *pixels)
    for kind, outputs in labeller.head_outputs.items():
        planes = 1 if kind == "segmentation" else outputs
        inputs[f"{kind}_labels"] = torch.zeros(1, planes, *pixels)
    write_onnx(FusedFilter(labeller), inputs, labeller.output_extents, path)
