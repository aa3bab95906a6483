"""z -> w: the mapping network of both families (Karras et al., CVPR 2019 and 2020).

Parameter names are those of the official PyTorch release of StyleGAN2.
"""

import math

import torch
from torch import Tensor, nn

from nets.config import GeneratorConfig
from nets.ops import normalize_second_moment, scaled_leaky_relu


class FullyConnectedLayer(nn.Module):
    """Linear layer with equalised learning rate: parameters are scaled at run time."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: bool = False,  # scaled leaky ReLU after the bias
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:  # [N, in] -> [N, out]
        x = torch.addmm(self.bias * self.bias_gain, x, (self.weight * self.weight_gain).t())
        return scaled_leaky_relu(x) if self.activation else x


class MappingNetwork(nn.Module):
    """z [N, z_dim] and, if conditional, c one-hot [N, c_dim] -> untruncated w [N, w_dim]."""

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig, lr_multiplier: float = 0.01) -> None:
        super().__init__()
        self.config = config
        features = config.z_dim
        if config.c_dim > 0:
            self.embed = FullyConnectedLayer(config.c_dim, config.w_dim)
            features += config.w_dim
        for i in range(config.mapping_layers):
            layer = FullyConnectedLayer(
                features, config.w_dim, activation=True, lr_multiplier=lr_multiplier
            )
            setattr(self, f"fc{i}", layer)
            features = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        x = normalize_second_moment(z)
        if self.config.c_dim > 0:
            if c is None:
                raise ValueError("this generator is class-conditional: c [N, c_dim] is required")
            x = torch.cat([x, normalize_second_moment(self.embed(c))], dim=1)
        for i in range(self.config.mapping_layers):
            x = getattr(self, f"fc{i}")(x)
        return x

    def truncated(self, w: Tensor, psi: float) -> Tensor:
        """w moved towards its mean: w_avg at psi 0, w itself at psi 1."""
        return self.w_avg + psi * (w - self.w_avg)
