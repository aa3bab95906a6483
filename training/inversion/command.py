"""python -m training invert: a folder of real images -> an image set, in the format of `sample`."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from bundle.errors import printable_text
from checkpoints import EncoderCard, encoder_from_file, made_folder, sha256_of_file
from nets.config import SQUARE, size_at
from nets.encoder import Encoder
from nets.generator import Generator
from training.errors import TrainingError
from training.images.image_set import (
    IMAGES,
    INDEX,
    ImageEntry,
    refuse_existing_set,
    sha256_of_array,
    write_image_set,
)
from training.images.photos import RealImages, real_images_from_folder
from training.inversion.distances import DistanceName, distance_from_name
from training.inversion.optimise import (
    UNFINISHED,
    FinishedBatches,
    InvertConfig,
    LatentEstimate,
    images_at_once,
    invert_images,
)
from training.inversion.report import (
    AcceptanceConfig,
    InversionReport,
    Keep,
    OnBad,
    Provenance,
    kept_estimate,
    report_of_inversion,
    table_of_report,
    write_report,
)
from training.inversion.sheet import write_sheets
from training.inversion.train_encoder import ws_from_images
from training.label_crop import LabelCrop, crop_for_generator, images_from_ws
from training.options import (
    AT_LEAST_0,
    FILE,
    FOLDER,
    NOT_NEGATIVE,
    batch_option,
    crop_options,
    device_option,
    distance_option,
    folder_out_option,
    generator_option,
    identity_of_generator,
    learning_rate_option,
    mean_latent_option,
    read_generator,
    vgg_weights_option,
)


@click.command()
@generator_option
@mean_latent_option
@click.option("--images", type=FOLDER, required=True, help="Folder of real images.")
@folder_out_option("the image set")
@click.option(
    "--encoder",
    "encoder_path",
    type=FILE,
    help="Weights of an encoder, whose latents the optimization starts from.  [default: start "
    "from the mean latent]",
)
@click.option(
    "--steps",
    type=AT_LEAST_0,
    default=InvertConfig.steps,
    help="Number of optimization steps; 0: keep the latents of the start.",
)
@learning_rate_option(InvertConfig.learning_rate, "between its ramps up from 0 and down to 0")
@click.option(
    "--perceptual-weight",
    type=NOT_NEGATIVE,
    default=InvertConfig.perceptual_weight,
    help="Weight of the perceptual distance.",
)
@click.option(
    "--mse-weight",
    type=NOT_NEGATIVE,
    default=InvertConfig.mse_weight,
    help="Weight of the mean squared error of colors.",
)
@click.option(
    "--latent-weight",
    type=NOT_NEGATIVE,
    default=InvertConfig.latent_weight,
    help="Weight of the mean squared distance of the latents from the start.",
)
@batch_option(
    "Images per batch.  [default: up to 16, by the generator's resolution]", name="at_once"
)
@click.option(
    "--keep",
    type=click.Choice(["best", "last"]),
    default=AcceptanceConfig.keep,
    help="Latents to keep: those of the lowest loss, or the last ones.",
)
@click.option(
    "--min-psnr",
    "min_psnr_db",
    type=float,
    metavar="DB",
    help="PSNR (dB) below which an inversion is bad, see --on-bad.  [default: no limit]",
)
@click.option(
    "--max-mads",
    type=NOT_NEGATIVE,
    default=AcceptanceConfig.max_mads,
    help="Number of deviations (scaled MAD) from the median, in the worse direction of PSNR or "
    "perceptual distance, above which an inversion is bad.",
)
@click.option(
    "--on-bad",
    type=click.Choice(["flag", "drop"]),
    default=AcceptanceConfig.on_bad,
    help="What happens to bad inversions: flag in the report, or drop from the set as well.",
)
@crop_options(default="the encoder's, or else ")
@distance_option
@vgg_weights_option
@device_option
def invert(
    generator_path: Path,
    mean_latent: Path | None,
    images: Path,
    out: Path,
    encoder_path: Path | None,
    keep: Keep,
    min_psnr_db: float | None,
    max_mads: float,
    on_bad: OnBad,
    grid: int | None,
    rows: tuple[int, int] | None,
    distance_name: DistanceName,
    vgg_weights: Path | None,
    device: torch.device,
    **settings: Any,
) -> None:
    """Find the latents of real images, to use their labels.

    An interpreter learns from images whose latents are known. Writes the cropped images, their
    latents, the index that pairs them, report.json and contact sheets. Finished batches are saved
    in --out; the same command resumes after them.
    """
    if not (out / UNFINISHED).exists():
        refuse_existing_set(out)
    if images.resolve() in (out.resolve(), (out / IMAGES).resolve()):
        raise TrainingError(f"{out} would write over the pictures in {images}; name another --out")
    generator, _, sha256 = read_generator(generator_path, mean_latent)
    config = InvertConfig(**settings)
    acceptance = AcceptanceConfig(keep, on_bad, min_psnr_db, max_mads)
    encoder, crop = encoder_and_crop(encoder_path, generator, sha256, grid, rows)
    real = real_images_from_folder(images, crop)
    if real.ignored:
        click.echo(f"ignored, not pictures: {printable_text(', '.join(real.ignored))}")
    distance, words = distance_from_name(distance_name, vgg_weights, device)
    click.echo(words)
    if encoder is None:
        click.echo(
            "start: the mean latent; labels fit better with an encoder's start (python -m training "
            "encoder, then --encoder)"
        )

    encoder_sha256 = None if encoder_path is None else sha256_of_file(encoder_path)
    batch_size = config.at_once or images_at_once(*generator.config.image_size)
    recipe = {
        **identity_of_generator(generator, sha256),
        "encoder weights": encoder_sha256,
        **crop.facts,
        "images": sha256_of_array(real.pixels),
        **asdict(config),
        "at_once": batch_size,
        "distance": distance.name,
        "VGG weights": vgg_weights and sha256_of_file(vgg_weights),
    }
    shape = (len(real.pixels), generator.config.num_ws, generator.config.w_dim)
    finished = FinishedBatches(out / UNFINISHED, recipe, shape, batch_size)
    if (out / INDEX).exists():  # which is written last
        finished.remove()
        click.echo(f"{out} was complete; removed {UNFINISHED}/, which an interrupted run had left")
        return
    with made_folder(out):  # before the optimization, to fail early
        generator.to(device)
        start = None
        if encoder is not None:
            start = ws_from_images(encoder.to(device), generator, real.pixels, crop)
        inversion = invert_images(generator, real.pixels, crop, config, start, distance, finished)

        start_name = "mean latent" if encoder is None else "encoder"
        provenance: Provenance = {
            "by": "python -m training invert",
            **asdict(config),
            "distance": distance.name,
            "start": start_name,
            "encoder_sha256": encoder_sha256,
            **asdict(acceptance),
        }
        report = report_of_inversion(inversion, real.names, acceptance, provenance)
        write_report(out, report)
        kept = kept_estimate(inversion, keep)
        click.echo(f"drawing {len(real.pixels)} images twice, for the contact sheets", err=True)
        shown = [images_from_ws(generator, e.ws.numpy(), crop) for e in (inversion.start, kept)]
        sheets = write_sheets(out, report, start_name, keep, (real.pixels, *shown))
        click.echo(table_of_report(report, start_name))
        click.echo(f"wrote {out / 'report.json'} and {', '.join(path.name for path in sheets)}")
        write_kept(out, real, kept, crop, report, sha256)
        finished.remove()


def encoder_and_crop(
    path: Path | None,
    generator: Generator,
    sha256: str,
    grid: int | None,
    rows: tuple[int, int] | None,
) -> tuple[Encoder | None, LabelCrop]:
    """The encoder, if there is one, and the crop: from the options or, without them, the encoder's.

    Raises TrainingError when the encoder belongs to another generator or reads another crop.
    """
    requested = crop_for_generator(generator.config, grid, rows)
    if path is None:
        return None, requested
    encoder, card = encoder_from_file(path)
    _check_encoder(path, card, generator, sha256)
    crop = LabelCrop(card.grid, card.crop_top, card.rows, card.start or SQUARE)
    if (grid is not None or rows is not None) and crop != requested:
        raise TrainingError(
            f"{path} reads rows {_rows(crop)} of a grid of {crop.grid}, not {_rows(requested)} of "
            f"{requested.grid}; leave out --grid and --rows, or train an encoder with them"
        )
    return encoder, crop


def _rows(crop: LabelCrop) -> str:
    return f"{crop.crop_top}:{crop.crop_top + crop.height}"


def _check_encoder(path: Path, card: EncoderCard, generator: Generator, sha256: str) -> None:
    if card.generator_sha256 != sha256:
        raise TrainingError(
            f"{path} belongs to the generator with SHA-256 {card.generator_sha256}, this one has "
            f"{sha256}; train an encoder for it with `python -m training encoder`"
        )
    expected = (generator.config.num_ws, generator.config.w_dim)
    start = card.start or SQUARE
    fits = card.grid <= generator.config.resolution and start == generator.config.start
    if (card.num_ws, card.w_dim) != expected or not fits:
        rows, columns = size_at(card.grid, start)
        height, width = generator.config.image_size
        raise TrainingError(
            f"{path} gives latents [{card.num_ws}, {card.w_dim}] (num_ws, w_dim) and reads a grid "
            f"of {columns}x{rows}; this generator has {list(expected)} and images of "
            f"{width}x{height}; train an encoder for it with `python -m training encoder`"
        )


def write_kept(
    out: Path,
    real: RealImages,
    estimate: LatentEstimate,
    crop: LabelCrop,
    report: InversionReport,
    generator_sha256: str,
) -> None:
    """Writes the set of all images but dropped and failed ones, and lists flagged, dropped and
    failed ones on the console.

    Raises TrainingError when no image is left.
    """
    kept = [i for i, e in enumerate(report.images) if e.verdict in ("kept", "flagged")]
    for verdict, count in Counter(entry.verdict for entry in report.images).items():
        if verdict != "kept":
            names = [entry.image for entry in report.images if entry.verdict == verdict]
            listed = printable_text(", ".join(names))
            click.echo(f"{verdict}: {count} of {len(report.images)} ({listed})")
    if not kept:
        raise TrainingError(f"none of {len(report.images)} images is kept; {out} has the report")
    entries = [
        ImageEntry(
            file=real.names[i],
            pixels_sha256="",  # write_image_set fills it in
            source=real.paths[i].name,
            source_size=None
            if real.sizes[i] == (crop.height, crop.width)
            else real.sizes[i][::-1],  # written as (width, height)
            psnr_db=round(float(estimate.psnr_db[i]), 3),
        )
        for i in kept
    ]
    ws = estimate.ws.numpy()[kept]
    write_image_set(out, ws, real.pixels[kept], crop, entries, generator_sha256, report.made)
    click.echo(f"wrote {len(kept)} images of {crop} pixels, their latents and their index to {out}")
