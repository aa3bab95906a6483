"""python -m training views: a bank of view codes, spread over what a generator can show."""

from pathlib import Path
from typing import Literal

import click
import torch

from checkpoints import write_views
from nets.generator import Generator
from training.errors import TrainingError
from training.label_crop import LabelCrop, crop_for_resolution
from training.options import (
    FILE,
    device_option,
    force_option,
    generator_option,
    mean_latent_option,
    read_generator,
    refuse_existing,
    rows_from_text,
)
from training.views.bank import (
    Bank,
    Spread,
    ViewsConfig,
    bank_from_cameras,
    bank_from_draws,
    card_from_bank,
    drawn_rows,
    identity_of_draws,
    view_layers_of,
)
from training.views.cameras import MAX_ROW, CameraRow, cameras_from_file, write_cameras
from training.views.sheet import sheet_of_bank, sheet_of_candidates

SUFFIX = ".safetensors"


@click.command()
@generator_option
@mean_latent_option
@click.option("--out", type=FILE, help=f"Bank to write ({SUFFIX}), with card and contact sheet.")
@force_option
@click.option(
    "--annotate",
    type=FILE,
    help="Write candidates for people to annotate instead: this CSV or JSON file, and a sheet.",
)
@click.option(
    "--cameras", "cameras_path", type=FILE, help="That file, annotated: spread over its azimuths."
)
@click.option(
    "--spread",
    type=click.Choice(["images", "w"]),
    help="Without --cameras, take the draws farthest apart in small images of the average object, "
    "or in w, which is quicker and says little of the view.  [default: images]",
)
@click.option("--count", type=click.IntRange(1), default=ViewsConfig.count, help="Views.")
@click.option(
    "--candidates",
    type=click.IntRange(1, MAX_ROW),
    help="Draws to choose from, or to annotate.  [default: 16 times --count, or 96 to annotate]",
)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=ViewsConfig.seed)
@click.option("--psi", type=click.FloatRange(0, 2), help="Truncation psi; absent: the card's own.")
@click.option("--cutoff", type=click.IntRange(0), help="Truncated rows; absent: the card's own.")
@click.option(
    "--view-layers",
    type=click.IntRange(1),
    help="First rows of w+ that carry the viewpoint, where the card does not say.",
)
@click.option("--objects", type=click.IntRange(1, 64), default=6, help="Of the contact sheet.")
@click.option("--grid", type=int, help="Pixels of an image; absent: all, at most 512.")
@click.option(
    "--rows", type=rows_from_text, metavar="FIRST:END", help="Rows of it to show, as 64:448."
)
@device_option
def views(
    generator_path: Path,
    mean_latent: Path | None,
    out: Path | None,
    force: bool,
    annotate: Path | None,
    cameras_path: Path | None,
    spread: Literal["images", "w"] | None,
    count: int,
    candidates: int | None,
    seed: int,
    psi: float | None,
    cutoff: int | None,
    view_layers: int | None,
    objects: int,
    grid: int | None,
    rows: tuple[int, int] | None,
    device: torch.device,
) -> None:
    """Makes a bank of view codes, the first rows of w+, for `export bundle --views`.

    Views are the draws that look least alike or, with --cameras, are farthest apart in azimuth
    and elevation.
    """
    _check_paths(out, annotate, cameras_path)
    if out is not None:
        refuse_existing(out, force)
    if cameras_path is not None and (candidates or spread):
        raise click.UsageError("--cameras says which; leave --candidates and --spread out")
    generator, card, sha256 = read_generator(generator_path, mean_latent)
    generator.to(device)
    config = ViewsConfig(
        view_layers=view_layers_of(card, view_layers),
        psi=card.truncation_psi if psi is None else psi,
        cutoff=card.truncation_cutoff if cutoff is None else cutoff,
        count=count,
        seed=seed,
    )
    crop = crop_for_resolution(generator.config.resolution, grid, rows)
    draw = identity_of_draws(sha256, config)
    (annotate or out or Path()).parent.mkdir(parents=True, exist_ok=True)
    if annotate is not None:
        return _write_candidates(generator, config, candidates or 96, crop, annotate, draw)
    assert out is not None
    used: Spread = "cameras" if cameras_path is not None else spread or "images"
    if cameras_path is not None:
        bank = bank_from_cameras(generator, config, cameras_from_file(cameras_path, draw))
    else:
        bank = bank_from_draws(generator, config, candidates or 16 * count, spread or "images")
    write_views(out, bank.codes, card_from_bank(bank, config, used, sha256, card.licences))
    contents = drawn_rows(generator, config, objects)
    sheet = sheet_of_bank(generator, bank.codes, contents, captions_from_bank(bank), crop)
    sheet.save(out.with_suffix(".png"))
    click.echo(f"wrote {count} views of {config.view_layers} rows to {out}, and their sheet")


def captions_from_bank(bank: Bank) -> list[str]:
    """Number of each view, with azimuth and elevation in degrees where they are known."""
    captions = []
    for number in range(len(bank.codes)):
        camera = None if bank.cameras is None else bank.cameras[number]
        angles = [] if camera is None else [camera.azimuth_deg, camera.elevation_deg]
        known = [f"{angle:+.0f}" for angle in angles if angle is not None]
        captions.append(": ".join([str(number), *([" ".join(known)] if known else [])]))
    return captions


def _write_candidates(
    generator: Generator,
    config: ViewsConfig,
    candidates: int,
    crop: LabelCrop,
    path: Path,
    draw: str,
) -> None:
    codes = drawn_rows(generator, config, candidates)[:, : config.view_layers]
    write_cameras(path, [CameraRow(row=row, draw=draw) for row in range(candidates)])
    sheet = sheet_of_candidates(generator, codes, crop)
    sheet.save(path.with_suffix(".png"))
    click.echo(
        f"wrote {candidates} rows to {path} and their images to {path.with_suffix('.png')}; fill "
        "in azimuth_deg and elevation_deg, leave out what is unclear, then give it as --cameras"
    )


def _check_paths(out: Path | None, annotate: Path | None, cameras: Path | None) -> None:
    if (out is None) == (annotate is None):
        raise click.UsageError("give --out for a bank, or --annotate for candidates to annotate")
    if annotate is not None and cameras is not None:
        raise click.UsageError("--annotate writes what --cameras reads; give one of them")
    if out is not None and out.suffix != SUFFIX:
        raise TrainingError(f"--out is {out}; a bank is written as {SUFFIX}")
    if annotate is not None and annotate.suffix.lower() not in (".csv", ".json"):
        raise TrainingError(f"--annotate is {annotate}; it takes .csv or .json")
