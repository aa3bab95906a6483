"""Compares the demo generator with the renderer on fresh latents, for each part.

Weights enter; a table on stdout and a contact sheet (truth above generated) leave. A pixel's color
is right if no channel differs by more than an eighth of the range. The table has the share of right
pixels of each part, because small parts hardly change the mean error.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from checkpoints import generator_from_file
from examples.demo.mixing import mixed_rows
from examples.demo.render import SceneTruth, render
from examples.demo.scene import CLASS_NAMES, Z_DIM, scene_from_latents
from nets.generator import Generator

TOLERANCE = 0.25  # of colors in [-1, 1]: an eighth of the range
BATCH = 32
SHEET_COLUMNS = 12


@dataclass(frozen=True)
class GeneratorScore:
    """Errors over N images."""

    psnr_db: float  # from the mean squared error over all images
    worst_decile_db: float  # PSNR that a tenth of the images is below
    right: list[float]  # share of right pixels among each part's true pixels
    truth: Tensor  # float32 [M, 3, R, R], the first images, for the sheet
    generated: Tensor  # float32 [M, 3, R, R]


def psnr(squared_error: Tensor) -> Tensor:
    """PSNR in dB of mean squared errors of colors in [-1, 1]."""
    return -10 * torch.log10(squared_error / 4)


def judge(
    generator: Generator, view_layers: int, view_z: Tensor, content_z: Tensor
) -> GeneratorScore:
    """Compares generated images with the scenes of `view_z` and `content_z`, [N, Z_DIM] each."""
    right, total = torch.zeros(len(CLASS_NAMES)), torch.zeros(len(CLASS_NAMES))
    errors: list[Tensor] = []
    shown: list[tuple[Tensor, Tensor]] = []
    resolution = generator.config.resolution
    for view, content in zip(view_z.split(BATCH), content_z.split(BATCH), strict=True):
        truth: SceneTruth = render(scene_from_latents(view, content), resolution)
        rows = mixed_rows(generator, view, content, view_layers)
        image = generator.synthesis(rows).image.clamp(-1, 1)
        errors.append((image - truth.image).square().mean(dim=(1, 2, 3)))
        is_right = (image - truth.image).abs().amax(dim=1) < TOLERANCE
        mask = truth.mask.long().flatten()
        right += torch.bincount(mask[is_right.flatten()], minlength=len(CLASS_NAMES))
        total += torch.bincount(mask, minlength=len(CLASS_NAMES))
        shown.append((truth.image, image))
    error = torch.cat(errors)
    truths, images = (torch.cat(list(x))[: 2 * SHEET_COLUMNS] for x in zip(*shown, strict=True))
    return GeneratorScore(
        psnr_db=float(psnr(error.mean())),
        worst_decile_db=float(psnr(error).quantile(0.1)),
        right=(right / total).tolist(),
        truth=truths,
        generated=images,
    )


def sheet_from_images(rows: list[Tensor], scale: int) -> Image.Image:
    """Each entry float32 [C, 3, R, R] in [-1, 1] becomes one row, pixels `scale` times larger."""
    grid = torch.stack(rows).permute(0, 3, 1, 4, 2)  # [rows, R, C, R, 3]
    flat = grid.reshape(grid.shape[0] * grid.shape[1], -1, 3)
    pixels = (flat.clamp(-1, 1) * 127.5 + 128).clamp(0, 255).numpy().astype(np.uint8)
    image = Image.fromarray(pixels)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def main() -> None:
    """Prints the table for single latents and for w+ mixed from two latents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="generator weights (.safetensors)")
    parser.add_argument("--images", type=int, default=512, help="number of latents")
    parser.add_argument("--seed", type=int, default=1_000_003)
    parser.add_argument("--sheet", type=Path, help="contact sheet to write (PNG)")
    options = parser.parse_args()
    generator, card = generator_from_file(options.weights)
    source = torch.Generator().manual_seed(options.seed)
    a, b = torch.randn(2, options.images, Z_DIM, generator=source)
    rows: list[Tensor] = []
    print(f"{'':10}{'PSNR':>8}{'worst 10%':>11}  " + "".join(f"{n:>11}" for n in CLASS_NAMES))
    for name, view_z in {"one latent": a, "mixed": b}.items():
        found = judge(generator, card.view_layers, view_z, a)
        shares = "".join(f"{share:>11.1%}" for share in found.right)
        print(f"{name:10}{found.psnr_db:>5.2f} dB{found.worst_decile_db:>8.2f} dB  {shares}")
        for truth, image in zip(
            found.truth.split(SHEET_COLUMNS), found.generated.split(SHEET_COLUMNS), strict=True
        ):
            rows += [truth, image]
    if options.sheet:
        sheet_from_images(rows, scale=2).save(options.sheet)


if __name__ == "__main__":
    main()
