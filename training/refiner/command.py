"""The verb `refiner`: synthetic images and real ones -> weights of a refiner."""

from pathlib import Path
from typing import get_args

import click
import torch

from nets.refiner import RefinerConfig
from training.errors import RefinerError
from training.images.sources import Pool, images_from_folder, pool_from_source
from training.options import device_option, goes_on
from training.refiner.config import Feature, Reduction, RefinerTrainConfig, Regulariser
from training.refiner.run import RefinerRunOptions, run_refiner, text_from_drift

MIN_EXTENT = 24  # pixels, what the check of the geometry needs
FIT, KEPT, NETWORK = RefinerTrainConfig(), Regulariser(), RefinerConfig()
AT_LEAST_0, AT_LEAST_1 = click.IntRange(0), click.IntRange(1)
POSITIVE = click.FloatRange(0, min_open=True)
UNIT, SHARE = click.FloatRange(-1, 1), click.FloatRange(0, 1, max_open=True)


@click.command(context_settings={"show_default": True})
@click.option(
    "--source",
    required=True,
    help="Images to refine: a generator's weights (.safetensors), HOST:PORT of a running service, "
    "or a folder.",
)
@click.option(
    "--real",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of real images, without labels.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Weights file to write (.safetensors); card, state and contact sheets lie beside it.",
)
@click.option("--resume", is_flag=True, help="Go on from the state beside --out, if there is one.")
@click.option("--images", default=2048, type=AT_LEAST_1, help="At most, of source and real.")
@click.option("--fit", "scale", is_flag=True, help="Scale and cut real images to the source's.")
@click.option("--steps", default=FIT.steps, type=AT_LEAST_0, help="Alternations.")
@click.option("--warm-up", default=FIT.warm_up, type=AT_LEAST_0, help="Self-regularised only.")
@click.option("--critic-warm-up", default=FIT.critic_warm_up, type=AT_LEAST_0)
@click.option("--refiner-updates", default=FIT.refiner_updates, type=AT_LEAST_1, help="K_g.")
@click.option("--critic-updates", default=FIT.critic_updates, type=AT_LEAST_1, help="K_d.")
@click.option("--batch", "batch_size", default=FIT.batch_size, type=click.IntRange(2))
@click.option("--crop", default=FIT.crop, type=AT_LEAST_0, help="Pixels; 0: whole images.")
@click.option("--width", default=NETWORK.width, type=AT_LEAST_1, help="Of the refiner's layers.")
@click.option("--blocks", default=NETWORK.blocks, type=AT_LEAST_0, help="Residual blocks.")
@click.option("--grain", default=NETWORK.grain, type=click.IntRange(0, 64), help="Noise channels.")
@click.option("--critic-width", default=FIT.critic_width, type=click.IntRange(3))
@click.option("--strength", default=KEPT.strength, type=click.FloatRange(0), help="Lambda.")
@click.option("--reduction", default=KEPT.reduction, type=click.Choice(get_args(Reduction)))
@click.option("--feature", default=KEPT.feature, type=click.Choice(get_args(Feature)))
@click.option("--learning-rate", default=FIT.learning_rate, type=POSITIVE)
@click.option("--averaging", default=FIT.averaging, type=SHARE, help="Of weights kept, a step.")
@click.option("--gradient-norm", default=FIT.gradient_norm, type=POSITIVE)
@click.option("--history", default=FIT.history, type=AT_LEAST_1, help="Images in the buffer.")
@click.option("--every", default=250, type=AT_LEAST_1, help="Steps between checks and sheets.")
@click.option(
    "--max-shift", default=0.5, type=click.FloatRange(0, 99), help="Pixels that end the training."
)
@click.option("--min-structure", default=0.5, type=UNIT, help="Correlation that ends it.")
@click.option("--min-agreement", default=0.7, type=UNIT, help="mIoU of segmentations, as well.")
@click.option("--segmenter-steps", default=300, type=AT_LEAST_0, help="For that; 0: without it.")
@click.option("--seed", default=FIT.seed, type=click.IntRange(0, 2**63 - 1))
@click.option("--licence", "licences", multiple=True, help="Licence tag; may be repeated.")
@device_option
def refiner(
    source: str,
    real: Path,
    out: Path,
    resume: bool,
    images: int,
    scale: bool,
    width: int,
    blocks: int,
    grain: int,
    strength: float,
    reduction: Reduction,
    feature: Feature,
    every: int,
    max_shift: float,
    min_structure: float,
    min_agreement: float,
    segmenter_steps: int,
    licences: tuple[str, ...],
    device: torch.device,
    **recipe: int | float,
) -> None:
    """Trains a refiner, which makes synthetic images look like real ones."""
    config = RefinerTrainConfig(
        network=RefinerConfig(width=width, blocks=blocks, grain=grain),
        regulariser=Regulariser(strength, reduction, feature),
        **recipe,  # type: ignore[arg-type]  # click has checked each by its own option
    )
    if out.suffix != ".safetensors":
        raise click.BadParameter(f"{out} must end in .safetensors", param_hint="--out")
    if out.exists() and not resume:
        raise RefinerError(f"{out} exists; --resume goes on from its state, or name another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    made = pool_from_source(source, images, config.seed, device)
    wanted = Pool(images_from_folder(real, images, made.size if scale else None))
    refuse_misfits(made, wanted, config)
    run = RefinerRunOptions(
        out, every, max_shift, min_structure, min_agreement, segmenter_steps,
        list(licences) or list(made.licences), device,
    )  # fmt: skip
    found = run_refiner(config, made, wanted, run, goes_on(out, resume))
    click.echo(f"wrote {out} and its card: {text_from_drift(found)}")


def refuse_misfits(source: Pool, real: Pool, config: RefinerTrainConfig) -> None:
    """Raises RefinerError for images of two sizes, and for a recipe that they cannot train."""
    if source.size != real.size:
        (a, b), (c, d) = source.size, real.size
        raise RefinerError(
            f"the source's images are {a}x{b} pixels, the real ones {c}x{d}; --fit scales and "
            "cuts the real ones to the source's size"
        )
    if config.total == 0:
        raise RefinerError("--steps, --warm-up and --critic-warm-up are 0; one must not be")
    least = min(source.size)
    if least < MIN_EXTENT:
        raise RefinerError(f"images are {least} pixels across; at least {MIN_EXTENT} are needed")
    if config.history < config.batch_size // 2:
        raise RefinerError(
            f"--history is {config.history}; it must hold half a batch, {config.batch_size // 2}"
        )
