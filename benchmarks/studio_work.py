"""Label quality against the work of labeling, in the studio, with a simulated person.

    python -m benchmarks.studio_work [--seeds 2021] [--samples 500] [--out demo/studio_work]

On the demo's generator, a person who knows the renderer's exact masks (benchmarks/annotator.py has
the prices) labels the 16 images of a new project through the interface of a running studio:

    polygons   polygons on the images in the set's order; rough: off by up to a pixel
    smart      smart select, fill and brush on the same images, in the same order
    proposals  the same tools, but the image that teaches most comes next, filled with what the
               last round of Learn proposes; only its faults are repaired
    careful    the same, and outlines are repaired, too; in a new project of 32 images
    fine       the same, and parts of up to 150 pixels are repaired to the last one

After 1, 2, 4, 8, 12 and 16 images, and 24 and 32, an ensemble is trained afresh on those labels,
with the settings of a first round of Learn, and its masks of fresh samples are compared with the
exact ones. All ensembles label 50 samples, then all label the next 50, and so on. For comparison,
one is trained on the exact masks of 16 images. What is in --out is not made again. The plot shows
the figures of earlier runs, studio_work.json, for what this one has not measured.
"""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from benchmarks.annotator import Mask, Person, Work
from benchmarks.machine import machine_name
from benchmarks.studio_session import StudioSession, studio_session
from checkpoints import (
    InterpreterCard,
    interpreter_from_file,
    sha256_of_file,
    write_interpreter,
    write_text,
)
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import labels_from_truth, labels_of_indices, truth_of_indices
from examples.demo.scene import CLASS_NAMES, PALETTE
from nets.generator import Generator
from studio.learning import MEMBERS, PIXELS, Job
from training.__main__ import main as training_command
from training.images.image_set import image_set_from_folder
from training.images.sample import drawn_indices
from training.interpreter.card import card_from_fit
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.predict import member_networks, prediction_from_taps
from training.interpreter.train import fit_interpreter
from training.labels.labelled_set import LabelledSet, labelled_set
from training.options import read_generator

COUNTS = (1, 2, 4, 8, 12, 16)
IMAGES = COUNTS[-1]
TEST_SEED = 31_004
ORDER = (16, 32, 24, 8, 12, 4, 2, 1)  # of training: what says most comes first
RECORDED = Path(__file__).with_suffix(".json")  # policy -> images -> works, mIoUs of the seeds
TICKS = (100, 200, 500, 1000, 2000)
Seeds = NDArray[np.float64]  # a value of each seed
CHUNK = 50  # samples that all ensembles label before any labels more


@dataclass(frozen=True)
class Policy:
    """A way of labeling."""

    key: str  # in file names
    name: str
    way: Literal["polygons", "smart", "proposals"]
    tolerance_px: float  # that outlines may be off
    color: str
    least_px: int = 10_000  # wrong pixels side by side that are repaired at outlines, too
    counts: tuple[int, ...] = COUNTS  # images after which an ensemble is trained
    small_px: int = 0  # area of regions that are repaired to the pixel
    labels: tuple[tuple[int, int], ...] = ((0, -13),)  # of points in the plot, in turn; offsets

    @property
    def images(self) -> int:
        """Images of its project, all of which are labeled."""
        return self.counts[-1]


POLYGONS = Policy("polygons", "polygons to 0.5 px", "polygons", 0.5, "#e07a1f", labels=((11, -6),))
ROUGH = Policy("rough", "polygons to 1 px", "polygons", 1.0, "#f0b67f", counts=(IMAGES,))
SMART = Policy("smart", "smart select", "smart", 0.5, "#1f6fe0", labels=((11, -8),))
PROPOSALS = Policy(
    "proposals", "smart select, proposals, chosen images", "proposals", 0.5, "#2bb673",
    labels=((0, 6), (0, -13)),
)  # fmt: skip
CAREFUL = Policy(
    "careful", "the same, outlines repaired", "proposals", 0.5, "#14794c", 2, (*COUNTS, 24, 32),
    labels=((0, -13), (0, -13), (0, -13), (-5, 9), (6, 9)),
)  # fmt: skip
FINE = Policy(
    "fine", "the same, small parts to the pixel", "proposals", 0.5, "#0b4a2e", 2, (16, 24, 32), 150,
    labels=((0, -13), (-5, 9), (6, 9)),
)  # fmt: skip
POLICIES = (POLYGONS, ROUGH, SMART, PROPOSALS, CAREFUL, FINE)
Curves = dict[Policy, dict[int, tuple[Seeds, Seeds]]]
EXACT = Policy(
    "exact", "exact masks", "polygons", 0.0, "#9aa0a8", counts=(IMAGES,)
)  # those of the renderer


@dataclass(frozen=True)
class Place:
    """Where the runs of one seed are stored."""

    out: Path
    seed: int

    def project(self, policy: Policy) -> Path:
        """The folder of the studio's project."""
        return self.out / f"{self.seed}-{policy.key}"

    def work(self, policy: Policy) -> Path:
        """What each image has taken, in the order of labeling."""
        return self.out / f"{self.seed}-{policy.key}.json"

    def ensemble(self, policy: Policy, count: int) -> Path:
        """The weights after so many images."""
        return self.out / f"{self.seed}-{policy.key}-{count:02d}.safetensors"

    def counted(self, policy: Policy, count: int) -> Path:
        """Confusion counts of the ensemble, for each CHUNK of samples."""
        return self.out / f"{self.seed}-{policy.key}-{count:02d}.json"


@click.command()
@click.option("--seeds", default="2021", help="Seeds that sets are drawn with, by commas.")
@click.option("--samples", default=500, help="Number of fresh samples to test on.")
@click.option(
    "--policies", default="exact,polygons,rough,smart,proposals,careful,fine", help="By commas."
)
@click.option("--counts", default="1,2,4,8,12,16,24,32", help="Images to train on, by commas.")
@click.option("--draw", is_flag=True, help="Only draw what earlier runs have found.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo/studio_work"))
def main(seeds: str, samples: int, policies: str, counts: str, draw: bool, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if draw:
        plot(known_curves([]), out / "studio_work.png")
        return
    generator, _, _ = read_generator(GENERATOR, None)
    places = [Place(out, int(seed)) for seed in seeds.split(",")]
    used = [policy for policy in POLICIES if policy.key in policies.split(",")]
    for place in places:
        for policy in used:
            label(place, policy)
    chosen = [int(count) for count in counts.split(",")]
    runs = [(policy, n) for n in ORDER for policy in used if n in policy.counts and n in chosen]
    if EXACT.key in policies.split(","):
        runs = [(EXACT, IMAGES), *runs]
    for end in range(CHUNK, samples + 1, CHUNK):
        test = labels_of_indices(generator, TEST_SEED, np.arange(end - CHUNK, end))
        for place in places:
            count_errors(generator, place, runs, test, end)
        print(f"machine: {machine_name()}; {end} fresh samples")
        print(table(places), flush=True)
        plot(known_curves(places), out / "studio_work.png")


def label(place: Place, policy: Policy) -> None:
    """Labels the images of a project by a policy, and goes on where it was ended."""
    folder, path = place.project(policy), place.work(policy)
    done: list[Any] = json.loads(path.read_text()) if path.exists() else []
    if len(done) == policy.images:
        return
    if not folder.exists():
        training_command(
            ["sample", "--generator", str(GENERATOR), "--out", str(folder),
             "--count", str(policy.images), "--seed", str(place.seed)],
            standalone_mode=False,
        )  # fmt: skip
    images = image_set_from_folder(folder)
    truth = truth_of_indices(place.seed, drawn_indices(images), images.crop.grid).mask.numpy()
    with studio_session(GENERATOR, folder) as session:
        cards = [{"name": n, "color": c} for n, c in zip(CLASS_NAMES, PALETTE, strict=True)]
        session.post("PUT", "/api/classes", {"classes": cards, "before": []})
        if done and policy.way == "proposals":
            session.learn()  # an ended run may have left it without proposals
        while len(done) < policy.images:
            stem = next_stem(session, policy.way, [entry["stem"] for entry in done])
            exact = truth[images.stems.index(stem)]
            person = Person(
                exact, session.ignore_id, policy.tolerance_px, policy.least_px, policy.small_px
            )
            work, mask = label_image(session, policy.way, person, stem)
            done.append(
                {
                    "stem": stem,
                    "cost": round(work.cost(session.size[1]), 2),
                    "wrong": round(float((mask != person.truth).mean()), 5),
                    **work.record(),
                }
            )
            if policy.way == "proposals" and len(done) < policy.images:
                session.learn()
            write_text(path, json.dumps(done, indent=1) + "\n")
            print(f"{place.seed} {policy.key}: {done[-1]}", flush=True)


def next_stem(session: StudioSession, way: str, done: list[str]) -> str:
    """The image that is labeled next: as the page says, or in the set's order."""
    project = session.project()
    if way == "proposals":
        return str(project["learn"]["next"][0])
    return str(next(e["stem"] for e in project["images"] if e["stem"] not in done))


def label_image(session: StudioSession, way: str, person: Person, stem: str) -> tuple[Work, Mask]:
    """Labels one image and saves it."""
    blank = np.full(session.size, session.ignore_id, np.uint8)
    session.save(stem, blank)  # what an ended run has left
    if way == "polygons":
        mask, work = person.polygons()
        session.save(stem, mask)
        return work, mask
    known = session.project()["learn"]["uncertainty"]
    proposed = way == "proposals" and stem in known
    mask = session.mask(stem, "proposal") if proposed else blank
    work = person.smart(mask, partial(selected, session, stem), partial(session.save, stem))
    if proposed:
        work.clicks += 1  # accepting it
        session.save(stem, mask)
    return work, mask


def selected(
    session: StudioSession, stem: str, mask: Mask, column: int, row: int, class_id: int
) -> tuple[Mask, int]:
    """The answer to a click of the smart tool; the server knows what is painted."""
    session.save(stem, mask)
    return session.select(stem, column, row, class_id)


def labels_of_policy(place: Place, policy: Policy, count: int) -> LabelledSet:
    """The labels of the first images in the order of labeling."""
    if policy is EXACT:
        images = image_set_from_folder(place.project(POLYGONS))
        truth = truth_of_indices(place.seed, drawn_indices(images), images.crop.grid)
        labels = labels_from_truth(images.crop, images.stems, images.ws, truth)
        return replace(labels, keypoints=None, keypoint_names=(), skeleton=(), depth=None)
    labels = labelled_set(image_set_from_folder(place.project(policy)))
    first = [entry["stem"] for entry in json.loads(place.work(policy).read_text())][:count]
    return labels.rows(np.array([labels.stems.index(stem) for stem in first]))


def count_errors(
    generator: Generator,
    place: Place,
    runs: list[tuple[Policy, int]],
    test: LabelledSet,
    end: int,
) -> None:
    """Labels the test's latents, the last of `end` samples, by the ensembles that have not yet,
    and adds the confusion counts [true, labeled] to their files. Trains those that are missing."""
    todo = [run for run in runs if len(known_counts(place, *run)) * CHUNK < end]
    ensembles = [trained(generator, place, *run) for run in todo]
    assert test.masks is not None
    classes = len(CLASS_NAMES)
    confusions = np.zeros((len(todo), classes**2), np.int64)
    for w, exact in zip(test.ws, test.masks, strict=True):
        with torch.no_grad():
            taps = generator.synthesis(torch.from_numpy(w)[None]).taps
            for confusion, (members, card) in zip(confusions, ensembles, strict=True):
                found = prediction_from_taps(members, card, taps).mask
                assert found is not None
                pairs = exact.astype(np.int64) * classes + found
                confusion += np.bincount(pairs.ravel(), minlength=classes**2)
    for run, confusion in zip(todo, confusions, strict=True):
        known = [*known_counts(place, *run), confusion.reshape(classes, classes).tolist()]
        write_text(place.counted(*run), json.dumps(known) + "\n")


def known_counts(place: Place, policy: Policy, count: int) -> list[Any]:
    """Confusion counts of an ensemble, for each CHUNK of samples so far."""
    path = place.counted(policy, count)
    return list(json.loads(path.read_text())) if path.exists() else []


def trained(
    generator: Generator, place: Place, policy: Policy, count: int
) -> tuple[dict[str, list[nn.Sequential]], InterpreterCard]:
    """Members of the ensemble, by head, which is trained first if there is none."""
    weights = place.ensemble(policy, count)
    if not weights.exists():
        labels = labels_of_policy(place, policy, count)
        config = InterpreterTrainConfig(members=MEMBERS, steps=Job().cold_steps, pixels=PIXELS)
        fitted = fit_interpreter(generator, labels, config)
        sha256, recipe = sha256_of_file(GENERATOR), generator.config.tap_recipe
        write_interpreter(
            weights, fitted, card_from_fit(fitted, labels, config, sha256, recipe, [])
        )
    interpreter, card = interpreter_from_file(weights)
    return member_networks(interpreter), card


def miou(place: Place, policy: Policy, count: int) -> float:
    """Mean IoU of the classes over all samples so far."""
    confusion = np.array(known_counts(place, policy, count)).sum(axis=0)
    agreed = np.diag(confusion)
    return float((agreed / (confusion.sum(0) + confusion.sum(1) - agreed)).mean())


def curve(places: list[Place], policy: Policy) -> dict[int, tuple[Seeds, Seeds]]:
    """Work, in clicks, and mIoU, in percent, of each seed, by the number of images; of those that
    are measured."""
    found = {}
    for count in policy.counts:
        if all(place.counted(policy, count).exists() for place in places):
            works = [spent_on(place, policy)[:count] for place in places]
            costs = np.array([sum(entry["cost"] for entry in work) for work in works])
            found[count] = (costs, 100 * np.array([miou(place, policy, count) for place in places]))
    return found


def spent_on(place: Place, policy: Policy) -> list[Any]:
    """What each image has taken; nothing for the exact masks."""
    return [] if policy is EXACT else list(json.loads(place.work(policy).read_text()))


def table(places: list[Place]) -> str:
    """Markdown: work and mIoU after so many images, means over seeds with the least and the most,
    and what the goal asks."""
    curves = {policy: curve(places, policy) for policy in POLICIES}
    lines = [
        "| images | " + " | ".join(f"{p.name}: work | mIoU" for p in POLICIES) + " |",
        "|---" * (1 + 2 * len(POLICIES)) + "|",
    ]
    for count in CAREFUL.counts:
        rows = [curves[policy].get(count) for policy in POLICIES]
        cells = [" | " if r is None else f"{spread(r[0], 0)} | {spread(r[1], 1)}" for r in rows]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    for _, exact in curve(places, EXACT).values():
        lines.append(f"\nexact masks of {IMAGES} images: mIoU {spread(exact, 1)}")
    lines.append("")
    for whole in (POLYGONS, ROUGH):
        if IMAGES not in curves[whole]:
            continue
        work, goal = curves[whole][IMAGES]
        for policy in (SMART, PROPOSALS, CAREFUL, FINE):
            for count, (spent, found) in curves[policy].items():
                lines.append(
                    f"{policy.name}, {count} images, less {whole.name}, {IMAGES}: mIoU "
                    f"{spread(found - goal, 1)}, after {spread(spent / work, 2)} of the work"
                )
    return "\n".join(lines)


def spread(values: Seeds, digits: int) -> str:
    """The mean, and in brackets the least and the most."""
    mean, least, most = (f"{v:.{digits}f}" for v in (values.mean(), values.min(), values.max()))
    return mean if len(values) == 1 else f"{mean} ({least} to {most})"


def known_curves(places: list[Place]) -> Curves:
    """Of all policies: what earlier runs have found, and in place of it what this one has."""
    found, earlier = Curves(), json.loads(RECORDED.read_text())
    for policy in (*POLICIES, EXACT):
        known = earlier.get(policy.key, {}).items()
        found[policy] = {int(count): (np.array(w), np.array(m)) for count, (w, m) in known}
        found[policy] |= curve(places, policy) if places else {}
    return found


def plot(curves: Curves, path: Path) -> None:
    """Draws mIoU against work, means over seeds."""
    figure: Any = Figure(figsize=(7.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    gray, small = "#60656f", {"textcoords": "offset points", "fontsize": 8}
    exact = curves[EXACT][IMAGES][1].mean()
    axes.axhline(exact, color=gray, linestyle="--", linewidth=0.8)
    axes.annotate(
        f"exact masks of {IMAGES} images", (0.01, exact), (0, 4),
        xycoords=("axes fraction", "data"), color=gray, **small,
    )  # fmt: skip
    for policy in POLICIES:
        found = {n: (w.mean(), m.mean()) for n, (w, m) in curves[policy].items()}
        if not found:
            continue
        work, scores = zip(*found.values(), strict=True)
        axes.plot(work, scores, "o-", color=policy.color, markersize=4, label=policy.name)
        for place, (count, at) in enumerate(found.items()):
            offset = policy.labels[place % len(policy.labels)]
            axes.annotate(str(count), at, offset, color=policy.color, ha="center", **small)
    third = curves[POLYGONS][IMAGES][0].mean() / 3
    axes.axvline(third, color=gray, linestyle=":", linewidth=0.8)
    axes.annotate(
        f"a third of the work of\n{IMAGES} images, {POLYGONS.name}", (third, 0.35), (-5, 0),
        ha="right", xycoords=("data", "axes fraction"), color=gray, **small,
    )  # fmt: skip
    axes.set_xscale("log")  # the cheap ways lie close together
    axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlabel("work, in clicks; the numbers are labeled images")
    axes.set_ylabel("mIoU of fresh samples, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
