"""Perceptual distance of two images, one number for each pair: LPIPS, or a stand-in of our own.

LPIPS (Zhang et al., CVPR 2018) comes from its own package. It brings its linear layers; the VGG-16
below them is a file of torchvision's that must be there already: nothing is downloaded.
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

SMALLEST = 8  # pixels of the shorter side of the coarsest scale
FLOOR = 1e-3  # gradient energy of noise and of smooth shading, which is not to count


@dataclass(frozen=True)
class Distance:
    """A named distance, differentiable in its first argument."""

    name: str  # for the records: what the figures are of
    between: Callable[[Tensor, Tensor], Tensor]  # [N, 3, H, W] twice -> [N]


def structure_distance(a: Tensor, b: Tensor) -> Tensor:
    """Our stand-in: local gradients of the difference, over those of the pictures; in [0, 2].

    At each scale, halved down to 8 px, the energy of the difference's gradients is divided by
    the energy of both pictures' gradients around the pixel; the mean over pixels, then over
    scales. So a small part counts as much as a large one of strong contrast, a shift of
    brightness hardly counts, and coarse scales pull parts into place from afar.
    """
    of_scales = []
    while True:
        energy = _local(gradient_energy(a)) + _local(gradient_energy(b)) + FLOOR
        of_scales.append((_local(gradient_energy(a - b)) / energy).mean(dim=(1, 2, 3)))
        if min(a.shape[2:]) < 2 * SMALLEST:
            return torch.stack(of_scales).mean(dim=0)
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)


def gradient_energy(x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, 1, H, W], squares of the steps to the right and down, over colours."""
    right = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    down = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    return (right.square() + down.square()).sum(dim=1, keepdim=True)


def _local(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


STRUCTURE = Distance("structure", structure_distance)


DistanceName = Literal["auto", "lpips", "structure"]
NAME = "LPIPS (VGG, v0.1)"
VGG_FILE = "vgg16-397923af.pth"  # torchvision's own name


def distance_from_name(
    name: DistanceName, vgg_weights: Path | None, device: torch.device
) -> tuple[Distance, str]:
    """The distance, and a line for the user: which it is and, where LPIPS was not to be had, why.

    Raises TrainingError when LPIPS is asked for, by name or by its weights, and is not to be had.
    """
    if name == "structure":
        return STRUCTURE, "perceptual distance: structure, our own"
    path = vgg_weights or Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    missing = _missing(path)
    if missing is None:
        return lpips_distance(path, device), f"perceptual distance: {NAME} with {path}"
    if name == "lpips" or vgg_weights is not None:
        raise TrainingError(f"LPIPS cannot be used: {missing}")
    return STRUCTURE, f"perceptual distance: structure, our own, in place of LPIPS: {missing}"


def lpips_distance(vgg_weights: Path, device: torch.device) -> Distance:
    """LPIPS of the VGG-16 in a file of torchvision's. Raises TrainingError, ForeignFileError."""
    package = importlib.import_module("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision by a deprecated argument
        # A random trunk is the only one that the package does not download.
        model = package.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False)
    _fill_trunk(model.net, vgg_weights)
    model.eval().requires_grad_(False).to(device)

    def between(a: Tensor, b: Tensor) -> Tensor:
        values: Tensor = model(a, b, normalize=True)  # from [0, 1] to the [-1, 1] that it reads
        return values.flatten()

    return Distance(NAME, between)


def _missing(vgg_weights: Path) -> str | None:
    if importlib.util.find_spec("lpips") is None:
        return "the package lpips is not installed"
    try:
        importlib.import_module("lpips")
    except (ImportError, RuntimeError, OSError) as error:
        return f"the package lpips cannot be imported: {' '.join(str(error).split())}"
    if not vgg_weights.is_file():
        return f"{vgg_weights} is not there; --vgg-weights names torchvision's {VGG_FILE}"
    return None


def _fill_trunk(trunk: nn.Module, path: Path) -> None:
    """Gives slice1.0.weight the file's features.0.weight, and so on."""
    read = read_foreign(path)
    content = read.content if isinstance(read, TorchFile) else None
    if not isinstance(content, dict):
        raise TrainingError(f"{path} holds no VGG-16 of torchvision's")
    state = {}
    for name, own in trunk.state_dict().items():
        tensor = content.get(f"features.{name.split('.', 1)[1]}")
        if not isinstance(tensor, Tensor) or tensor.shape != own.shape:
            raise TrainingError(f"{path} holds no VGG-16 of torchvision's: {name} does not fit")
        state[name] = tensor
    trunk.load_state_dict(state)
