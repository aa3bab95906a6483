"""Rows of w+ whose viewpoint and content come from two latents."""

import torch
from torch import Tensor

from nets.generator import Generator


def mixed_rows(generator: Generator, view_z: Tensor, content_z: Tensor, view_layers: int) -> Tensor:
    """w+ [N, num_ws, w_dim]: the first `view_layers` rows from `view_z`, the others from
    `content_z`, both float32 [N, z_dim]."""
    view, content = generator.mapping(view_z), generator.mapping(content_z)
    rows = generator.config.num_ws
    return torch.cat(
        [
            view[:, None].expand(-1, view_layers, -1),
            content[:, None].expand(-1, rows - view_layers, -1),
        ],
        dim=1,
    )
