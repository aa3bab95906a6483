"""Arms of `benchmarks.protocol`: each one's training data, and nothing else, is its own.

A Case enters, a Material that makes labeled images, renders and the stream's samples when an arm
first asks for them; an arm's training data leave.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import trange

from benchmarks.domains import DOMAINS, Domain
from benchmarks.few_labels import LABEL_SEED, first_member
from checkpoints import sha256_of_file, write_interpreter
from engines import EngineOptions
from engines.samples import BundleSamples
from examples.demo.labels import truth_of_indices
from examples.train_segmentation.augment import Variation, swapped_sides
from examples.train_segmentation.consistency import ConsistencyConfig, MeanTeacher, random_boxes
from examples.train_segmentation.fit import UNetTrainConfig
from examples.train_segmentation.samples import Samples, bytes_from_colors, shuffled_batches
from examples.train_segmentation.unet import UNet, UNetConfig
from export.__main__ import main as export_command
from labelmint.options import StreamOptions
from nets.generator import Generator
from training.images.sample import SampleConfig, drawn_w, typical_rows
from training.interpreter.card import card_from_fit
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.train import fit_interpreter
from training.label_crop import images_from_ws
from training.labels.labelled_set import LabelledSet
from training.options import read_generator

RENDERED_SEED = 31_001  # of the renders that are trained on; the demo's training example has it too
STREAM_SEED = 51_000  # the case's seed is added
CHUNK = 64  # samples at a time
ERASED = 0.9  # weight of erased pixels in the loss of `painter`; the others have the rest


@dataclass(frozen=True)
class Case:
    """One labeled set: so many images of a domain, chosen by a seed that also trains."""

    domain: str
    images: int
    seed: int
    pool: int  # samples of the stream, and as many renders
    threads: int  # of the engine
    out: Path

    @property
    def folder(self) -> Path:
        """Where its ensemble and its stream are kept."""
        return self.out / f"{self.domain}-{self.images:02d}-{self.seed}"


@dataclass(frozen=True, eq=False)
class Pool:
    """Samples of a stream with their labels."""

    samples: Samples
    uncertainty: NDArray[np.float32]  # [n]

    def kept(self, fraction: float) -> Samples:
        """The most certain share of the samples, as the papers filter a finite set."""
        order = np.argsort(self.uncertainty, kind="stable")
        return self.samples.rows(torch.from_numpy(order[: round(fraction * len(order))]))


def without_keypoints(images: Tensor, masks: Tensor) -> Samples:
    """Samples of images uint8 [n, 3, H, W] and masks alone."""
    return Samples(images, masks, torch.empty(len(images), 0, 3))


@cache
def rendered(domain: str, seed: int, count: int, resolution: int) -> Samples:
    """Renders of a domain's samples 0 to count of a seed, with exact masks."""
    parts = []
    for first in trange(0, count, CHUNK, desc=f"render {count}", unit="batch"):
        indices = np.arange(first, min(first + CHUNK, count))
        truth = truth_of_indices(seed, indices, resolution)
        masks = torch.from_numpy(DOMAINS[domain].masks(truth, seed, indices))
        parts.append(without_keypoints(bytes_from_colors(truth.image), masks))
    return without_keypoints(
        torch.cat([part.images for part in parts]), torch.cat([part.masks for part in parts])
    )


class Material:
    """What the arms of a case train on, each made when it is first asked for."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.domain: Domain = DOMAINS[case.domain]
        self.generator: Generator = read_generator(self.domain.generator, None)[0]
        self.resolution = self.generator.config.resolution
        self.network = UNetConfig(classes=len(self.domain.class_names), keypoints=0)
        self.variation = Variation(
            keypoint_partners=(), class_partners=swapped_sides(self.domain.class_names)
        )

    @cached_property
    def labels(self) -> LabelledSet:
        """Exact labels of typical images, as `training sample` chooses them."""
        images, seed = self.case.images, LABEL_SEED + self.case.seed
        config = SampleConfig(count=images, candidates=16 * images, seed=seed)
        rows = typical_rows(drawn_w(self.generator, config), images, seed)
        return self.domain.labels(self.generator, seed, rows)

    @cached_property
    def labeled(self) -> Samples:
        """The generator's images of these labels."""
        assert self.labels.masks is not None
        images = images_from_ws(self.generator, self.labels.ws, self.labels.crop)
        masks = torch.from_numpy(self.labels.masks)
        return without_keypoints(torch.from_numpy(images).permute(0, 3, 1, 2), masks)

    @property
    def renders(self) -> Samples:
        """Renders with exact masks, the same for all cases."""
        return rendered(self.case.domain, RENDERED_SEED, self.case.pool, self.resolution)

    @cached_property
    def pool(self) -> Pool:
        """The stream of the ensemble."""
        return self._pool("ensemble")

    @cached_property
    def member_pool(self) -> Pool:
        """The stream of the ensemble's first member: the same images with its labels."""
        return self._pool("member")

    def _pool(self, name: str) -> Pool:
        path = self.case.folder / f"{name}-{self.case.pool}.npz"
        if not path.exists():
            bundle = self._bundle(name)
            arrays = streamed(bundle, STREAM_SEED + self.case.seed, self.case)
            partial_path = path.with_suffix(".part.npz")
            np.savez(partial_path, allow_pickle=False, **arrays)
            partial_path.rename(path)
        with np.load(path) as file:
            images, masks, uncertainty = (file[n] for n in ("image", "mask", "uncertainty"))
        samples = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)
        return Pool(without_keypoints(*samples), uncertainty)

    @property
    def exact(self) -> Samples:
        """The stream's images with the renderer's masks."""
        seed = STREAM_SEED + self.case.seed
        truth = rendered(self.case.domain, seed, self.case.pool, self.resolution)
        return without_keypoints(self.pool.samples.images, truth.masks)

    def _bundle(self, name: str) -> Path:
        """The bundle of the ensemble, or of its first member; trained and exported if missing."""
        bundle = self.case.folder / f"{name}.bundle"
        if bundle.exists():
            return bundle
        self.case.folder.mkdir(parents=True, exist_ok=True)
        settings = InterpreterTrainConfig(seed=self.case.seed)
        interpreter = fit_interpreter(self.generator, self.labels, settings)
        sha256 = sha256_of_file(self.domain.generator)
        for who, network in (("member", first_member(interpreter)), ("ensemble", interpreter)):
            recipe = self.generator.config.tap_recipe
            card = card_from_fit(network, self.labels, settings, sha256, recipe, [])
            weights = self.case.folder / f"{who}.safetensors"
            write_interpreter(weights, network, card)
            export_command(
                [
                    "bundle", "--generator", str(self.domain.generator), "--interpreter",
                    str(weights), "--out", str(self.case.folder / f"{who}.bundle"),
                    "--parity-samples", "2", "--no-half", "--force",
                ],
                standalone_mode=False,
            )  # fmt: skip
        return bundle


def streamed(bundle: Path, seed: int, case: Case) -> dict[str, NDArray[Any]]:
    """Samples 0 to `pool` of a bundle's stream: image, mask, uncertainty."""
    options = StreamOptions(seed=seed, outputs=["image", "mask", "uncertainty"])
    source = BundleSamples(bundle, options, EngineOptions(threads=case.threads), verify=False)
    starts = trange(0, case.pool, CHUNK, desc=bundle.name, unit="batch")
    parts = [source.of_indices(range(s, min(s + CHUNK, case.pool))) for s in starts]
    source.close()
    names = ("image", "mask", "uncertainty")
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


@dataclass(frozen=True)
class ArmData:
    """Training data of an arm."""

    batches: Iterator[Samples]  # endless, of exactly the batch size
    teacher: Callable[[UNet], MeanTeacher] | None = None
    start: UNet | None = None


@dataclass(frozen=True)
class Arm:
    """One way of training."""

    title: str
    data: Callable[[Material, UNetTrainConfig, ConsistencyConfig], ArmData]
    average: float | None = None  # of the teacher's weights, which are judged then; 0: the student


def batches_of(
    samples: Samples, material: Material, config: UNetTrainConfig, purpose: int = 0
) -> Iterator[Samples]:
    """Endless shuffled batches; purposes are shuffled apart."""
    source = torch.Generator().manual_seed(2 * material.case.seed + purpose)
    return shuffled_batches(samples, config.batch_size, source)


def on(chosen: Callable[[Material], Samples]) -> Callable[..., ArmData]:
    """Supervised training on these samples."""

    def data(m: Material, config: UNetTrainConfig, settings: ConsistencyConfig) -> ArmData:
        return ArmData(batches_of(chosen(m), m, config))

    return data


def with_unlabeled(m: Material, config: UNetTrainConfig, settings: ConsistencyConfig) -> ArmData:
    """Labeled images, and renders whose labels are not read."""
    unlabeled = batches_of(m.renders, m, config, 1)
    return ArmData(
        batches_of(m.labeled, m, config),
        lambda network: MeanTeacher(
            network, unlabeled, m.case.seed, settings, m.variation, config.class_weights
        ),
    )


def transferred(m: Material, config: UNetTrainConfig, settings: ConsistencyConfig) -> ArmData:
    """Labeled images, from a network that has learned to fill in erased parts of renders."""
    start = painter(batches_of(m.renders, m, config, 1), config, m.case.seed, m.network)
    return ArmData(batches_of(m.labeled, m, config), start=start)


def painter(
    batches: Iterator[Samples], config: UNetTrainConfig, seed: int, network: UNetConfig
) -> UNet:
    """A network for classes whose layers, all but the last, were trained to restore images of which
    half is erased (Pathak et al., Context encoders, CVPR 2016, arXiv 1604.07379, without the
    adversary)."""
    torch.manual_seed(seed)
    restorer = UNet(UNetConfig(classes=3, keypoints=0, widths=network.widths))
    source = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        restorer.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for _ in trange(config.steps, desc="restore", unit="step"):
        images = next(batches).images
        erased = random_boxes(len(images), images.shape[2:], source)[:, None]
        seen = torch.where(erased, torch.tensor(128, dtype=torch.uint8), images)
        error = (restorer(seen).classes - (images / 127.5 - 1)).square()
        weight = torch.where(erased, ERASED, 1 - ERASED)
        loss = (error * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    trained = {n: t for n, t in restorer.state_dict().items() if not n.startswith("heads.")}
    start = UNet(network)
    start.load_state_dict({**start.state_dict(), **trained})
    return start


ARMS = {
    "labeled": Arm("labeled images alone", on(lambda m: m.labeled)),
    "transfer": Arm("labeled, after restoring unlabeled renders", transferred),
    "mean_teacher": Arm("labeled and unlabeled, mean teacher", with_unlabeled, average=0.99),
    "fixmatch": Arm("labeled and unlabeled, as FixMatch", with_unlabeled, average=0.0),
    "member": Arm("stream of one member", on(lambda m: m.member_pool.samples)),
    "stream": Arm("stream", on(lambda m: m.pool.samples)),
    "keep_0.9": Arm("stream, 0.9 kept", on(lambda m: m.pool.kept(0.9))),
    "keep_0.5": Arm("stream, 0.5 kept", on(lambda m: m.pool.kept(0.5))),
    "exact": Arm("stream's images, exact masks", on(lambda m: m.exact)),
    "supervised": Arm("renders, exact masks", on(lambda m: m.renders)),
}
BASELINES = ("labeled", "transfer", "mean_teacher", "fixmatch")
