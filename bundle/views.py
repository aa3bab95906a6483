"""View bank of a bundle: codes from views.f32, cameras from the manifest."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.errors import FileError
from bundle.manifest import VIEWS, GeneratorFacts, ViewBankFacts

CAMERA_FIELDS = ("azimuth_deg", "elevation_deg", "distance", "focal")  # columns, in this order


@dataclass(frozen=True, eq=False)
class ViewBank:
    """View codes, values for the first rows of w+, and their cameras."""

    codes: NDArray[np.float32]  # [codes, view_layers, w_dim]
    cameras: NDArray[np.float32] | None  # [codes, 4], see CAMERA_FIELDS; NaN: unknown

    def __len__(self) -> int:
        return len(self.codes)


def view_bank_from_bytes(
    data: bytes, file: Path, views: ViewBankFacts, generator: GeneratorFacts
) -> ViewBank:
    """Content of views.f32, whose size the caller has checked. Raises FileError, naming `file`."""
    codes = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(codes).all():
        raise FileError(f"{file} holds values that are not finite; export the bundle again")
    shape = (views.codes, generator.view_layers, generator.w_dim)
    return ViewBank(codes.reshape(shape), cameras_from_views(views))


def write_view_codes(folder: Path, codes: NDArray[np.float32]) -> None:
    """Writes codes, float32 [codes, view_layers, w_dim], to views.f32 in a staged folder."""
    (folder / VIEWS).write_bytes(np.ascontiguousarray(codes, "<f4").tobytes())


def cameras_from_views(views: ViewBankFacts) -> NDArray[np.float32] | None:
    """Cameras, float32 [codes, 4], see CAMERA_FIELDS; None if all are unknown."""
    if views.cameras is None:
        return None
    rows = [[getattr(camera, field) for field in CAMERA_FIELDS] for camera in views.cameras]
    return np.array([[np.nan if v is None else v for v in row] for row in rows], np.float32)
