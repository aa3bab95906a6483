"""Image pools for refiner training: the name of a source -> its images in one tensor.

A source is a generator's weights file, a running service, or a folder. The same source and seed
give the same images bit for bit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from labelmint import Client
from labelmint.errors import LabelmintError
from training.errors import RefinerError
from training.images.image_set import IMAGES, INDEX, image_set_from_folder, read_rgb
from training.images.sample import SampleConfig, drawn_w, truncated
from training.label_crop import crop_for_generator, images_from_ws
from training.options import read_generator

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
BUNDLE_MANIFEST = "manifest.json"
BATCH = 16


@dataclass(frozen=True, eq=False)
class Pool:
    """Images of one size, with masks and provenance where the source has them."""

    images: Tensor  # uint8 [n, 3, H, W]
    masks: Tensor | None = None  # class ids, uint8 [n, H, W]
    licences: tuple[str, ...] = ()
    generator_sha256: str | None = None  # SHA-256 of the weights file, if known

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[2], self.images.shape[3]


def pool_from_source(
    source: str, count: int, seed: int, device: torch.device | None = None
) -> Pool:
    """Images of a weights file (`count`, generated on the device), of a service at HOST:PORT
    (`count`), or of a folder (the first `count`, or fewer if it has fewer).

    Raises TrainingError, CheckpointError.
    """
    path = Path(source)
    if path.is_file():
        return pool_from_generator(path, count, seed, device)
    if (path / BUNDLE_MANIFEST).exists():
        raise RefinerError(
            f"{source} is a bundle, which training does not run; serve it and give HOST:PORT, or "
            "give the weights of its generator"
        )
    if (path / INDEX).exists():
        index = image_set_from_folder(path).index
        images = images_from_folder(path / IMAGES, count, None)
        return Pool(images, generator_sha256=index.generator_sha256)
    if path.is_dir():
        return Pool(images_from_folder(path, count, None))
    if ":" not in source:
        raise RefinerError(
            f"{source} does not exist; give a generator's weights, HOST:PORT of a service, or a "
            "folder of images"
        )
    return pool_from_service(source, count, seed)


def pool_from_generator(
    path: Path, count: int, seed: int, device: torch.device | None = None
) -> Pool:
    """Samples 0 to `count` - 1 of the stream of this seed, at the card's truncation."""
    generator, card, sha256 = read_generator(path, None)
    generator.to(device)
    psi, cutoff = card.truncation_psi, card.truncation_cutoff
    config = SampleConfig(count, count, seed, psi, cutoff)
    ws = truncated(generator, drawn_w(generator, config), config)
    crop = crop_for_generator(generator.config)
    chunks = np.array_split(ws, -(-count // BATCH))
    parts = []
    with tqdm(total=count, desc="images", unit="image") as bar:
        for chunk in chunks:
            parts.append(images_from_ws(generator, chunk, crop))
            bar.update(len(chunk))
    return Pool(_tensor(np.concatenate(parts)), None, tuple(card.licences), sha256)


def pool_from_service(target: str, count: int, seed: int) -> Pool:
    """Samples 0 to `count` - 1 of a service's stream of this seed. Raises RefinerError."""
    try:
        with Client(target) as client, tqdm(total=count, desc="images", unit="image") as bar:
            model = client.model()
            labelled = "mask" in model.outputs and model.label_size == model.image_size
            outputs = ("image", "mask") if labelled else ("image",)
            batches = []
            for batch in client.stream(BATCH, seed=seed, count=count, outputs=outputs):
                batches.append(batch)
                bar.update(len(batch))
    except (LabelmintError, ValueError) as error:
        raise RefinerError(f"--source {target}: {error}") from error
    images = np.concatenate([batch.images for batch in batches if batch.images is not None])
    masks = [batch.masks for batch in batches if batch.masks is not None]
    return Pool(
        _tensor(images),
        torch.from_numpy(np.concatenate(masks)) if masks else None,
        tuple(model.licences),
    )


def images_from_folder(folder: Path, count: int, fit: tuple[int, int] | None) -> Tensor:
    """The first `count` images in the order of their names, uint8 [n, 3, H, W].

    With `fit`, each is resized and center-cropped to that (height, width); without, all must have
    the same size. Raises TrainingError naming the folder or file.
    """
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)[:count]
    except OSError as error:
        raise RefinerError(f"{folder} cannot be read ({error.strerror})") from error
    if not paths:
        raise RefinerError(f"{folder} has no images ({', '.join(SUFFIXES)})")
    images: list[np.ndarray] = []
    for path in tqdm(paths, desc=folder.name, unit="image"):
        images.append(_fitted(read_rgb(path), fit))
        if images[-1].shape != images[0].shape:
            raise RefinerError(
                f"{path} is {_size_text(images[-1])} pixels, {paths[0].name} is "
                f"{_size_text(images[0])}; all must have one size (--fit resizes and crops the "
                "images of --real)"
            )
    return _tensor(np.stack(images))


def _fitted(image: np.ndarray, fit: tuple[int, int] | None) -> np.ndarray:  # uint8 [H, W, 3]
    if fit is None or image.shape[:2] == fit:
        return image
    height, width = fit
    fitted = ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def _size_text(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _tensor(images: np.ndarray) -> Tensor:  # uint8 [n, H, W, 3] -> [n, 3, H, W]
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
