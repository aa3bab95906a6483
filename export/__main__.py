"""`python -m export`: weights -> bundle; calibration, certificate, description, engine."""

import atexit
import gc
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports, which take seconds, ends without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from labelmint.extras import name_missing_extra

if __name__ == "__main__":
    name_missing_extra("export")
    atexit.register(gc.freeze)  # no search for garbage at the end, a fifth of a short command

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

from bundle.errors import BundleError, printable_line, printable_text
from bundle.manifest import MANIFEST, ScoreMeasure
from bundle.open import open_bundle
from bundle.views import ViewBank
from bundle.write import (
    add_calibration,
    add_certificate,
    refuse_existing,
    refuse_known_calibration,
    staged_folder,
)
from checkpoints import CheckpointError, Interrupted, end_command, generators_in, raise_on_signals
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
from export.checks.calibration import (
    calibration_from_engine,
    identity_of_scores,
    open_saved_scores,
    open_score_engine,
    refuse_without_score,
    row_columns,
)
from export.checks.certificate import certificate_from_file, refuse_misfit
from export.engine_command import engine
from export.errors import ExportError
from export.fused.bundle import check_fusable, write_fused_labeller
from export.fused.compile import check_capability
from export.inspect import lines_from_bundle, lines_from_certificate, lines_from_weights
from export.weights import WeightFiles, weights_from_files

FOLDER = click.Path(file_okay=False, path_type=Path)
WEIGHTS = click.Path(dir_okay=False, path_type=Path)
GENERATOR = click.Path(path_type=Path)  # a folder is refused with the generators that it has
VIEW_MODES: dict[str, ViewMode] = {"drawn": "drawn", "bank": "bank", "random": "random"}
CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
MIN_CALIBRATION_SAMPLES = 64  # fewer give too few quantiles to set a threshold by
MAX_COUNT = 10**12  # of samples; numpy and torch end with tracebacks for more than they can count


@click.group(context_settings=CONTEXT)
def main() -> None:
    """Make bundles from trained weights, for the service to serve."""


@main.command()
@click.option(
    "--generator",
    required=True,
    type=GENERATOR,
    help="Generator weights: a .safetensors file with its card, an official StyleGAN2 .pkl "
    "(PyTorch or TensorFlow), a StyleGAN3 .pkl, a rosinality .pt, or a DatasetGAN StyleGAN1 .pt.",
)
@click.option(
    "--mean-latent",
    type=WEIGHTS,
    help="Path to the mean of w (.npy), for a .pt file that lacks it: the one that the ensemble "
    "was trained with. HandsOff's code draws a new one whenever it loads, and another changes "
    "about 1 percent of a mask's pixels.",
    show_default="measured over samples",
)
@click.option(
    "--interpreter",
    type=click.Path(path_type=Path),
    help="Label ensemble: a .safetensors file with its card, or a folder of published "
    "model_<k>.pth files, or a pattern of other names in quotes, such as 'car_model_*.pt'.",
    show_default="none, the bundle serves images only",
)
@click.option(
    "--recipe",
    help="Label recipe of model_<k>.pth files (features, label size, classes): the name of a "
    "published recipe or a TOML file.",
    show_default="none",
)
@click.option(
    "--labels",
    type=WEIGHTS,
    help="Path to a classes.toml that replaces the recipe's classes.",
    show_default="none",
)
@click.option(
    "--refiner",
    type=WEIGHTS,
    help="Refiner weights, to refine the images; labels do not change.",
    show_default="none",
)
@click.option(
    "--views",
    type=WEIGHTS,
    help="View bank to include, as `python -m training views` writes it.",
    show_default="none",
)
@click.option(
    "--score-measure",
    type=click.Choice(get_args(ScoreMeasure)),
    help="Uncertainty of a pixel's class, which streams are filtered by: the members' divergence "
    "(jensen_shannon, the papers'), the entropy of their mean probabilities, or 1 minus the "
    "largest of these (least_confidence). No training is needed to change it.",
    show_default="the interpreter's",
)
@click.option("--out", required=True, type=FOLDER, help="Folder to write the bundle to.")
@click.option("--force", is_flag=True, help="Replace a bundle that exists at --out.")
@click.option(
    "--calibrate",
    default=0,
    metavar="SAMPLES",
    type=click.IntRange(0, MAX_COUNT),
    help="Number of samples to calibrate the default sampling options on, usually 4096; 0: no "
    "calibration, so that requests cannot use keep_fraction.",
)
@click.option(
    "--parity-samples",
    default=8,
    type=click.IntRange(1, MAX_COUNT),
    help="Number of samples on which the graphs are compared with PyTorch.",
)
@click.option("--half/--no-half", default=True, help="Also export the float16 graph, for GPUs.")
@click.option(
    "--fused",
    default="",
    show_default="none",
    metavar="CAPABILITY[,...]",
    help="Compute capabilities of the GPUs to compile the fused label kernel for, such as "
    "8.9,9.0. The service's --engine tensorrt-fused needs that kernel.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, MAX_COUNT),
    help="Batch size in samples of comparison and calibration.",
    show_default="4 for images up to 128 px, else 1",
)
def bundle(
    generator: Path,
    mean_latent: Path | None,
    interpreter: Path | None,
    recipe: str | None,
    labels: Path | None,
    refiner: Path | None,
    views: Path | None,
    score_measure: ScoreMeasure | None,
    out: Path,
    force: bool,
    calibrate: int,
    parity_samples: int,
    half: bool,
    fused: str,
    batch: int | None,
) -> None:
    """Export weights as a bundle.

    The exported graphs are first compared with PyTorch; without agreement there is no bundle. If
    the calibration is interrupted, the same command resumes from the scores it has.
    """
    options = _engine_options(batch)
    if 0 < calibrate < MIN_CALIBRATION_SAMPLES:
        raise click.BadParameter(
            f"{calibrate} is under {MIN_CALIBRATION_SAMPLES}; 4096 is usual, 0 skips calibration",
            param_hint="--calibrate",
        )
    capabilities = [word for word in fused.split(",") if word]
    with one_line_errors():
        refuse_existing(out, force)
        for capability in capabilities:
            check_capability(capability)
        files = WeightFiles(
            generator, mean_latent, interpreter, recipe, labels, refiner, views, score_measure
        )
        weights = weights_from_files(files)
        card = weights.interpreter_card
        if calibrate and (card is None or card.score_source is None):  # fail before the export
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
                _calibrate(folder, out, None, calibrate, options, replace_known=False)
        _show(lines_from_bundle(open_bundle(out)))


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option(
    "--samples",
    required=True,
    type=click.IntRange(MIN_CALIBRATION_SAMPLES, MAX_COUNT),
    metavar="N",
    help="Number of samples to score: indices 0 to N - 1 of the seed.",
)
@click.option(
    "--seed", default=0, type=click.IntRange(0, 2**64 - 1), help="Seed that latents are drawn from."
)
@click.option("--psi", type=float, help="Truncation psi, from 0 to 2.", show_default="the bundle's")
@click.option(
    "--cutoff",
    type=int,
    help="Number of first rows of w+ that --psi applies to.",
    show_default="the bundle's",
)
@click.option(
    "--class",
    "class_index",
    type=int,
    help="Class of all samples, for class-conditional generators.",
    show_default="drawn for each object",
)
@click.option("--views", default=1, help="Number of views per object.")
@click.option(
    "--view",
    help="View codes to use: a number (that code of the view bank for all objects), random (a "
    "code of the bank drawn for each sample), bank (the first --views codes of the bank for each "
    "object), or drawn (codes drawn from the seed, without the bank).",
    show_default="bank if --views is over 1 and there is a view bank, else drawn",
)
@click.option(
    "--latents",
    default="philox",
    type=click.Choice(["philox", "mt19937"]),
    help="Random number generator of the latents: philox, or NumPy's RandomState (mt19937).",
)
@click.option(
    "--replace", "replace_known", is_flag=True, help="Replace a calibration of the same options."
)
@click.option(
    "--batch",
    type=click.IntRange(1, MAX_COUNT),
    help="Batch size in samples.",
    show_default="4 for images up to 128 px, else 1",
)
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
    """Measure the uncertainty threshold of every keep_fraction, and what samples show.

    The result is added to BUNDLE; requests with these sampling options can then use keep_fraction,
    keep_by and balance. If the command is killed, the same command resumes from the scores it has.
    """
    with one_line_errors():
        opened = open_bundle(bundle, verify=False)
        defaults = default_options(opened.manifest.generator, seed)
        view_mode, fixed_view = view_mode_from_text(view, views, opened.views)
        sampling = replace(
            defaults,
            latent_source=latents,
            truncation_psi=defaults.truncation_psi if psi is None else psi,
            truncation_cutoff=defaults.truncation_cutoff if cutoff is None else cutoff,
            class_index=class_index,
            views_per_object=views,
            view_mode=view_mode,
            view=fixed_view,
        )
        _calibrate(bundle, bundle, sampling, samples, _engine_options(batch), replace_known)
        print(f"{bundle} is calibrated on {samples} samples")


@main.command()
@click.argument("bundle", type=FOLDER)
@click.argument("certificate", type=WEIGHTS)
def certify(bundle: Path, certificate: Path) -> None:
    """Put the certificate of a review into BUNDLE.

    CERTIFICATE is the file that the studio's page Review writes. Its bounds are computed again from
    its reviews, and it must be about the very weights of the bundle. The bundle id stays.
    """
    with one_line_errors():
        opened = open_bundle(bundle, verify=False)
        found = certificate_from_file(certificate)
        refuse_misfit(opened.manifest, found, bundle, certificate)
        add_certificate(opened, found)
        _show(lines_from_certificate(found))


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def inspect(path: Path) -> None:
    """Describe a bundle or a weights file.

    No code in the files is run. PATH is a bundle (its files are verified), any weights file that
    `bundle` takes, or a folder of model_<k>.pth files, which is one label ensemble.
    """
    with one_line_errors():
        if (path / MANIFEST).exists():
            _show(lines_from_bundle(open_bundle(path)))
        elif path.is_dir() and not any(path.glob("model_*.pth")):
            raise ExportError(
                f"{path} has neither a bundle's {MANIFEST} nor any model_<k>.pth; "
                + generators_in(path)
            )
        else:
            _show(lines_from_weights(path))


main.add_command(engine)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors that the user can fix into one line and exit code 1, without a traceback."""
    try:
        yield
    except (BundleError, CheckpointError, EngineError, ExportError) as error:
        raise click.ClickException(printable_line(str(error))) from error
    except OSError as error:
        message = f"{error.filename or 'a file of --out'}: {error.strerror or error}"
        raise click.ClickException(printable_line(message)) from error
    except MemoryError as error:  # such as of a --samples with too many digits
        raise click.ClickException(f"not enough memory: {printable_line(str(error))}") from error


def _show(lines: list[str]) -> None:
    """Prints lines that quote names of files, which may have terminal sequences."""
    print("\n".join(map(printable_text, lines)))


def _calibrate(
    folder: Path,
    out: Path,
    sampling: LatentOptions | None,
    samples: int,
    options: EngineOptions,
    replace_known: bool,
) -> None:
    """Adds a calibration to the bundle in `folder`, which is or becomes `out`; scores are saved
    beside `out`. sampling None: the bundle's default options."""
    opened = open_bundle(folder)
    sampling = sampling or default_options(opened.manifest.generator)
    refuse_known_calibration(opened, key_from_options(sampling), replace_known)
    refuse_without_score(opened)
    mapping = open_mapping(opened, options)
    engine = open_score_engine(opened, options, content=True)
    identity, columns = identity_of_scores(opened, engine, sampling), row_columns(opened)
    with open_saved_scores(out, identity, columns, samples) as saved:
        calibration, content = calibration_from_engine(
            opened, engine, mapping, sampling, samples, saved
        )
        add_calibration(opened, calibration, replace_known, content)


def view_mode_from_text(
    text: str | None, views_per_object: int, bank: ViewBank | None
) -> tuple[ViewMode, int | None]:
    """Value of --view -> view mode, and the view code's number if the mode is "fixed".

    Raises ExportError.
    """
    if text is None:
        return default_view_mode(views_per_object, bank), None
    if text in VIEW_MODES:
        return VIEW_MODES[text], None
    if text.isdecimal():
        return "fixed", int(text)
    raise ExportError(f"--view is {text!r}; it must be {', '.join(VIEW_MODES)} or a number from 0")


def _engine_options(batch: int | None) -> EngineOptions:
    return EngineOptions(batch_sizes=() if batch is None else (batch,))


def run() -> None:
    """Runs the command line; exit code 128 plus its number, and one line, for a signal."""
    raise_on_signals()
    try:
        main()
    except Interrupted as interrupted:
        end_command(interrupted, f"interrupted: {interrupted}")


if __name__ == "__main__":
    run()
