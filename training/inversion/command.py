"""python -m training invert: real images -> a set of images and latents, as `sample` writes it."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
import torch

from checkpoints import EncoderCard, encoder_from_file, sha256_of_file
from nets.encoder import Encoder
from nets.generator import Generator
from training.errors import TrainingError
from training.images.image_set import (
    IMAGES,
    ImageEntry,
    refuse_existing_set,
    sha256_of_array,
    write_image_set,
)
from training.images.photos import RealImages, real_images_from_folder
from training.inversion.distances import DistanceName, distance_from_name
from training.inversion.optimise import (
    UNFINISHED,
    Fit,
    InvertConfig,
    Parts,
    images_at_once,
    invert_images,
)
from training.inversion.report import (
    Judgement,
    Keep,
    OnBad,
    Report,
    kept_fit,
    report_of_inversion,
    table_of_report,
    write_report,
)
from training.inversion.sheet import write_sheets
from training.inversion.train_encoder import ws_from_images
from training.label_crop import LabelCrop, crop_for_resolution, images_from_ws
from training.options import (
    FILE,
    FOLDER,
    device_option,
    distance_option,
    generator_option,
    identity_of_generator,
    mean_latent_option,
    read_generator,
    rows_from_text,
    vgg_weights_option,
)

WEIGHT = click.FloatRange(0)


@click.command()
@generator_option
@mean_latent_option
@click.option("--images", type=FOLDER, required=True, help="Folder of real images.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option(
    "--encoder", "encoder_path", type=FILE, help="Gives the start; absent: the mean latent."
)
@click.option("--steps", type=click.IntRange(0), default=InvertConfig.steps, help="0: the start.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=InvertConfig.learning_rate,
    help="Adam's at its highest.",
)
@click.option("--perceptual-weight", type=WEIGHT, default=InvertConfig.perceptual_weight)
@click.option("--mse-weight", type=WEIGHT, default=InvertConfig.mse_weight)
@click.option(
    "--latent-weight",
    type=WEIGHT,
    default=InvertConfig.latent_weight,
    help="Of the mean squared distance to the start.",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Images at a time; absent: by the resolution."
)
@click.option("--keep", type=click.Choice(["best", "last"]), default=Judgement.keep)
@click.option("--min-psnr", type=float, metavar="DB", help="Less is bad.")
@click.option(
    "--max-mads",
    type=click.FloatRange(0),
    default=Judgement.max_mads,
    help="Deviations (scaled MAD) over which worse than the median is bad.",
)
@click.option("--on-bad", type=click.Choice(["flag", "drop"]), default=Judgement.on_bad)
@click.option("--grid", type=int, help="Pixels of the label grid; absent: all, at most 512.")
@click.option(
    "--rows",
    type=rows_from_text,
    metavar="FIRST:END",
    help="Rows of the grid that the images are, as 64:448 for cars.",
)
@distance_option
@vgg_weights_option
@device_option
def invert(
    generator_path: Path,
    mean_latent: Path | None,
    images: Path,
    out: Path,
    encoder_path: Path | None,
    steps: int,
    learning_rate: float,
    perceptual_weight: float,
    mse_weight: float,
    latent_weight: float,
    batch: int | None,
    keep: Keep,
    min_psnr: float | None,
    max_mads: float,
    on_bad: OnBad,
    grid: int | None,
    rows: tuple[int, int] | None,
    distance_name: DistanceName,
    vgg_weights: Path | None,
    device: torch.device,
) -> None:
    """Finds the latents of real images, so that labels of real images can train.

    Writes the cropped images, their latents, the index that pairs them, report.json and sheets.
    Batches that are done lie in --out, and the same command goes on after them.
    """
    refuse_existing_set(out)
    if images.resolve() in (out.resolve(), (out / IMAGES).resolve()):
        raise TrainingError(f"{out} would write over the pictures in {images}; name another --out")
    generator, _, sha256 = read_generator(generator_path, mean_latent)
    config = InvertConfig(
        steps=steps,
        learning_rate=learning_rate,
        perceptual_weight=perceptual_weight,
        mse_weight=mse_weight,
        latent_weight=latent_weight,
        at_once=batch,
    )
    judgement = Judgement(keep, on_bad, min_psnr, max_mads)
    encoder, crop = encoder_and_crop(encoder_path, generator, sha256, grid, rows)
    real = real_images_from_folder(images, crop)
    if real.ignored:
        click.echo(f"not pictures, left out: {', '.join(real.ignored)}")
    distance, words = distance_from_name(distance_name, vgg_weights, device)
    click.echo(words)
    if encoder is None:
        click.echo(
            "start: the mean latent; labels fit better from an encoder's (python -m training "
            "encoder, then --encoder)"
        )

    encoder_sha256 = None if encoder_path is None else sha256_of_file(encoder_path)
    at_once = batch or images_at_once(generator.config.resolution)
    recipe = {
        **identity_of_generator(generator, sha256),
        "encoder weights": encoder_sha256,
        **asdict(crop),
        "images": sha256_of_array(real.pixels),
        **asdict(config),
        "at_once": at_once,
        "distance": distance.name,
        "VGG weights": vgg_weights and sha256_of_file(vgg_weights),
    }
    shape = (len(real.pixels), generator.config.num_ws, generator.config.w_dim)
    parts = Parts(out / UNFINISHED, recipe, shape, at_once)
    out.mkdir(parents=True, exist_ok=True)  # before the hours, not after
    generator.to(device)
    start = None
    if encoder is not None:
        start = ws_from_images(encoder.to(device), generator, real.pixels, crop)
    inversion = invert_images(generator, real.pixels, crop, config, start, distance, parts)

    made: dict[str, str | int | float | bool | None] = {
        "by": "python -m training invert",
        **asdict(config),
        "distance": distance.name,
        "start": "mean latent" if encoder is None else "encoder",
        "encoder_sha256": encoder_sha256,
        **asdict(judgement),
    }
    report = report_of_inversion(inversion, real.names, judgement, made)
    kept = kept_fit(inversion, keep)
    write_report(out, report)
    start_name = str(made["start"])
    shown = [images_from_ws(generator, fit.ws.numpy(), crop) for fit in (inversion.start, kept)]
    sheets = write_sheets(out, report, start_name, keep, (real.pixels, *shown))
    click.echo(table_of_report(report, start_name))
    click.echo(f"wrote {out / 'report.json'} and {', '.join(path.name for path in sheets)}")
    write_kept(out, real, kept, crop, report, sha256)
    parts.remove()


def encoder_and_crop(
    path: Path | None,
    generator: Generator,
    sha256: str,
    grid: int | None,
    rows: tuple[int, int] | None,
) -> tuple[Encoder | None, LabelCrop]:
    """The encoder, and the crop asked for or, where none is, the encoder's. Raises TrainingError
    when the encoder is another generator's or another crop's."""
    asked = crop_for_resolution(generator.config.resolution, grid, rows)
    if path is None:
        return None, asked
    encoder, card = encoder_from_file(path)
    _check_encoder(path, card, generator, sha256)
    crop = LabelCrop(card.grid, card.crop_top, card.rows)
    if (grid is not None or rows is not None) and crop != asked:
        raise TrainingError(
            f"{path} reads rows {_rows(crop)} of a grid of {crop.grid}, not {_rows(asked)} of "
            f"{asked.grid}; leave out --grid and --rows, or train an encoder with them"
        )
    return encoder, crop


def _rows(crop: LabelCrop) -> str:
    return f"{crop.top}:{crop.top + crop.height}"


def _check_encoder(path: Path, card: EncoderCard, generator: Generator, sha256: str) -> None:
    if card.generator_sha256 != sha256:
        raise TrainingError(
            f"{path} is the encoder of a generator of SHA-256 {card.generator_sha256}, this one "
            f"has {sha256}; train one with `python -m training encoder`"
        )
    expected = (generator.config.num_ws, generator.config.w_dim)
    if (card.num_ws, card.w_dim) != expected or card.grid > generator.config.resolution:
        raise TrainingError(f"{path}: its latents or its grid are not this generator's")


def write_kept(
    out: Path, real: RealImages, fit: Fit, crop: LabelCrop, report: Report, generator_sha256: str
) -> None:
    """The set, of the images that are neither dropped nor failed, and a line about the others.

    Raises TrainingError when none is left.
    """
    kept = [i for i, e in enumerate(report.images) if e.verdict in ("kept", "flagged")]
    for verdict, count in Counter(entry.verdict for entry in report.images).items():
        if verdict != "kept":
            names = [entry.image for entry in report.images if entry.verdict == verdict]
            click.echo(f"{verdict}: {count} of {len(report.images)} ({', '.join(names)})")
    if not kept:
        raise TrainingError(f"none of {len(report.images)} images is kept; {out} has the report")
    entries = [
        ImageEntry(
            file=real.names[i],
            pixels_sha256="",
            source=real.paths[i].name,
            source_size=None
            if real.sizes[i] == (crop.height, crop.width)
            else real.sizes[i][::-1],  # written as (width, height)
            psnr_db=round(float(fit.psnr_db[i]), 3),
        )
        for i in kept
    ]
    ws = fit.ws.numpy()[kept]
    write_image_set(out, ws, real.pixels[kept], crop, entries, generator_sha256, report.made)
    click.echo(f"wrote {len(kept)} images of {crop} pixels, their latents and their index to {out}")
