"""Draws of a generator -> a view bank: view codes that are spread over the possible views.

A view code is the first rows of w+, which carry the viewpoint. Codes are chosen by how different
the average object looks with them, by w, or by annotated cameras.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from checkpoints import GeneratorCard, ViewsCard
from nets.config import rows_of_ws
from nets.generator import Generator
from training.errors import TrainingError
from training.images.sample import SampleConfig, drawn_w, spread_rows, truncated
from training.label_crop import LabelCrop, crop_for_generator, images_from_ws
from training.views.cameras import CameraRow

Spread = Literal["images", "w", "cameras"]
SMALL = 16  # side of the images that candidates are compared by, pixels
SYNTHESIS_BATCH = 16


@dataclass(frozen=True)
class ViewsConfig:
    """Settings of a bank and of the draws behind it."""

    view_layers: int  # rows of w+ in a code
    psi: float  # truncation psi of the draws
    cutoff: int  # number of first rows of w+ that psi applies to
    count: int = 12  # codes in the bank
    seed: int = 2021

    def draws(self, candidates: int) -> SampleConfig:
        """Settings of the seed's first `candidates` draws."""
        return SampleConfig(
            count=1, candidates=candidates, seed=self.seed, psi=self.psi, cutoff=self.cutoff
        )


@dataclass(frozen=True)
class Bank:
    """View codes, with the draws and cameras they come from."""

    codes: NDArray[np.float32]  # [count, view_layers, w_dim]
    rows: NDArray[np.int64]  # [count], indices of the draws of the seed
    cameras: list[CameraRow] | None  # one per code; None: unknown


def config_from_card(
    card: GeneratorCard,
    view_layers: int | None,
    psi: float | None,
    cutoff: int | None,
    count: int,
    seed: int,
) -> ViewsConfig:
    """Settings with the card's values in place of None. Raises TrainingError."""
    return ViewsConfig(
        view_layers=view_layers_of(card, view_layers),
        psi=card.truncation_psi if psi is None else psi,
        cutoff=card.truncation_cutoff if cutoff is None else cutoff,
        count=count,
        seed=seed,
    )


def view_layers_of(card: GeneratorCard, given: int | None) -> int:
    """Number of rows of w+ in a code, from the option or the card.

    Raises TrainingError when neither has it, when they differ, or when it is out of range.
    """
    num_ws = rows_of_ws(card.family, len(card.config.channels))
    if given is None and card.view_layers == 0:
        raise TrainingError(
            "this generator's card does not say which rows of w+ carry the viewpoint "
            "(view_layers is 0); give --view-layers, for the published car generator 4"
        )
    if card.view_layers and given not in (None, card.view_layers):
        raise TrainingError(
            f"--view-layers is {given}, the generator's card says {card.view_layers}; leave it out"
        )
    layers = card.view_layers if given is None else given
    if not 1 <= layers <= num_ws:
        raise TrainingError(f"--view-layers is {layers}; this generator has {num_ws} rows of w+")
    return layers


def identity_of_draws(generator_sha256: str, config: ViewsConfig) -> str:
    """Hash of everything that decides the draws, 12 hex digits.

    An annotation file carries it, so that annotations are not applied to other draws.
    """
    parts = (generator_sha256, config.seed, config.psi, config.cutoff, config.view_layers)
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:12]


def drawn_ws(generator: Generator, config: ViewsConfig, candidates: int) -> NDArray[np.float32]:
    """Truncated w+ of the seed's first draws, [candidates, num_ws, w_dim]. Raises TrainingError."""
    if not 0 <= config.cutoff <= generator.config.num_ws:
        raise TrainingError(
            f"--cutoff is {config.cutoff}; this generator has {generator.config.num_ws} rows"
        )
    draws = config.draws(candidates)
    return truncated(generator, drawn_w(generator, draws), draws)


def bank_from_draws(
    generator: Generator, config: ViewsConfig, candidates: int, spread: Spread = "images"
) -> Bank:
    """A bank of the codes farthest apart, in small images of the average object or in w; cameras
    are unknown. Raises TrainingError."""
    if candidates < config.count:
        raise TrainingError(
            f"{config.count} views cannot be chosen from {candidates} candidates; raise "
            "--candidates or lower --count"
        )
    codes = drawn_ws(generator, config, candidates)[:, : config.view_layers]
    points = codes[:, 0] if spread == "w" else small_images(generator, codes)
    rows = spread_rows(points, config.count)
    return Bank(codes[rows], rows, None)


def small_images(generator: Generator, codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The average object under each code, at 16 px, float32 [n, values].

    Distances between these images reflect the view; distances in w are dominated by what the view
    rows do not show (docs/decisions/0016).
    """
    crop = crop_for_generator(generator.config, min(SMALL, generator.config.resolution))
    batches = [
        images_of_average(generator, codes[i : i + SYNTHESIS_BATCH], crop)
        for i in tqdm(range(0, len(codes), SYNTHESIS_BATCH), desc="candidates")
    ]
    return np.concatenate(batches).reshape(len(codes), -1).astype(np.float32)


def images_of_average(
    generator: Generator, codes: NDArray[np.float32], crop: LabelCrop
) -> NDArray[np.uint8]:
    """The average object (the mean of w) under codes [n, view_layers, w_dim], uint8
    [n, height, width, 3]."""
    ws = np.tile(generator.mapping.w_avg.cpu().numpy(), (len(codes), generator.config.num_ws, 1))
    ws[:, : codes.shape[1]] = codes
    return images_from_ws(generator, ws, crop)


def bank_from_cameras(
    generator: Generator, config: ViewsConfig, cameras: Sequence[CameraRow]
) -> Bank:
    """A bank of the codes whose camera directions are farthest apart, sorted by azimuth.

    Raises TrainingError.
    """
    if len(cameras) < config.count:
        raise TrainingError(
            f"{len(cameras)} rows have an azimuth, --count is {config.count}; annotate more or "
            "lower it"
        )
    chosen = [cameras[i] for i in spread_rows(directions(cameras), config.count)]
    chosen.sort(key=lambda camera: (camera.azimuth_deg, camera.elevation_deg or 0.0))
    rows = np.array([camera.row for camera in chosen])
    codes = drawn_ws(generator, config, int(rows.max()) + 1)[rows, : config.view_layers]
    return Bank(codes, rows, chosen)


def directions(cameras: Sequence[CameraRow]) -> NDArray[np.float64]:
    """Unit vectors from the object to the cameras, [n, 3]: x to the object's left, y up, z to the
    front. Unlike angles, -180 and 180 degrees are equal. Unknown elevations count as 0."""
    azimuth = np.radians([camera.azimuth_deg or 0.0 for camera in cameras])
    elevation = np.radians([camera.elevation_deg or 0.0 for camera in cameras])
    across = np.cos(elevation)
    return np.stack([across * np.sin(azimuth), np.sin(elevation), across * np.cos(azimuth)], axis=1)


def card_from_bank(
    bank: Bank, config: ViewsConfig, spread: Spread, generator_sha256: str, licences: list[str]
) -> ViewsCard:
    """The card of a bank."""
    rows = " ".join(map(str, bank.rows))
    return ViewsCard(
        format=1,
        kind="views",
        generator_sha256=generator_sha256,
        codes=len(bank.codes),
        view_layers=bank.codes.shape[1],
        w_dim=bank.codes.shape[2],
        licences=licences,
        provenance={
            "by": "python -m training views",
            "spread": spread,
            "rows": rows,
            **asdict(config),
        },
        cameras=None if bank.cameras is None else [row.camera for row in bank.cameras],
    )
