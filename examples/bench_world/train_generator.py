"""Training of the bench world's StyleGAN2 to imitate its renderer, over several days.

    python -m examples.bench_world.cache --out demo/world_cache --workers 2
    python -m examples.bench_world.train_generator --cache demo/world_cache --minutes 300

A cache of scenes enters; weights leave. The mapping is trained first, alone, to hold the scene's
numbers (`numbers`), then the synthesis with the mapping frozen; with --resolution 32 and 64 before
128, since learning what is where costs a fourth there. Without a checkpoint a run goes on from the
weights of --start. The rate rises over a few steps, stays, and falls in the last part of the
minutes, so that each run ends with weights of use and the next one can take them up.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from checkpoints import (
    CheckpointError,
    GeneratorCard,
    card_from_config,
    generator_from_file,
    write_generator,
)
from examples.bench_world.__main__ import renderer_sha256
from examples.bench_world.cache import Cache, open_cache
from examples.bench_world.numbers import kept_table
from examples.bench_world.render import RESOLUTION
from examples.bench_world.scene import CLASS_NAMES, Z_DIM
from examples.imitation import (
    PROBE_BATCH,
    WARMUP_STEPS,
    Run,
    center_average,
    descend,
    fit_mapping,
    fitted_probe,
    imitation_loss,
    load_checkpoint,
    run_of_generator,
    save_checkpoint,
)
from nets.generator import Generator as AnyGenerator
from nets.ops import blur, demodulation, upsample_2x
from nets.stylegan2 import (
    FullyConnectedLayer,
    Generator,
    GeneratorConfig,
    MappingNetwork,
    SynthesisLayer,
    ToRGBLayer,
)

COMMITTED = Path(__file__).with_name("generator.safetensors")
CHANNELS = (192, 192, 192, 128, 64, 32)
W_DIM, MAPPING_LAYERS = 384, 4
# At the demo's rate of 0.01 the probe is slower than the mapping: after 300 steps of w_dim 256 it
# left 0.53 of the variance unexplained, at 0.1 0.40, and with `one_coordinate_a_unit` 0.34.
PROBE_LR = 0.2
PROBED = 8192  # scenes that the probe is first fitted to
HINGES = 0.7  # the first layer's thresholds lie between -this and this, in standard deviations
TABLE_SEED = 11  # of the scenes of the mapping's training
FIRST = 32  # least resolution that is trained
FALL_TO = 0.02  # of the learning rate, at the end of a run
# A class counts by its share of the pixels to this power, and by no more and no less than this.
RARENESS, LEAST_WEIGHT, MOST_WEIGHT = -0.4, 0.4, 6.0
COUNTED = 2048  # scenes that the shares are counted in


@dataclass(frozen=True)
class Options:
    """One run."""

    cache: Path
    out: Path  # weights file; the card is written beside it
    start: Path | None  # weights to go on from; None or no file: begin anew
    checkpoint: Path  # state to resume from before `start`; never removed
    minutes: float  # time of this run's synthesis
    resolution: int  # that is trained: 32, 64 or 128
    batch: int
    lr: float
    fall: float  # share of the minutes in which the rate falls
    mapping_steps: int
    mapping_scenes: int
    channels: tuple[int, ...]
    bf16: bool
    seed: int
    save_every_s: float


@dataclass(frozen=True)
class History:
    """What all runs together have done, as the card of the weights says it."""

    steps: int = 0
    images: int = 0
    minutes: float = 0.0
    cpu_minutes: float = 0.0  # of all threads
    mapping_steps: int = 0
    mapping_unexplained: float = 1.0  # share of the variance of the scenes' numbers


def history_from_card(card: GeneratorCard) -> History:
    """The history that `save` wrote; nothing for weights from elsewhere."""
    made = card.provenance if isinstance(card.provenance, dict) else {}
    return History(**{n: made.get(n, value) for n, value in asdict(History()).items()})


def start(options: Options) -> tuple[Run, History]:
    """The run of the checkpoint, else one from the weights of `start`, else one anew.

    Mapping steps come first, and then the synthesis of a run that had some learns the new w.
    """
    torch.manual_seed(options.seed)
    run, history = resumed(options)
    if not options.mapping_steps:
        return run, history
    mapping = run.generator.mapping.requires_grad_(True)
    unexplained = fit_mapping_to_scenes(mapping, options)
    run.average.mapping.load_state_dict(mapping.requires_grad_(False).state_dict())
    steps = history.mapping_steps + options.mapping_steps
    return run, replace(history, mapping_steps=steps, mapping_unexplained=unexplained)


def resumed(options: Options) -> tuple[Run, History]:
    """What `start` begins with."""
    if options.checkpoint.exists():
        generator, card = generator_from_file(options.out)
        run = run_of_generator(as_stylegan2(generator), options.lr)
        load_checkpoint(run, options.checkpoint)
        return run, history_from_card(card)
    if options.start is not None and options.start.exists():
        generator, card = generator_from_file(options.start)
        return run_of_generator(as_stylegan2(generator), options.lr), history_from_card(card)
    generator = new_generator(options)
    return run_of_generator(generator, options.lr), History()


def new_generator(options: Options) -> Generator:
    """Random weights, of which some are set so that little has to be unlearned."""
    fresh = Generator(
        GeneratorConfig(
            RESOLUTION, options.channels, z_dim=Z_DIM, w_dim=W_DIM, mapping_layers=MAPPING_LAYERS
        )
    )
    for block, extent in zip(fresh.synthesis.blocks(), fresh.config.resolutions, strict=True):
        block.torgb.weight.data.mul_(0.25)  # an image of low contrast
        if extent > FIRST:
            block.torgb.weight.data.zero_()  # its first image is the one of half the size, doubled
    one_coordinate_a_unit(fresh.mapping)
    return fresh


def as_stylegan2(generator: AnyGenerator) -> Generator:
    """The generator of a file; ValueError if it is not of the layout that is trained here."""
    if not isinstance(generator, Generator) or generator.config.resolution != RESOLUTION:
        raise ValueError(
            f"the weights are of a {generator.config.family} of {generator.config.resolution} px; "
            f"they must be of a stylegan2 of {RESOLUTION} px"
        )
    return generator.requires_grad_(True)


def one_coordinate_a_unit(mapping: MappingNetwork) -> None:
    """Sets the first layer: each unit reads one coordinate of z, from a threshold of its own.

    Most of a scene's numbers depend on one or two coordinates, by a bend or a step in each. Random
    units, which read all of them, take several times as many steps to find them.
    """
    first, width, z_dim = mapping.fc0, mapping.config.w_dim, mapping.config.z_dim
    assert isinstance(first, FullyConnectedLayer)
    times = -(-width // z_dim)
    thresholds = torch.linspace(-HINGES, HINGES, times) if times > 1 else torch.zeros(1)
    unit = torch.arange(width)
    which = unit // z_dim
    sign = torch.where(which % 2 == 0, 1.0, -1.0)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[unit, unit % z_dim] = sign / first.weight_gain
        first.bias.copy_(-sign * thresholds[which] / first.bias_gain)


def fit_mapping_to_scenes(mapping: MappingNetwork, options: Options) -> float:
    """Trains the mapping on the numbers of many scenes; the share that stays unexplained."""
    z, numbers = (
        torch.from_numpy(array)
        for array in kept_table(options.cache, TABLE_SEED, options.mapping_scenes)
    )

    def draw() -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(z), (PROBE_BATCH,))
        return z[rows], numbers[rows]

    def rate(step: int) -> float:
        warm = min((step + 1) / WARMUP_STEPS, 1.0)
        return PROBE_LR * warm * (0.5 + 0.5 * math.cos(math.pi * step / options.mapping_steps))

    probe = fitted_probe(mapping, z[:PROBED], numbers[:PROBED])
    return fit_mapping(mapping, options.mapping_steps, numbers.shape[1], draw, rate, probe)


def scheduled(rate: float, step: int, progress: float, fall: float) -> float:
    """`rate` after a linear warm-up, and to FALL_TO of it over the last `fall` of the progress."""
    warm = min((step + 1) / WARMUP_STEPS, 1.0)
    left = min((1 - min(progress, 1.0)) / fall, 1.0) if fall else 1.0
    return rate * warm * (FALL_TO + (1 - FALL_TO) * left)


def drawn(generator: Generator, w: Tensor, resolution: int) -> Tensor:
    """The image float32 [N, 3, R, R] of w [N, w_dim] by the blocks up to `resolution`.

    The same as the synthesis network's, without noise and with fewer passes over the features: the
    factors that commute with the activation are multiplied once, and ToRGB is one product.
    """
    x: Tensor | None = None
    image: Tensor | None = None
    for block, extent in zip(
        generator.synthesis.blocks(), generator.config.resolutions, strict=True
    ):
        if x is None:
            x = block.const[None].expand(len(w), -1, -1, -1)
        else:
            x = _convolved(block.conv0, x, w)
        x = _convolved(block.conv1, x, w)
        color = _colored(block.torgb, x, w)
        image = color if image is None else upsample_2x(image, block.resample_filter) + color
        if extent == resolution:
            return image
    raise ValueError(f"resolution is {resolution}; it must be of {generator.config.resolutions}")


def _convolved(layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    styles = layer.affine(w)
    factor = demodulation(layer.weight, styles) * math.sqrt(2)
    y = x * styles.to(x.dtype)[:, :, None, None]
    if layer.up:
        y = F.conv_transpose2d(y, layer.weight.transpose(0, 1), stride=2)
        y = blur(y, layer.resample_filter * 4, (1, 1, 1, 1))
    else:
        y = F.conv2d(y, layer.weight, padding=1)
    bias = (layer.bias * math.sqrt(2)).to(y.dtype)
    y = torch.addcmul(bias[None, :, None, None], y, factor.to(y.dtype)[:, :, None, None])
    return F.leaky_relu(y, 0.2)


def _colored(torgb: ToRGBLayer, x: Tensor, w: Tensor) -> Tensor:
    styles = torgb.affine(w) * torgb.weight_gain
    weight = torgb.weight[None, :, :, 0, 0] * styles[:, None]  # [N, 3, C]
    height, width = x.shape[2:]
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, H W, C]
    color: Tensor = torch.matmul(rows, weight.transpose(1, 2)).float() + torgb.bias
    return color.view(-1, height, width, color.shape[2]).permute(0, 3, 1, 2)


def class_weights(masks: NDArray[np.uint8]) -> Tensor:
    """Weight of each class's error, float32 [classes], from its share of the pixels."""
    counts = np.bincount(masks.ravel(), minlength=len(CLASS_NAMES)).astype(np.float64)
    share = np.maximum(counts / counts.sum(), 1e-9) * len(CLASS_NAMES)
    return torch.from_numpy(np.clip(share**RARENESS, LEAST_WEIGHT, MOST_WEIGHT)).float()


def batch_of_step(
    cache: Cache, step: int, options: Options, by_class: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """z, truth [N, 3, R, R] in [-1, 1] and error weights [N, 1, R, R] of mean one, of a step.

    Which scenes they are depends on seed, step and the size of the cache alone.
    """
    source = np.random.default_rng((options.seed, step))
    z, images, masks = cache.batch(source.integers(len(cache), size=options.batch).tolist())
    truth = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    weights = by_class[torch.from_numpy(masks).long()][:, None]
    if (times := RESOLUTION // options.resolution) > 1:
        truth, weights = F.avg_pool2d(truth, times), F.avg_pool2d(weights, times)
    return torch.from_numpy(z), truth.contiguous(), weights / weights.mean()


def train_step(
    run: Run, options: Options, batch: tuple[Tensor, Tensor, Tensor], progress: float
) -> float:
    """Trains on one batch and updates the average of the weights; returns the loss."""
    z, truth, weights = batch
    run.optimizer.param_groups[0]["lr"] = scheduled(options.lr, run.step, progress, options.fall)
    with torch.no_grad():
        w = run.generator.mapping(z)
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
        image = drawn(run.generator, w, options.resolution)
    loss = descend(run, imitation_loss(image, truth, weights))
    run.step += 1
    return loss


def save(run: Run, options: Options, history: History, resolution: int) -> None:
    """Writes checkpoint and weights, with w_avg set to the mean of w over natural latents."""
    source = torch.Generator().manual_seed(options.seed)
    center_average(run, torch.randn(16384, Z_DIM, generator=source))
    card = GeneratorCard(
        format=1,
        kind="generator",
        family="stylegan2",
        config=card_from_config(run.average.config),
        view_layers=0,
        truncation_psi=1.0,
        truncation_cutoff=run.average.config.num_ws,
        licences=["Apache-2.0"],
        provenance={
            "script": "examples/bench_world/train_generator.py",
            **asdict(history),
            "last_resolution": resolution,
            "last_batch": options.batch,
            "seed": options.seed,
        },
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_generator(options.out, run.average, card, storage=torch.float16)
    save_checkpoint(run, options.checkpoint)


def train(options: Options) -> History:
    """Trains for the given minutes and saves at intervals, when it also takes in new scenes.

    Raises ValueError for weights of another size, and for a cache of another renderer.
    """
    cache = open_cache(options.cache)
    if cache.card.renderer_sha256 != renderer_sha256():
        raise ValueError(
            f"{options.cache} was rendered by another version of the renderer; render a new cache"
        )
    run, history = start(options)
    by_class = class_weights(cache.batch(range(min(len(cache), COUNTED)))[2])
    save(run, options, history, options.resolution)
    began, began_cpu, past, saved_s = time.monotonic(), time.process_time(), history, 0.0
    elapsed_s = 0.0
    with tqdm(unit=" steps", initial=history.steps, mininterval=20.0) as bar:
        while elapsed_s < options.minutes * 60:
            batch = batch_of_step(cache, history.steps, options, by_class)
            loss = train_step(run, options, batch, elapsed_s / (options.minutes * 60))
            elapsed_s = time.monotonic() - began
            history = replace(
                history,
                steps=history.steps + 1,
                images=history.images + options.batch,
                minutes=round(past.minutes + elapsed_s / 60, 2),
                cpu_minutes=round(past.cpu_minutes + (time.process_time() - began_cpu) / 60, 2),
            )
            bar.update()
            bar.set_postfix(loss=f"{loss:.4f}", scenes=len(cache), refresh=False)
            if elapsed_s - saved_s > options.save_every_s:
                save(run, options, history, options.resolution)
                saved_s, cache = elapsed_s, open_cache(options.cache)
    save(run, options, history, options.resolution)
    return history


PATH = click.Path(dir_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder."
)
@click.option("--out", type=PATH, default="demo/world_generator.safetensors", help="Weights.")
@click.option(
    "--start", type=PATH, default=COMMITTED, help="Weights to go on from; no such file: begin anew."
)
@click.option(
    "--checkpoint", type=PATH, default="demo/world_generator.checkpoint", help="Taken up if there."
)
@click.option(
    "--minutes", type=float, default=60.0, help="Time of this run, without the mapping's."
)
@click.option("--resolution", type=click.Choice(["32", "64", "128"]), default="128", help="Pixels.")
@click.option("--batch", type=click.IntRange(1), default=16, help="Scenes of a step.")
@click.option("--lr", type=float, default=3e-3, help="Adam's learning rate.")
@click.option("--fall", type=float, default=0.3, help="Share of the run in which the rate falls.")
@click.option("--mapping-steps", type=click.IntRange(0), default=0, help="Before the synthesis.")
@click.option("--mapping-scenes", type=click.IntRange(2), default=131_072, help="To learn from.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of weights and order.")
@click.option("--bf16/--no-bf16", default=True, help="Convolutions in bfloat16.")
@click.option("--save-every-s", type=float, default=120.0, help="Seconds between two saves.")
def main(resolution: str, **values: object) -> None:
    """Train the generator for a while; repeat to go on."""
    options = Options(resolution=int(resolution), channels=CHANNELS, **values)  # type: ignore[arg-type]
    try:
        history = train(options)
    except (CheckpointError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{options.out}: {history}")


if __name__ == "__main__":
    main()
