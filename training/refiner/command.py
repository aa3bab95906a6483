"""python -m training refiner: generated images and real images -> weights of a refiner."""

from pathlib import Path
from typing import Any, get_args

import click
import torch

from checkpoints import made_folder
from nets.refiner import RefinerConfig
from training.errors import RefinerError
from training.images.pool import Pool
from training.images.sources import images_from_folder, opened_pool
from training.options import (
    AT_LEAST_0,
    AT_LEAST_1,
    NOT_NEGATIVE,
    POSITIVE,
    batch_option,
    can_resume,
    device_option,
    every_option,
    learning_rate_option,
    licence_option,
    refuse_nan,
    resume_option,
    seed_option,
    weights_out_option,
)
from training.refiner.config import Feature, Reduction, RefinerTrainConfig, Regulariser
from training.refiner.drift import text_from_drift
from training.refiner.run import RefinerRunOptions, run_refiner
from training.resume import state_path

MIN_EXTENT = 24  # pixels, what `drift_between` needs
DEFAULTS, REGULARISER, NETWORK = RefinerTrainConfig(), Regulariser(), RefinerConfig()
CORRELATION, DECAY = click.FloatRange(-1, 1), click.FloatRange(0, 1, max_open=True)


@click.command()
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
@weights_out_option("its card (.toml), state and contact sheets")
@resume_option
@click.option(
    "--images",
    default=2048,
    type=AT_LEAST_1,
    help="Maximum number of images to take from each of --source and --real.",
)
@click.option(
    "--pool",
    type=AT_LEAST_1,
    show_default="--images",
    help="Maximum number of images to take from --source. A generator or a service makes 64 of "
    "them before the first step, the others during the warm-ups.",
)
@click.option(
    "--fit",
    "scale",
    is_flag=True,
    help="Scale and crop the real images to the size of the source's images.",
)
@click.option(
    "--steps",
    default=DEFAULTS.steps,
    type=AT_LEAST_0,
    help="Number of alternations of refiner and critic updates, after both warm-ups.",
)
@click.option(
    "--warm-up",
    default=DEFAULTS.warm_up,
    type=AT_LEAST_0,
    help="Number of refiner updates by self-regularization alone, at the beginning.",
)
@click.option(
    "--critic-warm-up",
    default=DEFAULTS.critic_warm_up,
    type=AT_LEAST_0,
    help="Number of critic updates between the refiner's warm-up and the alternations.",
)
@click.option(
    "--refiner-updates",
    default=DEFAULTS.refiner_updates,
    type=AT_LEAST_1,
    help="Refiner updates per alternation (K_g in the paper).",
)
@click.option(
    "--critic-updates",
    default=DEFAULTS.critic_updates,
    type=AT_LEAST_1,
    help="Critic updates per alternation (K_d in the paper).",
)
@batch_option("Crops per update.", DEFAULTS.batch_size, name="batch_size", least=2)
@click.option(
    "--crop",
    default=DEFAULTS.crop,
    type=AT_LEAST_0,
    help="Side of the training crops in pixels; 0: whole images.",
)
@click.option(
    "--width", default=NETWORK.width, type=AT_LEAST_1, help="Channels of the refiner's layers."
)
@click.option(
    "--blocks", default=NETWORK.blocks, type=AT_LEAST_0, help="Number of residual blocks."
)
@click.option(
    "--grain",
    default=NETWORK.grain,
    type=click.IntRange(0, 64),
    help="Number of noise channels that the refiner reads beside the image.",
)
@click.option(
    "--critic-width",
    default=DEFAULTS.critic_width,
    type=click.IntRange(3),
    help="Channels of the critic's layers.",
)
@click.option(
    "--strength",
    default=REGULARISER.strength,
    type=NOT_NEGATIVE,
    help="Weight of self-regularization (lambda in the paper); its scale depends on --reduction.",
)
@click.option(
    "--reduction",
    default=REGULARISER.reduction,
    type=click.Choice(get_args(Reduction)),
    help="Reduction of the L1 distance: mean over all values, sum per image (then the mean over "
    "images), or sum over the batch.",
)
@click.option(
    "--feature",
    default=REGULARISER.feature,
    type=click.Choice(get_args(Feature)),
    help="What self-regularization compares: colors, their mean over channels, or their gradients.",
)
@learning_rate_option(DEFAULTS.learning_rate, "for the refiner and the critic")
@click.option(
    "--averaging",
    default=DEFAULTS.averaging,
    type=DECAY,
    help="Decay per update of the moving average of the refiner's weights, which is written.",
)
@click.option(
    "--gradient-norm",
    default=DEFAULTS.gradient_norm,
    type=POSITIVE,
    callback=refuse_nan,
    help="Norm that gradients are clipped to; inf: none are.",
)
@click.option(
    "--history",
    default=DEFAULTS.history,
    type=AT_LEAST_1,
    help="Capacity of the replay buffer of refined images.",
)
@every_option("checks; a check writes weights, state and a contact sheet")
@click.option(
    "--max-shift",
    default=0.5,
    type=click.FloatRange(0, 99),
    help="Mean shift of refined images in pixels above which a check ends the training.",
)
@click.option(
    "--min-structure",
    default=0.5,
    type=CORRELATION,
    help="Mean correlation of refined images with the originals below which a check ends the "
    "training.",
)
@click.option(
    "--min-agreement",
    default=0.7,
    type=CORRELATION,
    help="Mean IoU between the masks of a segmenter before and after refining, below which a "
    "check ends the training.",
)
@click.option(
    "--segmenter-steps",
    default=300,
    type=AT_LEAST_0,
    help="Number of training steps of that segmenter, if --source gives masks; 0: no segmenter.",
)
@seed_option("Seed of the weights and of all random draws.", DEFAULTS.seed)
@licence_option("the source's")
@device_option
def refiner(
    source: str,
    real: Path,
    out: Path,
    resume: bool,
    images: int,
    pool: int | None,
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
    **settings: Any,
) -> None:
    """Train a refiner: it makes images look like real ones.

    Labels stay valid because refining moves nothing: checks measure that, and end the training when
    a limit is exceeded.
    """
    config = RefinerTrainConfig(
        network=RefinerConfig(width=width, blocks=blocks, grain=grain),
        regulariser=Regulariser(strength, reduction, feature),
        **settings,
    )
    if out.suffix != ".safetensors":
        raise click.BadParameter(f"{out} must end in .safetensors", param_hint="--out")
    for path in (out, state_path(out)):
        if path.exists() and not resume:
            raise RefinerError(
                f"{path} exists; give --resume to continue its training, or another --out"
            )
    count = images if pool is None else pool
    with made_folder(out.parent), opened_pool(source, count, config.seed, device) as source_pool:
        real_pool = Pool(images_from_folder(real, images, source_pool.size if scale else None))
        refuse_misfits(source_pool, real_pool, config)
        click.echo(text_from_pool(source, source_pool))
        options = RefinerRunOptions(
            out, every, max_shift, min_structure, min_agreement, segmenter_steps,
            list(licences) or list(source_pool.licences), device,
        )  # fmt: skip
        drift = run_refiner(config, source_pool, real_pool, options, can_resume(out, resume))
        click.echo(f"wrote {out} and its card: {text_from_drift(drift)}")


def text_from_pool(source: str, pool: Pool) -> str:
    """What is said before the first step, which waits for images."""
    if pool.full:
        return f"{pool.count} images from {source}"
    return (
        f"{pool.count} images from {source} (--pool): {pool.first} before the first step, the "
        "others during the warm-ups"
    )


def refuse_misfits(source: Pool, real: Pool, config: RefinerTrainConfig) -> None:
    """Raises RefinerError for images of two sizes, and for settings that cannot train on them."""
    if source.size != real.size:
        (b, a), (d, c) = source.size, real.size
        raise RefinerError(
            f"the source's images are {a}x{b} pixels, the real ones {c}x{d}; --fit scales and "
            "crops the real ones to the source's size"
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
