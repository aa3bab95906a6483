"""The papers' protocol with exact truth: what a stream is worth to a training, over several seeds.

    python -m benchmarks.protocol [--domain regions] [--images 16 ...] [--seeds 5] [--arms a,b]
        [--pool 6400] [--steps 800] [--out demo/protocol]

From so many labeled images of a generator a U-Net is trained in each arm (benchmarks/
protocol_arms.py): on these images alone and by the usual ways to use unlabeled ones; on a stream of
labelmint, whose ensemble has seen the same images, as it is and filtered; and on exact masks. A
seed chooses the labeled images, the ensemble's training, the stream, the U-Net's weights and its
order of images. Networks, steps, augmentation and the weights of the classes, by their shares of
the labeled images, are the same in all arms (examples/train_segmentation); in each, the weights of
the tenth of the training that is best on 256 validation renders are tested, on 1,000 other renders
and on photographs of them. The consistency losses of mean teacher and FixMatch are tuned on the
validation renders, with a labeled set of a seed of its own. Results are kept in --out, and what is
there, or in protocol.json, which --record writes, is not trained again.
"""

import copy
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import scipy
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.domains import DOMAINS
from benchmarks.machine import machine_name
from benchmarks.protocol_arms import ARMS, BASELINES, Arm, Case, Material, rendered
from engines.ort import available_cores
from examples.bench_world.nuisance import photographed
from examples.train_segmentation.consistency import ConsistencyConfig, MeanTeacher
from examples.train_segmentation.fit import UNetTrainConfig, balanced_weights, fit
from examples.train_segmentation.samples import Samples
from examples.train_segmentation.unet import UNet, masks_from_logits

VALIDATION_SEED, TEST_SEED = 31_002, 31_003
VALIDATION, TEST = 256, 1000  # renders
LOOKS = 10  # at the validation renders during a training
TUNING_SEED = 90  # of the labeled set that the consistency losses are tuned with
TRIED = ((1.0, 0.95), (1.0, 0.8), (0.3, 0.95), (3.0, 0.95))  # weight, sureness
AT_ONCE = 64
TESTS = ("clean", "camera")
RECORDED = Path(__file__).with_suffix(".json")
# Differences that are asked for: of two arms, over the seeds.
PAIRS = (
    ("stream", "labeled"), ("stream", "transfer"), ("stream", "mean_teacher"),
    ("stream", "fixmatch"), ("keep_0.9", "stream"), ("keep_0.5", "stream"), ("stream", "member"),
    ("exact", "stream"), ("supervised", "exact"),
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """The best network of a training."""

    network: UNet
    curve: list[tuple[int, float]]  # step, mIoU on the validation renders

    @property
    def best(self) -> float:
        """mIoU on the validation renders."""
        return max(miou for _, miou in self.curve)


@click.command(context_settings={"show_default": True})
@click.option("--domain", default="regions", type=click.Choice(list(DOMAINS)))
@click.option(
    "--images", "counts", multiple=True, type=click.IntRange(1), default=(16,),
    help="Number of labeled images; may be repeated.",
)  # fmt: skip
@click.option("--seeds", default=5, type=click.IntRange(1), help="Number of seeds.")
@click.option("--arms", default=",".join(ARMS), help="Arms to train, of these.")
@click.option("--pool", default=6_400, type=click.IntRange(16), help="Samples and renders.")
@click.option("--steps", default=800, type=click.IntRange(LOOKS), help="Of each training.")
@click.option("--threads", default=available_cores(), type=click.IntRange(1))
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo/protocol"))
@click.option("--record", is_flag=True, help="Write all results into protocol.json.")
def main(
    domain: str, counts: tuple[int, ...], seeds: int, arms: str, pool: int, steps: int,
    threads: int, out: Path, record: bool,
) -> None:  # fmt: skip
    names = arms.split(",")
    if unknown := [name for name in names if name not in ARMS]:
        raise click.UsageError(f"--arms has {unknown[0]!r}; arms are {', '.join(ARMS)}")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    config = UNetTrainConfig(steps=steps, batch_size=8, learning_rate=4e-3)
    settings = {"config": asdict(config), "pool": pool}
    for seed, images in itertools.product(range(seeds), counts):
        material = Material(Case(domain, images, seed, pool, threads, out))
        for name in names:
            known = results_of(domain, out, settings).get(images, {}).get(name, {})
            if seed not in known:
                consistency = tuned(name, material, config)
                print(f"\n{images} images, seed {seed}: {ARMS[name].title}", flush=True)
                path = out / f"{domain}-{images:02d}-{name}-{seed}.json"
                write(path, settings | run_arm(ARMS[name], material, config, consistency))
    results = results_of(domain, out, settings)
    print(f"machine: {machine_name()}; {domain}")
    for images in sorted(results):
        print(f"\n{images} labeled images\n\n{table(results[images])}")
        print(f"\n{differences(results[images])}")
    figure_from_results(results).savefig(out / f"{domain}.png", dpi=110)
    print(f"\nlook at {out / f'{domain}.png'}")
    if record:
        write(RECORDED, {**recorded(), domain: results})


def run_arm(
    arm: Arm, material: Material, config: UNetTrainConfig, settings: ConsistencyConfig
) -> dict[str, Any]:
    """Trains an arm and tests its best network."""
    trained = train(arm, material, config, settings)
    tested = of_renders(material, TEST_SEED, TEST)
    photographs = photographed_samples(tested, TEST_SEED)
    return {
        "consistency": asdict(settings) if arm.average is not None else None,
        "curve": [(step, round(miou, 4)) for step, miou in trained.curve],
        "clean": ious(trained.network, tested).round(4).tolist(),
        "camera": ious(trained.network, photographs).round(4).tolist(),
    }


def train(
    arm: Arm, material: Material, config: UNetTrainConfig, settings: ConsistencyConfig
) -> Trained:
    """The network that is best on the validation renders; of a teacher and its student, the
    teacher."""
    classes = len(material.domain.class_names)
    config = replace(config, class_weights=balanced_weights(material.labeled.masks, classes))
    data = arm.data(material, config, settings)
    validation = of_renders(material, VALIDATION_SEED, VALIDATION)
    teachers: list[MeanTeacher] = []
    curve: list[tuple[int, float]] = []
    best: list[UNet] = []

    def teacher_of(student: UNet) -> MeanTeacher:
        assert data.teacher is not None
        teachers.append(data.teacher(student))
        return teachers[0]

    def watch(step: int, network: UNet) -> None:
        if step % (config.steps // LOOKS):
            return
        judged = teachers[0].teacher if teachers else network
        miou = float(np.nanmean(ious(judged, validation)))
        if not curve or miou > max(value for _, value in curve):
            best[:] = [copy.deepcopy(judged)]
        curve.append((step, miou))

    fit(
        config, material.network, material.case.seed, data.batches,
        teacher_of if data.teacher else None, watch, material.variation, data.start,
    )  # fmt: skip
    return Trained(best[0].eval(), curve)


def tuned(name: str, material: Material, config: UNetTrainConfig) -> ConsistencyConfig:
    """The settings of an arm's consistency loss that are best on the validation renders, for as
    many labeled images; those of `ConsistencyConfig` for an arm without one."""
    arm, case = ARMS[name], material.case
    if arm.average is None:
        return ConsistencyConfig()
    made = f"{case.domain}-{case.images:02d}-{name}-{config.steps}-{case.pool}.json"
    path = case.out / "tuning" / made
    if not path.exists():
        own = Material(replace(case, seed=TUNING_SEED))
        rows = []
        for weight, sure in TRIED:
            settings = ConsistencyConfig(arm.average, sure, weight)
            print(f"\n{case.images} images, tuning {name}: {settings}", flush=True)
            rows.append([asdict(settings), train(arm, own, config, settings).best])
        write(path, {"config": asdict(config), "tried": rows})
    tried = json.loads(path.read_text())["tried"]
    return ConsistencyConfig(**max(tried, key=lambda row: row[1])[0])


def of_renders(material: Material, seed: int, count: int) -> Samples:
    return rendered(material.case.domain, seed, count, material.resolution)


def photographed_samples(samples: Samples, seed: int) -> Samples:
    """The same samples as photographs."""
    pictures = samples.images.permute(0, 2, 3, 1).numpy()
    photographs = np.stack([photographed(p, seed, i) for i, p in enumerate(pictures)])
    images = torch.from_numpy(photographs).permute(0, 3, 1, 2)
    return Samples(images, samples.masks, samples.keypoints)


@torch.no_grad()
def ious(network: UNet, samples: Samples) -> NDArray[np.float64]:
    """IoU of each class [C], over all pixels; NaN: in neither truth nor prediction."""
    training = network.training
    network.eval()
    count = network.config.classes
    found = torch.zeros(count * count, dtype=torch.int64)
    for images, masks in zip(
        samples.images.split(AT_ONCE), samples.masks.split(AT_ONCE), strict=True
    ):
        predicted = masks_from_logits(network(images).classes)
        pairs = masks.long() * count + predicted
        found += torch.bincount(pairs.ravel(), minlength=count * count)
    network.train(training)
    confusion = found.view(count, count).numpy().astype(np.float64)
    both = np.diag(confusion)
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = both / (confusion.sum(0) + confusion.sum(1) - both)
    return shares


def write(path: Path, values: dict[str, Any]) -> None:
    """Writes a result whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(values, indent=1) + "\n")
    partial.rename(path)


Results = dict[str, dict[int, dict[str, Any]]]  # arm -> seed -> what `run_arm` gave


def recorded() -> dict[str, Any]:
    """Results of earlier days, by domain."""
    return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


def results_of(domain: str, out: Path, settings: dict[str, Any]) -> dict[int, Results]:
    """By number of labeled images: what is recorded, and what lies in the folder. ClickException:
    some have other settings, of training and pool."""
    found: dict[int, Results] = {}
    for count, known in recorded().get(domain, {}).items():
        found[int(count)] = {
            arm: {int(seed): values for seed, values in runs.items()} for arm, runs in known.items()
        }
    for path in sorted(out.glob(f"{domain}-*-*-[0-9]*.json")):
        _, count, arm, number = path.stem.rsplit("-", 3)
        of_arm = found.setdefault(int(count), {}).setdefault(arm, {})
        of_arm[int(number)] = json.loads(path.read_text())
    for images, arms in found.items():
        for arm, runs in arms.items():
            for seed, values in runs.items():
                made = {name: values[name] for name in settings}
                if made != settings:
                    raise click.ClickException(
                        f"{images} images, {arm}, seed {seed} was made with {made}, this command "
                        f"asks for {settings}; give another --out, or move {RECORDED.name} away if "
                        "it has them"
                    )
    return found


def mious(results: Results, arm: str, test: str) -> dict[int, float]:
    """mIoU in percent by seed."""
    return {s: 100 * float(np.nanmean(v[test])) for s, v in results.get(arm, {}).items()}


def table(results: Results) -> str:
    """A row for each arm: mean and standard deviation over the seeds."""
    lines = ["| arm | trained on | seeds | clean mIoU | camera mIoU |", "|---|---|---|---|---|"]
    for name, arm in ARMS.items():
        if name in results:
            clean, camera = (
                list(mious(results, name, test).values()) for test in ("clean", "camera")
            )
            figures = " | ".join(spread(values) for values in (clean, camera))
            lines.append(f"| {name} | {arm.title} | {len(clean)} | {figures} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


def differences(results: Results) -> str:
    """Paired differences of arms, with 95% intervals of Student's t over the seeds, and the share
    of the distance from the best baseline to exact renders that the stream covers."""
    lines = ["| difference of mIoU | clean | camera |", "|---|---|---|"]
    for better, worse in PAIRS:
        if better in results and worse in results:
            cells = [interval(paired(results, better, worse, test)) for test in TESTS]
            lines.append(f"| {better} - {worse} | {cells[0]} | {cells[1]} |")
    known = [name for name in BASELINES if name in results]
    if known and {"stream", "supervised"} <= results.keys():
        covered = []
        for test in TESTS:
            means = {n: np.mean(list(mious(results, n, test).values())) for n in results}
            best = max(means[name] for name in known)
            covered.append((means["stream"] - best) / (means["supervised"] - best))
        lines.append(
            f"| stream, of the way from the best baseline to renders | {covered[0]:.0%} "
            f"| {covered[1]:.0%} |"
        )
    return "\n".join(lines)


def paired(results: Results, better: str, worse: str, test: str) -> list[float]:
    """Differences of mIoU in points, of the seeds that both arms have."""
    a, b = mious(results, better, test), mious(results, worse, test)
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def interval(values: Sequence[float]) -> str:
    """Mean with its 95% interval; of one value the value."""
    count = len(values)
    if count < 2:
        return f"{values[0]:+.1f}" if values else ""
    half = scipy.stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count)
    mean = float(np.mean(values))
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def figure_from_results(results: dict[int, Results]) -> Figure:
    """A panel for each number of labeled images: a dot for each seed, a bar for their mean."""
    figure = Figure(figsize=(5.5 * len(results) + 2.5, 4.2), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False, sharex=True)[0]
    for panel, images in zip(panels, sorted(results), strict=True):
        shown = [name for name in ARMS if name in results[images]]
        for row, name in enumerate(shown):
            for test, color, shift in (("clean", "#1f6fe0", 0.18), ("camera", "#c2185b", -0.18)):
                values = list(mious(results[images], name, test).values())
                place = len(shown) - row + shift
                panel.barh(place, np.mean(values), height=0.32, color=color, alpha=0.35)
                panel.plot(values, [place] * len(values), ".", color=color, markersize=4)
        panel.set_yticks([len(shown) - row for row in range(len(shown))])
        panel.set_yticklabels([ARMS[name].title for name in shown])
        panel.set_title(f"{images} labeled images")
        panel.grid(axis="x", alpha=0.3)
    figure.supxlabel("mIoU, percent; blue: renders, red: photographs of them", fontsize="medium")
    return figure


if __name__ == "__main__":
    main()
