"""python -m training views: a generator's weights -> a bank of view codes."""

from pathlib import Path
from typing import Any

import click
import torch

from checkpoints import made_folder, signals_held, write_views
from nets.generator import Generator
from training.errors import TrainingError
from training.label_crop import LabelCrop, crop_for_generator
from training.options import (
    AT_LEAST_1,
    FILE,
    MAX_STREAM_SEED,
    check_suffix,
    crop_options,
    device_option,
    force_option,
    generator_option,
    mean_latent_option,
    read_generator,
    refuse_existing,
    seed_option,
    truncation_options,
    weights_out_option,
)
from training.views.bank import (
    Bank,
    Spread,
    ViewsConfig,
    bank_from_cameras,
    bank_from_draws,
    card_from_bank,
    config_from_card,
    drawn_ws,
    identity_of_draws,
)
from training.views.cameras import MAX_ROW, CameraRow, cameras_from_file, write_cameras
from training.views.sheet import sheet_of_bank, sheet_of_candidates


@click.command()
@generator_option
@mean_latent_option
@weights_out_option("its card (.toml) and contact sheet (.png)", what="View bank", required=False)
@force_option
@click.option(
    "--annotate",
    type=FILE,
    help="CSV or JSON file of candidates to write instead of a bank, for people to annotate, with "
    "a contact sheet beside it.",
)
@click.option(
    "--cameras",
    "cameras_path",
    type=FILE,
    help="Annotated file of --annotate; views are chosen by its azimuths and elevations.",
)
@click.option(
    "--spread",
    type=click.Choice(["images", "w"]),
    help="What draws are compared by without --cameras: small images of the average object, or "
    "w, which is faster but says little about the view.  [default: images]",
)
@click.option(
    "--count",
    type=AT_LEAST_1,
    default=ViewsConfig.count,
    help="Number of views in the bank.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1, MAX_ROW),
    help="Number of draws to choose from, or to annotate.  [default: 16 times --count, or 96 to "
    "annotate]",
)
@seed_option("Seed of the draws.", ViewsConfig.seed, MAX_STREAM_SEED)
@truncation_options
@click.option(
    "--view-layers",
    type=AT_LEAST_1,
    help="Number of first rows of w+ that carry the viewpoint; required if the card does not say.",
)
@click.option(
    "--objects",
    type=click.IntRange(1, 64),
    default=6,
    help="Number of objects on the contact sheet.",
)
@crop_options("the contact sheet's images")
@device_option
def views(
    generator_path: Path,
    mean_latent: Path | None,
    out: Path | None,
    force: bool,
    annotate: Path | None,
    cameras_path: Path | None,
    spread: Spread | None,
    candidates: int | None,
    objects: int,
    grid: int | None,
    rows: tuple[int, int] | None,
    device: torch.device,
    **settings: Any,
) -> None:
    """Make a bank of view codes, for `export bundle --views`.

    A view code is the first rows of w+, which carry the viewpoint. Without --cameras the bank
    has the draws that look least alike, with --cameras those farthest apart in azimuth and
    elevation.
    """
    _check_paths(out, annotate, cameras_path)
    if out is not None:
        refuse_existing(out, force)
    if cameras_path is not None and (candidates or spread):
        raise click.UsageError(
            "--cameras already gives the candidates; leave --candidates and --spread out"
        )
    generator, card, sha256 = read_generator(generator_path, mean_latent)
    generator.to(device)
    config = config_from_card(card, **settings)
    crop = crop_for_generator(generator.config, grid, rows)
    draw = identity_of_draws(sha256, config)
    with made_folder((annotate or out or Path()).parent):
        if annotate is not None:
            return _write_candidates(generator, config, candidates or 96, crop, annotate, draw)
        assert out is not None  # _check_paths
        spread = "cameras" if cameras_path is not None else spread or "images"
        if cameras_path is not None:
            bank = bank_from_cameras(generator, config, cameras_from_file(cameras_path, draw))
        else:
            bank = bank_from_draws(generator, config, candidates or 16 * config.count, spread)
        sheet_objects = drawn_ws(generator, config, objects)
        sheet = sheet_of_bank(generator, bank.codes, sheet_objects, captions_from_bank(bank), crop)
        with signals_held() as held:
            sheet.save(out.with_suffix(".png"))
            write_views(  # last, so that without it the next run goes on
                out, bank.codes, card_from_bank(bank, config, spread, sha256, card.licences)
            )
            held.end(f"all of {out} was written")
        click.echo(
            f"wrote {config.count} views of {config.view_layers} rows to {out}, and their contact "
            "sheet"
        )


def captions_from_bank(bank: Bank) -> list[str]:
    """Titles such as "view 3: -57° +12°": the code's number, and azimuth and elevation where they
    are known."""
    captions = []
    for number in range(len(bank.codes)):
        camera = None if bank.cameras is None else bank.cameras[number]
        angles = [] if camera is None else [camera.azimuth_deg, camera.elevation_deg]
        known = [f"{angle:+.0f}°" for angle in angles if angle is not None]
        captions.append(": ".join([f"view {number}", *([" ".join(known)] if known else [])]))
    return captions


def _write_candidates(
    generator: Generator,
    config: ViewsConfig,
    candidates: int,
    crop: LabelCrop,
    path: Path,
    draw: str,
) -> None:
    codes = drawn_ws(generator, config, candidates)[:, : config.view_layers]
    write_cameras(path, [CameraRow(row=row, draw=draw) for row in range(candidates)])
    sheet = sheet_of_candidates(generator, codes, crop)
    sheet.save(path.with_suffix(".png"))
    click.echo(
        f"wrote {candidates} rows to {path} and their images to {path.with_suffix('.png')}; fill "
        "in azimuth_deg and elevation_deg, leave unclear ones empty, then give it as --cameras"
    )


def _check_paths(out: Path | None, annotate: Path | None, cameras: Path | None) -> None:
    if (out is None) == (annotate is None):
        raise click.UsageError("give --out for a bank, or --annotate for candidates to annotate")
    if annotate is not None and cameras is not None:
        raise click.UsageError("--annotate writes the file that --cameras reads; give one of them")
    if out is not None:
        check_suffix(out)
    if annotate is not None and annotate.suffix.lower() not in (".csv", ".json"):
        raise TrainingError(f"--annotate is {annotate}; it takes .csv or .json")
