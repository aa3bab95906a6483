"""Unrefined images and their masks -> a segmenter, which compares refined images with originals.

Each training image gets a random look (light, color, texture, focus, noise). Without it the
segmenter would react to the new look of refined images and not to what moved in them
(docs/decisions/0015).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import trange

from nets.segmenter import Segmenter
from training.label_crop import extent_of_crops, float_from_bytes, random_crops

BATCH, CROP = 16, 64  # crops per step; pixels of their side
LEARNING_RATE = 2e-3  # Adam's at the start; half a cosine to zero
INFERENCE_BATCH = 16


def fit_segmenter(
    images: Tensor, masks: Tensor, steps: int, seed: int, device: torch.device | None = None
) -> Segmenter:
    """Trains on uint8 [n, 3, H, W] and class ids uint8 [n, H, W], both on the CPU; deterministic
    for a seed."""
    rng = torch.Generator().manual_seed(seed)
    labelled = torch.cat([images, masks[:, None]], dim=1)
    extent = extent_of_crops(images, CROP)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Segmenter(int(masks.max()) + 1).to(device)
    adam = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in trange(steps, desc="segmenter", unit="step", leave=None):
        crops = random_crops(labelled, BATCH, extent, rng).to(device)
        if torch.rand((), generator=rng) < 0.5:
            crops = crops.flip(3)
        inputs = with_random_looks(crops[:, :3].float() / 255, rng) * 2 - 1
        loss = F.cross_entropy(network(inputs), crops[:, 3].long())
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def with_random_looks(images: Tensor, rng: torch.Generator) -> Tensor:
    """[n, 3, H, W] in [0, 1] -> the same scenes with random gamma, gain, texture, blur and noise
    per image, in [0, 1]."""
    n, _, height, width = images.shape

    def uniform(channels: int, low: float, high: float) -> Tensor:
        unit = torch.rand(n, channels, 1, 1, generator=rng).to(images.device)
        return low + (high - low) * unit

    x = images ** uniform(1, 0.6, 1.6)
    x = x * uniform(3, 0.5, 1.2) + uniform(3, -0.1, 0.1)
    coarse = torch.randn(n, 1, height, width, generator=rng).to(images.device)
    x = x * (1 + uniform(1, 0, 0.2) * 3 * F.avg_pool2d(coarse, 3, 1, padding=1))
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x.lerp(blurred, uniform(1, 0, 1))
    noise = torch.randn(x.shape, generator=rng).to(images.device)
    return (x + uniform(1, 0, 0.1) * noise).clamp(0, 1)


def agreement_of(segmenter: Segmenter, original: Tensor, refined: Tensor) -> float:
    """mIoU between the segmenter's masks of uint8 [n, 3, H, W] and of the refined images, over the
    classes that it sees in the originals."""
    before, after = (_classes(segmenter, images) for images in (original, refined))
    ious = []
    for label in torch.unique(before).tolist():
        a, b = before == label, after == label
        ious.append(float((a & b).sum() / (a | b).sum()))
    return sum(ious) / len(ious)


@torch.no_grad()
def _classes(segmenter: Segmenter, images: Tensor) -> Tensor:
    device = next(segmenter.parameters()).device
    batches = images.split(INFERENCE_BATCH)
    return torch.cat([segmenter(float_from_bytes(x.to(device))).argmax(1).cpu() for x in batches])
