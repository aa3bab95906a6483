"""python -m export: weights -> bundle, and what can be done to a bundle afterwards."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from bundle.errors import BundleError
from bundle.manifest import MANIFEST
from bundle.open import open_bundle
from bundle.views import ViewBank
from bundle.write import add_calibration, refuse_existing, refuse_known_calibration, staged_folder
from checkpoints import CheckpointError
from engines.errors import EngineError
from engines.open import EngineOptions, open_mapping
from engines.sampling import (
    LatentOptions,
    LatentSource,
    ViewMode,
    default_options,
    default_view_mode,
    key_from_options,
)
from export.bundle_from_weights import write_checked_manifest, write_graphs
from export.checks.calibration import calibration_from_engine, refuse_without_score
from export.checks.score_engine import open_score_engine
from export.engine_command import engine
from export.errors import ExportError
from export.fused.bundle import check_fusable, write_fused_labeller
from export.fused.compile import check_capability
from export.inspect import lines_from_bundle, lines_from_weights
from export.weights import Sources, weights_from_files

_MODES: dict[str, ViewMode] = {"drawn": "drawn", "bank": "bank", "random": "random"}


def views_from_text(
    text: str | None, views_per_object: int, bank: ViewBank | None
) -> tuple[ViewMode, int | None]:
    """The mode, and the view of the mode fixed. Raises ExportError."""
    if text is None:
        return default_view_mode(views_per_object, bank), None
    if text in _MODES:
        return _MODES[text], None
    if text.isdecimal():
        return "fixed", int(text)
    raise ExportError(f"--view is {text!r}; it is a number from 0, {', '.join(_MODES)}")


FOLDER = click.Path(file_okay=False, path_type=Path)
WEIGHTS = click.Path(dir_okay=False, path_type=Path)
LEAST_CALIBRATION = 64  # samples


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Makes bundles, which the service serves, from trained weights."""


@main.command()
@click.option(
    "--generator",
    required=True,
    type=WEIGHTS,
    help="Weights with their card beside them, or an official StyleGAN2 .pkl (PyTorch or "
    "TensorFlow), a rosinality .pt, or a DatasetGAN StyleGAN1 .pt.",
)
@click.option("--mean-latent", type=WEIGHTS, help="Mean of w (.npy) of such a file.")
@click.option(
    "--interpreter",
    type=click.Path(path_type=Path),
    help="Label ensemble, or a folder of published model_<k>.pth; without it: images only.",
)
@click.option("--recipe", help="What such members read: a published recipe's name or a TOML file.")
@click.option("--labels", type=WEIGHTS, help="classes.toml in place of the recipe's classes.")
@click.option("--refiner", type=WEIGHTS, help="Refines the images; labels stay as they are.")
@click.option("--views", type=WEIGHTS, help="View bank of `python -m training views`.")
@click.option("--out", required=True, type=FOLDER, help="The bundle's folder.")
@click.option("--force", is_flag=True, help="Replace the bundle at --out.")
@click.option(
    "--calibrate",
    default=0,
    metavar="SAMPLES",
    type=click.IntRange(min=0),
    help="Calibrate the default sampling options on so many samples; 0: not now.",
)
@click.option(
    "--parity-samples", default=8, type=click.IntRange(min=1), help="Compared with the reference."
)
@click.option(
    "--half/--no-half", default=True, help="Export the float16 graph too, or leave it out."
)
@click.option(
    "--fused",
    default="",
    metavar="CAPABILITY[,...]",
    help="Compile the fused label kernel for GPUs of these compute capabilities, such as 8.9,9.0, "
    "for the engine tensorrt-fused.",
)
@click.option("--batch", type=click.IntRange(min=1), help="Samples of a run, while exporting.")
def bundle(
    generator: Path,
    mean_latent: Path | None,
    interpreter: Path | None,
    recipe: str | None,
    labels: Path | None,
    refiner: Path | None,
    views: Path | None,
    out: Path,
    force: bool,
    calibrate: int,
    parity_samples: int,
    half: bool,
    fused: str,
    batch: int | None,
) -> None:
    """Exports weights, checks the graphs against the reference, writes a bundle."""
    options = _engine_options(batch)
    if 0 < calibrate < LEAST_CALIBRATION:
        raise click.BadParameter(
            f"{calibrate} is under {LEAST_CALIBRATION}; 4096 is usual, 0 is not now",
            param_hint="--calibrate",
        )
    capabilities = [word for word in fused.split(",") if word]
    with one_line_errors():
        refuse_existing(out, force)
        for capability in capabilities:
            check_capability(capability)
        sources = Sources(generator, mean_latent, interpreter, recipe, labels, refiner, views)
        weights = weights_from_files(sources)
        card = weights.interpreter_card
        if calibrate and (card is None or card.score_source is None):  # before the export
            raise ExportError(
                f"--calibrate is {calibrate}, but this bundle has no score: "
                + ("--interpreter is not given" if card is None else f"{interpreter} has none")
                + "; leave --calibrate out"
            )
        if capabilities:
            check_fusable(weights)
        with staged_folder(out, force) as folder:
            write_graphs(folder, weights, half)
            if capabilities:
                write_fused_labeller(folder, weights, capabilities)
            print(f"comparing {parity_samples} samples with the reference", file=sys.stderr)
            write_checked_manifest(folder, weights, parity_samples, options)
            if calibrate:
                _calibrate(folder, None, calibrate, options, replace_known=False, keep=False)
        print("\n".join(lines_from_bundle(open_bundle(out))))


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option(
    "--samples",
    required=True,
    type=click.IntRange(LEAST_CALIBRATION),
    help="Indices 0 to this are scored.",
)
@click.option("--seed", default=0, type=click.IntRange(0, 2**64 - 1))
@click.option("--psi", type=float, help="Truncation psi; absent: the bundle's own.")
@click.option("--cutoff", type=int, help="Truncated rows of w+; absent: the bundle's own.")
@click.option("--class", "class_index", type=int, help="Class; absent: drawn.")
@click.option("--views", default=1, help="Views of each object.")
@click.option(
    "--view",
    help="Of the view bank: a number for all objects, random, bank (--views of it), or drawn.  "
    "[default: as requests that do not say]",
)
@click.option("--latents", default="philox", type=click.Choice(["philox", "mt19937"]))
@click.option("--replace", "replace_known", is_flag=True, help="Change an existing calibration.")
@click.option("--batch", type=click.IntRange(min=1), help="Samples of a run.")
def calibrate(
    bundle: Path,
    samples: int,
    seed: int,
    psi: float | None,
    cutoff: int | None,
    class_index: int | None,
    views: int,
    view: str | None,
    latents: LatentSource,
    replace_known: bool,
    batch: int | None,
) -> None:
    """Measures which uncertainty keeps which share of samples, for one set of options.

    When it is killed, the same command goes on where it stood.
    """
    with one_line_errors():
        opened = open_bundle(bundle, verify=False)
        given = default_options(opened.manifest.generator, seed)
        view_mode, fixed = views_from_text(view, views, opened.views)
        sampling = replace(
            given,
            latent_source=latents,
            truncation_psi=given.truncation_psi if psi is None else psi,
            truncation_cutoff=given.truncation_cutoff if cutoff is None else cutoff,
            class_index=class_index,
            views_per_object=views,
            view_mode=view_mode,
            view=fixed,
        )
        _calibrate(bundle, sampling, samples, _engine_options(batch), replace_known, keep=True)
        print(f"{bundle} is calibrated on {samples} samples")


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def inspect(path: Path) -> None:
    """Prints what a bundle or a weights file is; nothing in a file is ever run.

    A bundle's files are verified. Weights are labelmint's own or other projects', as `bundle`
    takes them; a folder of model_<k>.pth is one ensemble.
    """
    with one_line_errors():
        if (path / MANIFEST).exists():
            print("\n".join(lines_from_bundle(open_bundle(path))))
        elif path.is_dir() and not any(path.glob("model_*.pth")):
            raise ExportError(f"{path} has neither a bundle's {MANIFEST} nor any model_<k>.pth")
        else:
            print("\n".join(lines_from_weights(path)))


main.add_command(engine)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What the user can mend ends with exit code 1 and one line instead of a traceback."""
    try:
        yield
    except (BundleError, CheckpointError, EngineError, ExportError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'file'}: {error.strerror}") from error


def _calibrate(
    folder: Path,
    sampling: LatentOptions | None,
    samples: int,
    options: EngineOptions,
    replace_known: bool,
    keep: bool,
) -> None:
    opened = open_bundle(folder)
    sampling = sampling or default_options(opened.manifest.generator)
    refuse_known_calibration(opened, key_from_options(sampling), replace_known)
    refuse_without_score(opened)
    mapping, engine = open_mapping(opened, options), open_score_engine(opened, options)
    calibration = calibration_from_engine(opened, engine, mapping, sampling, samples, keep)
    add_calibration(folder, calibration, replace_known)


def _engine_options(batch: int | None) -> EngineOptions:
    return EngineOptions(batch_sizes=() if batch is None else (batch,))


if __name__ == "__main__":
    main()
