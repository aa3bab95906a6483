"""Pixels of labels -> the statistics of each sample that predicates compare."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bundle.content import rank_of_share
from export.graph.filter import values_of_ranks

DEPTH_QUANTILES = (0.1, 0.5, 0.9)  # shares of the pixels
CHUNK_PIXELS = 1 << 16  # compared with all classes at a time: 9 MB for 34 classes


class Content(nn.Module):
    """Mask, uncertainty, depth [N, H, W], score [N], keypoints [N, K, 3] -> statistics float32
    [N, S].

    Columns, which engines.content.content_columns names: the score; the number of pixels of each
    class; the mean uncertainty of each class's pixels, 0 where it has none; the confidence of each
    keypoint; the DEPTH_QUANTILES of depth. Those that need what the bundle lacks are missing.
    Counts are exact up to 2**24.
    """

    ids: Tensor
    ranks: Tensor

    def __init__(self, head_outputs: Mapping[str, int], scored: bool, pixels: int) -> None:
        """head_outputs: number of outputs by kind of head. scored: whether there is a score.
        pixels: of a mask."""
        super().__init__()
        self.pixels = pixels
        classes = head_outputs.get("segmentation", 0)
        shares = DEPTH_QUANTILES if "depth" in head_outputs else ()
        points = head_outputs.get("keypoints", 0)
        self.columns = (1 + classes if scored else 0) + classes + points + len(shares)
        self.register_buffer("ids", torch.arange(classes, dtype=torch.float32)[:, None])
        ranks = [rank_of_share(share, pixels) for share in shares]
        self.register_buffer("ranks", torch.tensor(ranks, dtype=torch.float32))

    def forward(
        self,
        mask: Tensor | None,  # class ids as float32
        uncertainty: Tensor | None,
        score: Tensor | None,
        points: Tensor | None,
        depth: Tensor | None,
    ) -> Tensor:
        parts = [] if score is None else [score[:, None]]
        if mask is not None:
            parts += self._of_classes(mask, uncertainty)
        if points is not None:
            parts.append(points[:, :, 2])
        if depth is not None:
            parts.append(values_of_ranks(depth.reshape(-1, self.pixels), self.ranks))
        return torch.cat(parts, dim=1)

    def _of_classes(self, mask: Tensor, uncertainty: Tensor | None) -> list[Tensor]:
        """Counts [N, C], and the mean uncertainties if there is one."""
        ids = mask.reshape(-1, 1, self.pixels)
        values = None if uncertainty is None else uncertainty.reshape(-1, 1, self.pixels)
        counts, sums = list[Tensor](), list[Tensor]()
        for start in range(0, self.pixels, CHUNK_PIXELS):
            chunk = slice(start, min(start + CHUNK_PIXELS, self.pixels))
            member = (ids[:, :, chunk] == self.ids).to(torch.float32)  # [N, C, pixels of a chunk]
            counts.append(member.sum(dim=2))
            if values is not None:
                sums.append((member * values[:, :, chunk]).sum(dim=2))
        count = _total(counts)
        return [count, _total(sums) / count.clamp(min=1)] if sums else [count]


def _total(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
