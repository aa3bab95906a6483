"""Perceptual distance between pairs of images, one number per pair: LPIPS, or our own `structure`.

LPIPS (Zhang et al., CVPR 2018) comes from the package `lpips`, which contains its linear layers.
The VGG-16 below them is torchvision's weights file; it must exist already, nothing is downloaded.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checkpoints import TorchFile, read_foreign
from training.errors import TrainingError

DistanceName = Literal["auto", "lpips", "structure"]
LPIPS_NAME = "LPIPS (VGG, v0.1)"
VGG_FILE = "vgg16-397923af.pth"  # torchvision's file name

MIN_SIDE = 8  # pixels of the shorter side at the coarsest scale of `structure`
ENERGY_FLOOR = 1e-3  # gradient energy of noise and smooth shading, which should not count


@dataclass(frozen=True)
class Distance:
    """A named distance, differentiable in its first argument."""

    name: str  # written to cards and reports: values of different distances do not compare
    between: Callable[[Tensor, Tensor], Tensor]  # two of [N, 3, H, W] in [0, 1] -> [N]


def distance_from_name(
    name: DistanceName, vgg_weights: Path | None, device: torch.device
) -> tuple[Distance, str]:
    """The distance, and a line for the user: its name and, if LPIPS is unavailable, the reason.

    Raises TrainingError when LPIPS is requested, by name or by `vgg_weights`, and unavailable.
    """
    if name == "structure":
        return STRUCTURE, "perceptual distance: structure, our own"
    path = vgg_weights or Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    missing = _missing(path)
    if missing is None:
        return lpips_distance(path, device), f"perceptual distance: {LPIPS_NAME} with {path}"
    if name == "lpips" or vgg_weights is not None:
        raise TrainingError(f"LPIPS cannot be used: {missing}")
    return STRUCTURE, f"perceptual distance: structure, our own, in place of LPIPS: {missing}"


def structure_distance(a: Tensor, b: Tensor) -> Tensor:
    """Our substitute for LPIPS, in [0, 2]: gradients of the difference relative to local contrast.

    At each scale the gradient energy of a - b is divided, pixel by pixel, by the gradient energy
    of a plus that of b around the pixel. The result is the mean over pixels, then over scales;
    each scale halves the last one, down to a shorter side of 8 px.

    A small part thus counts as much as a large one of strong contrast, a shift of brightness
    hardly counts, and coarse scales attract parts that are far from their place.
    """
    of_scales = []
    while True:
        energy = _local_mean(gradient_energy(a)) + _local_mean(gradient_energy(b)) + ENERGY_FLOOR
        of_scales.append((_local_mean(gradient_energy(a - b)) / energy).mean(dim=(1, 2, 3)))
        if min(a.shape[2:]) < 2 * MIN_SIDE:
            return torch.stack(of_scales).mean(dim=0)
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)


def gradient_energy(x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, 1, H, W]: squared differences to the right and downwards, summed over
    channels."""
    right = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    down = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    return (right.square() + down.square()).sum(dim=1, keepdim=True)


def _local_mean(x: Tensor) -> Tensor:
    """Mean over 3x3 pixels."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


STRUCTURE = Distance("structure", structure_distance)


def lpips_distance(vgg_weights: Path, device: torch.device) -> Distance:
    """LPIPS on torchvision's VGG-16 weights. Raises TrainingError, ForeignFileError."""
    package = importlib.import_module("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips passes a deprecated argument to torchvision
        # pnet_rand: a random VGG-16 is the only one that the package does not download.
        model = package.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False)
    _load_vgg(model.net, vgg_weights)
    model.eval().requires_grad_(False).to(device)

    def between(a: Tensor, b: Tensor) -> Tensor:
        values: Tensor = model(a, b, normalize=True)  # normalize: [0, 1] to LPIPS's [-1, 1]
        return values.flatten()

    return Distance(LPIPS_NAME, between)


def _missing(vgg_weights: Path) -> str | None:
    """Why LPIPS is unavailable; None: it is available."""
    if importlib.util.find_spec("lpips") is None:
        return "the package lpips is not installed"
    try:
        importlib.import_module("lpips")
    except (ImportError, RuntimeError, OSError) as error:
        return f"the package lpips cannot be imported: {' '.join(str(error).split())}"
    if not vgg_weights.is_file():
        return f"{vgg_weights} is not there; --vgg-weights names torchvision's {VGG_FILE}"
    return None


def _load_vgg(trunk: nn.Module, path: Path) -> None:
    """Copies the file's features.0.weight to slice1.0.weight, and so on."""
    read = read_foreign(path)
    content = read.content if isinstance(read, TorchFile) else None
    if not isinstance(content, dict):
        raise TrainingError(f"{path} holds no VGG-16 of torchvision's")
    state = {}
    for name, own in trunk.state_dict().items():
        tensor = content.get(f"features.{name.split('.', 1)[1]}")
        if not isinstance(tensor, Tensor) or tensor.shape != own.shape:
            raise TrainingError(
                f"{path} holds no VGG-16 of torchvision's: {name} is missing or has another shape"
            )
        state[name] = tensor
    trunk.load_state_dict(state)
