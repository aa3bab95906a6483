"""`python -m examples.bench_world --out DIR`: a labeled set of the bench world, with exact truth.

A seed and a range of indices enter; the folder that `training sample` and the label tools write
leaves, with albedo, instances and a contact sheet beside it.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import ClassCard, Classes
from examples.bench_world.nuisance import photographed
from examples.bench_world.render import RESOLUTION, Truth, rendered
from examples.bench_world.scene import CLASS_NAMES, KEYPOINT_NAMES, PALETTE, SKELETON, Z_DIM
from labelmint.latents import Purpose, latents
from labelmint.panels import (
    panel_from_depth,
    panel_from_image,
    panel_from_keypoints,
    panel_from_mask,
    size_from_images,
)
from training.errors import TrainingError
from training.images.image_set import refuse_existing_set, write_image_set
from training.images.sample import SOURCE_PREFIX, entries_from_names, names_for_count
from training.label_crop import LabelCrop
from training.labels.labelled_set import LabelledSet
from training.labels.write import write_labels
from training.sheet import Row, sheet_from_rows

MAX_COUNT = 5_000  # images of a set, which is in memory until it is written: 330 KB an image
SHOWN = 8  # images of the sheet
DEPTH_UNIT = "head half-heights"
RENDERER = ("nuisance", "parts", "render", "scene", "shading", "trace")  # modules of its source


@click.command(context_settings={"show_default": True})
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write; it must not hold a set.",
)
@click.option("--count", type=click.IntRange(1, MAX_COUNT), default=16, help="Number of images.")
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, help="Seed of the scenes.")
@click.option("--start", type=click.IntRange(0, 2**62), default=0, help="Index of the first image.")
@click.option(
    "--photographs", is_flag=True, help="Write the images with noise, blur, JPEG and uneven light."
)
@click.option("--workers", type=click.IntRange(1, 256), default=1, help="Processes that render.")
def main(out: Path, count: int, seed: int, start: int, photographs: bool, workers: int) -> None:
    """Write images of the bench world with exact masks, keypoints, depth, albedo and instances.

    Image i depends on the seed and i alone. Larger collections are several sets: continue with
    --start.
    """
    indices = range(start, start + count)
    began = time.monotonic()
    try:
        refuse_existing_set(out)
        truths = list(rendered(seed, indices, workers))
        seconds = time.monotonic() - began
        images = [truth.image for truth in truths]
        if photographs:
            images = [
                photographed(image, seed, i) for image, i in zip(images, indices, strict=True)
            ]
        write_set(out, seed, indices, truths, images, photographs)
        sheet(truths[:SHOWN], seed, indices[:SHOWN]).save(out / "sheet.png")
    except (TrainingError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"wrote {count} images to {out}; rendering took {seconds:.1f} s, {count / seconds:.0f} a "
        f"second; look at {out / 'sheet.png'}"
    )


def write_set(
    folder: Path,
    seed: int,
    indices: Sequence[int],
    truths: Sequence[Truth],
    images: Sequence[NDArray[np.uint8]],  # [H, W, 3] each: the truths' own or photographs of them
    photographs: bool,
) -> None:
    """Writes images and labels as an image set, whose latents are the scenes' z [n, 1, Z_DIM]."""
    crop = LabelCrop(RESOLUTION, 0, RESOLUTION)
    names = names_for_count(len(indices))
    stems = [Path(name).stem for name in names]
    z = latents(seed, Purpose.OBJECT, list(indices), Z_DIM)[:, None]
    cards = [ClassCard(name=n, color=c) for n, c in zip(CLASS_NAMES, PALETTE, strict=True)]
    for kind in ("albedo", "instances"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, truth in zip(names, truths, strict=True):
        Image.fromarray(truth.albedo).save(folder / "albedo" / name)
        Image.fromarray(truth.instance).save(folder / "instances" / name)
    labels = LabelledSet(
        crop,
        tuple(stems),
        z,
        classes=Classes(cards),
        masks=np.stack([truth.mask for truth in truths]),
        keypoints=np.stack([truth.keypoints for truth in truths]),
        keypoint_names=KEYPOINT_NAMES,
        skeleton=SKELETON,
        depth=np.stack([truth.depth for truth in truths]),
        depth_unit=DEPTH_UNIT,
    )
    write_labels(folder, labels)
    write_image_set(
        folder,
        z,
        np.stack(images),
        crop,
        entries_from_names(names, [f"{SOURCE_PREFIX}{i}" for i in indices]),
        renderer_sha256(),
        {
            "by": "python -m examples.bench_world",
            "seed": seed,
            "start": indices[0],
            "count": len(indices),
            "photographs": photographs,
        },
    )


def renderer_sha256() -> str:
    """SHA-256 of the renderer's source, which stands where other sets name their generator."""
    digest = hashlib.sha256()
    for name in RENDERER:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


def sheet(truths: Sequence[Truth], seed: int, indices: Sequence[int]) -> Image.Image:
    """Contact sheet: one column for each image, one row for each kind of label."""
    images = [truth.image for truth in truths]
    size = size_from_images(np.stack(images))
    photographs = [photographed(im, seed, i) for im, i in zip(images, indices, strict=True)]
    palette = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in PALETTE], np.uint8)
    near, far = (float(f([f(t.depth) for t in truths])) for f in (np.min, np.max))
    grid = (RESOLUTION, RESOLUTION)
    rows = [
        Row("image", [panel_from_image(image, size) for image in images]),
        Row("photograph", [panel_from_image(image, size) for image in photographs]),
        Row("albedo", [panel_from_image(t.albedo, size) for t in truths]),
        Row("mask", [panel_from_mask(t.mask, t.image, palette, size) for t in truths]),
        Row(
            "keypoints",
            [panel_from_keypoints(t.keypoints, SKELETON, t.image, grid, size) for t in truths],
        ),
        Row("depth", [panel_from_depth(t.depth, near, far, size) for t in truths]),
    ]
    legend = [
        ((int(r), int(g), int(b)), name)
        for (r, g, b), name in zip(palette, CLASS_NAMES, strict=True)
    ]
    return sheet_from_rows(rows, [f"#{i}" for i in indices], legend)


if __name__ == "__main__":
    main()
