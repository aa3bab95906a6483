"""The refiner as a stage of the served graph: behind synthesis, resize and crop, before the bytes.

Labels come from the generator's features and never see it.
"""

import copy

import torch
from torch import Tensor, nn

from nets.refiner import GrainSource, Refiner


class RefinerStage(nn.Module):
    """image float32 [N, 3, H, W], ws float32 [N, num_ws, w_dim] -> image float32 [N, 3, H, W].

    Convolutions run in `dtype`, the mixing of the grain in float32.
    """

    def __init__(
        self,
        refiner: Refiner,
        grain_seed: int,
        w_avg: Tensor,  # [w_dim]
        height: int,
        width: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.refiner = copy.deepcopy(refiner).to(dtype)
        channels = refiner.config.grain
        self.grain = GrainSource(channels, height, width, w_avg, grain_seed) if channels else None

    def forward(self, image: Tensor, ws: Tensor) -> Tensor:
        # It was trained on bytes, which end at -1 and 1; synthesis does not.
        image = image.clamp(-1, 1).to(self.dtype)
        grain = None if self.grain is None else self.grain(ws).to(self.dtype)
        refined: Tensor = self.refiner(image, grain)
        return refined.to(torch.float32)
