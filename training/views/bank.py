"""View codes: the first rows of w+ that carry the viewpoint, drawn and spread into a bank."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from checkpoints import GeneratorCard, ViewsCard
from nets.generator import Generator
from training.errors import TrainingError
from training.images.sample import SampleConfig, drawn_w, spread_rows, truncated
from training.label_crop import LabelCrop, crop_for_resolution, images_from_ws
from training.views.cameras import CameraRow

Spread = Literal["images", "w", "cameras"]
SMALL = 16  # pixels of the images that draws are told apart by
DRAWN_AT_ONCE = 16


@dataclass(frozen=True)
class ViewsConfig:
    """How a bank is made."""

    view_layers: int  # rows of a code
    psi: float  # truncation of the draws
    cutoff: int  # rows that psi is applied to
    count: int = 12  # codes of the bank
    seed: int = 2021

    def draws(self, candidates: int) -> SampleConfig:
        """The first so many draws of the seed."""
        return SampleConfig(
            count=1, candidates=candidates, seed=self.seed, psi=self.psi, cutoff=self.cutoff
        )


@dataclass(frozen=True)
class Bank:
    """View codes, and where each is from."""

    codes: NDArray[np.float32]  # [count, view_layers, w_dim]
    rows: NDArray[np.int64]  # [count], which draws of the seed
    cameras: list[CameraRow] | None  # one for each code; None: none is known


def view_layers_of(card: GeneratorCard, given: int | None) -> int:
    """Rows of a code. Raises TrainingError when nobody says, or the two contradict each other."""
    num_ws = 2 * len(card.config.channels)
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
    """What a numbered draw is a function of, so that annotations are not given to others."""
    parts = (generator_sha256, config.seed, config.psi, config.cutoff, config.view_layers)
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:12]


def drawn_rows(generator: Generator, config: ViewsConfig, candidates: int) -> NDArray[np.float32]:
    """w+ of the first draws, [candidates, num_ws, w_dim]. Raises TrainingError."""
    if not 0 <= config.cutoff <= generator.config.num_ws:
        raise TrainingError(
            f"--cutoff is {config.cutoff}; this generator has {generator.config.num_ws} rows"
        )
    draws = config.draws(candidates)
    return truncated(generator, drawn_w(generator, draws), draws)


def bank_from_draws(
    generator: Generator, config: ViewsConfig, candidates: int, spread: Spread = "images"
) -> Bank:
    """The codes farthest apart in what they make of the average object, or in w; their cameras
    are not known. Raises TrainingError."""
    if candidates < config.count:
        raise TrainingError(
            f"{config.count} views cannot be chosen from {candidates} candidates; raise "
            "--candidates or lower --count"
        )
    codes = drawn_rows(generator, config, candidates)[:, : config.view_layers]
    points = codes[:, 0] if spread == "w" else small_images(generator, codes)
    rows = spread_rows(points, config.count)
    return Bank(codes[rows], rows, None)


def small_images(generator: Generator, codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The average object seen with each code, float32 [n, pixels]: w differs in much that these
    rows do not show, and a few pixels show the viewpoint."""
    resolution = generator.config.resolution
    crop = crop_for_resolution(resolution, min(SMALL, resolution))
    parts = [
        images_of_average(generator, codes[i : i + DRAWN_AT_ONCE], crop)
        for i in tqdm(range(0, len(codes), DRAWN_AT_ONCE), desc="candidates")
    ]
    return np.concatenate(parts).reshape(len(codes), -1).astype(np.float32)


def images_of_average(
    generator: Generator, codes: NDArray[np.float32], crop: LabelCrop
) -> NDArray[np.uint8]:
    """The object of the mean of w under codes [n, view_layers, w_dim]: [n, height, width, 3]."""
    ws = np.tile(generator.mapping.w_avg.cpu().numpy(), (len(codes), generator.config.num_ws, 1))
    ws[:, : codes.shape[1]] = codes
    return images_from_ws(generator, ws, crop)


def bank_from_cameras(
    generator: Generator, config: ViewsConfig, cameras: Sequence[CameraRow]
) -> Bank:
    """The codes whose cameras are spread evenly, by azimuth. Raises TrainingError."""
    if len(cameras) < config.count:
        raise TrainingError(
            f"{len(cameras)} rows have an azimuth, --count is {config.count}; annotate more or "
            "lower it"
        )
    chosen = [cameras[i] for i in spread_rows(directions(cameras), config.count)]
    chosen.sort(key=lambda camera: (camera.azimuth_deg, camera.elevation_deg or 0.0))
    rows = np.array([camera.row for camera in chosen])
    codes = drawn_rows(generator, config, int(rows.max()) + 1)[rows, : config.view_layers]
    return Bank(codes, rows, chosen)


def directions(cameras: Sequence[CameraRow]) -> NDArray[np.float64]:
    """Unit vectors towards the cameras, [n, 3], so that -180 and 180 degrees are the same.

    An elevation that is not known counts as 0.
    """
    azimuth = np.radians([camera.azimuth_deg or 0.0 for camera in cameras])
    elevation = np.radians([camera.elevation_deg or 0.0 for camera in cameras])
    across = np.cos(elevation)
    return np.stack([across * np.sin(azimuth), np.sin(elevation), across * np.cos(azimuth)], axis=1)


def card_from_bank(
    bank: Bank, config: ViewsConfig, spread: Spread, generator_sha256: str, licences: list[str]
) -> ViewsCard:
    """The card of a bank that was made so."""
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
