"""The refiner as a stage of the labeller: cropped images -> refined images.

Labels are computed from the generator's taps, so the refiner does not change them.
"""

import copy

import torch
from torch import Tensor, nn

from nets.refiner import GrainSource, Refiner


class RefinerStage(nn.Module):
    """image float32 [N, 3, H, W], ws float32 [N, num_ws, w_dim] -> image float32 [N, 3, H, W].

    Convolutions compute in `dtype`, and the grain is mixed in float32.
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
        # The refiner was trained on uint8 images, which are within [-1, 1]; synthesis is not.
        image = image.clamp(-1, 1).to(self.dtype)
        grain = None if self.grain is None else self.grain(ws).to(self.dtype)
        refined: Tensor = self.refiner(image, grain)
        return refined.to(torch.float32)
