"""Image pools for refiner training: the name of a source -> the pool that its images fill.

A source is a generator's weights file, a running service, or a folder. The same source, count and
seed give the same images bit for bit.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from labelmint import Client
from labelmint.errors import LabelmintError
from training.errors import RefinerError
from training.images.image_set import IMAGES, INDEX, image_set_from_folder, read_rgb
from training.images.pool import Pool
from training.images.sample import SampleConfig, drawn_w, truncated
from training.label_crop import crop_for_generator, images_from_ws
from training.options import read_generator

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
BUNDLE_MANIFEST = "manifest.json"


@contextmanager
def opened_pool(
    source: str, count: int, seed: int, device: torch.device | None = None
) -> Iterator[Pool]:
    """A pool of images of a weights file (`count`, generated on the device), of a service at
    HOST:PORT (`count`), or of a folder (the first `count`, or fewer if it has fewer).

    It is empty at first, that of a folder full. Raises TrainingError, CheckpointError.
    """
    path = Path(source)
    if path.is_file():
        yield pool_from_generator(path, count, seed, device)
    elif (path / BUNDLE_MANIFEST).exists():
        raise RefinerError(
            f"{source} is a bundle, which training does not run; serve it and give HOST:PORT, or "
            "give the weights of its generator"
        )
    elif (path / INDEX).exists():
        index = image_set_from_folder(path).index
        images = images_from_folder(path / IMAGES, count, None)
        yield Pool(images, generator_sha256=index.generator_sha256)
    elif path.is_dir():
        yield Pool(images_from_folder(path, count, None))
    elif ":" in source:
        with pool_from_service(source, count, seed) as pool:
            yield pool
    else:
        raise RefinerError(
            f"{source} does not exist; give a generator's weights, HOST:PORT of a service, or a "
            "folder of images"
        )


def pool_from_generator(
    path: Path, count: int, seed: int, device: torch.device | None = None
) -> Pool:
    """Samples 0 to `count` - 1 of the stream of this seed, at the card's truncation."""
    generator, card, sha256 = read_generator(path, None)
    generator.to(device)
    psi, cutoff = card.truncation_psi, card.truncation_cutoff
    config = SampleConfig(count, count, seed, psi, cutoff)
    w = drawn_w(generator, config)
    crop = crop_for_generator(generator.config)

    def draw(part: range) -> tuple[NDArray[np.uint8], None]:
        ws = truncated(generator, w[part.start : part.stop], config)
        return images_from_ws(generator, ws, crop), None

    room = torch.empty(count, 3, crop.height, crop.width, dtype=torch.uint8)
    return Pool(room, None, tuple(card.licences), sha256, draw)


@contextmanager
def pool_from_service(target: str, count: int, seed: int) -> Iterator[Pool]:
    """Samples 0 to `count` - 1 of a service's stream of this seed, the connection to which stays
    open. Raises RefinerError."""

    @contextmanager
    def refused() -> Iterator[None]:
        try:
            yield
        except (LabelmintError, ValueError) as error:
            raise RefinerError(f"--source {target}: {error}") from error

    with ExitStack() as opened:
        with refused():
            client = opened.enter_context(Client(target))
            model = client.model()
        height, width = model.image_size
        labelled = "mask" in model.outputs and model.label_size == model.image_size
        outputs = ("image", "mask") if labelled else ("image",)

        def draw(part: range) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
            with refused():
                (batch,) = client.stream(
                    len(part), seed=seed, start_index=part.start, count=len(part), outputs=outputs
                )
            assert batch.images is not None
            return batch.images, batch.masks

        images = torch.empty(count, 3, height, width, dtype=torch.uint8)
        masks = torch.empty(count, height, width, dtype=torch.uint8) if labelled else None
        yield Pool(images, masks, tuple(model.licences), draw=draw)


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
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _fitted(image: np.ndarray, fit: tuple[int, int] | None) -> np.ndarray:  # uint8 [H, W, 3]
    if fit is None or image.shape[:2] == fit:
        return image
    height, width = fit
    fitted = ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def _size_text(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
