"""The demo's exact cameras, in place of a person's annotations: python -m examples.demo.cameras

A seed and a number of draws enter; a file for `python -m training views --cameras` leaves.
"""

import math
from pathlib import Path

import click
import numpy as np
import torch

from examples.demo.scene import CAMERA_DISTANCE, FOCAL, Z_DIM, scene_from_latents
from labelmint.latents import Purpose, latents
from training.views.bank import ViewsConfig
from training.views.cameras import CameraRow, write_cameras


def cameras_of_draws(seed: int, count: int) -> list[CameraRow]:
    """Cameras of the stream's first samples, without truncation."""
    z = torch.from_numpy(latents(seed, Purpose.OBJECT, np.arange(count), Z_DIM))
    scene = scene_from_latents(z, z)
    return [
        CameraRow(
            row=row,
            azimuth_deg=math.degrees(azimuth),
            elevation_deg=math.degrees(elevation),
            distance=CAMERA_DISTANCE,
            focal=FOCAL,
        )
        for row, (azimuth, elevation) in enumerate(
            zip(scene.azimuth.tolist(), scene.elevation.tolist(), strict=True)
        )
    ]


@click.command(context_settings={"show_default": True})
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File to write: .csv or .json.",
)
@click.option("--seed", type=int, default=ViewsConfig.seed, help="Seed of the draws.")
@click.option("--count", type=click.IntRange(1), default=192, help="Number of draws.")
def main(out: Path, seed: int, count: int) -> None:
    """Write the cameras of the demo generator's first draws as CSV or JSON."""
    write_cameras(out, cameras_of_draws(seed, count))
    click.echo(f"wrote {count} cameras to {out}")


if __name__ == "__main__":
    main()
