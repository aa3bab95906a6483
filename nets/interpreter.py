"""The label ensemble: small MLPs on per-pixel features (DatasetGAN, section 3.2).

All members of a head run as one batched network; the weights of one member are slices. The layers
of a member are Linear, ReLU, BatchNorm, Linear, ReLU, BatchNorm, Linear.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

HeadKind = Literal["segmentation", "keypoints", "depth"]


@dataclass(frozen=True)
class HeadConfig:
    """Shape of one head's ensemble."""

    kind: HeadKind
    features: int  # D, length of the hypercolumn
    hidden: tuple[int, int]  # widths of the two hidden layers
    outputs: int  # classes, keypoints, or 1 for depth
    members: int = 10


def published_hidden(num_classes: int) -> tuple[int, int]:
    """Hidden widths of the DatasetGAN release: (128, 32) under 32 classes, else (256, 128)."""
    return (128, 32) if num_classes < 32 else (256, 128)


class EnsembleHead(nn.Module):
    """x [P, D] -> [members, P, outputs]; logits, heatmap values or depth, no final activation."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        m, (h1, h2), c = config.members, config.hidden, config.outputs
        self.linear1 = nn.Linear(config.features, m * h1)  # rows k*h1 ... are member k
        self.norm1 = nn.BatchNorm1d(m * h1)
        self.weight2 = nn.Parameter(torch.empty(m, h1, h2))
        self.bias2 = nn.Parameter(torch.zeros(m, 1, h2))
        self.norm2 = nn.BatchNorm1d(m * h2)
        self.weight3 = nn.Parameter(torch.empty(m, h2, c))
        self.bias3 = nn.Parameter(torch.zeros(m, 1, c))
        # The published initialisation: normal(0, 0.02) weights, zero biases.
        nn.init.zeros_(self.linear1.bias)
        for weight in (self.linear1.weight, self.weight2, self.weight3):
            nn.init.normal_(weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.linear1(x).relu())  # [P, m*h1]
        x = torch.baddbmm(self.bias2, self._by_member(x), self.weight2).relu()  # [m, P, h2]
        x = self._by_member(self.norm2(self._by_pixel(x)))
        return torch.baddbmm(self.bias3, x, self.weight3)  # [m, P, c]

    def _by_member(self, x: Tensor) -> Tensor:  # [P, m*h] -> [m, P, h]
        return x.view(x.shape[0], self.config.members, -1).transpose(0, 1)

    def _by_pixel(self, x: Tensor) -> Tensor:  # [m, P, h] -> [P, m*h]
        return x.transpose(0, 1).reshape(x.shape[1], -1)


def member_as_sequential(head: EnsembleHead, k: int) -> nn.Sequential:
    """Member k with the layers and parameter names of the DatasetGAN release.

    It is in evaluation mode, and has the device and dtype of the head.
    """
    d, (h1, h2), c = head.config.features, head.config.hidden, head.config.outputs
    net = nn.Sequential(
        nn.Linear(d, h1), nn.ReLU(), nn.BatchNorm1d(h1),
        nn.Linear(h1, h2), nn.ReLU(), nn.BatchNorm1d(h2),
        nn.Linear(h2, c),
    )  # fmt: skip
    one, two = slice(k * h1, (k + 1) * h1), slice(k * h2, (k + 1) * h2)
    state = {
        "0.weight": head.linear1.weight[one],
        "0.bias": head.linear1.bias[one],
        "3.weight": head.weight2[k].t(),
        "3.bias": head.bias2[k, 0],
        "6.weight": head.weight3[k].t(),
        "6.bias": head.bias3[k, 0],
    }
    for name, norm, rows in (("2", head.norm1, one), ("5", head.norm2, two)):
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{key}"] = getattr(norm, key)[rows]
    net.load_state_dict(state, strict=False)
    return net.eval().to(head.weight2)


class Interpreter(nn.Module):
    """The heads of one label ensemble by kind; all read the same features. Raises ValueError."""

    def __init__(self, configs: tuple[HeadConfig, ...]) -> None:
        super().__init__()
        kinds = [c.kind for c in configs]
        if not kinds or len(set(kinds)) != len(kinds):
            raise ValueError(f"heads are {kinds}; there must be at least one, each kind once")
        if len({c.features for c in configs}) != 1:
            raise ValueError(
                f"heads read {[c.features for c in configs]} features; they must agree"
            )
        self.heads = nn.ModuleDict({c.kind: EnsembleHead(c) for c in configs})

    def head(self, kind: str) -> EnsembleHead:
        """The head of that kind. Raises KeyError if there is none."""
        head = self.heads[kind]
        assert isinstance(head, EnsembleHead)
        return head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """x float32 [P, D] -> {kind: [members, P, outputs]}."""
        return {kind: head(x) for kind, head in self.heads.items()}
