"""Quality of labels learned from 1, 4, 16 and 40 labeled images, with exact truth.

    python -m benchmarks.few_labels [--samples 1000] [--out demo/few_labels]

Uses the demo's generator and renderer. The labeled images are chosen as by `training sample`:
typical ones, or nested sets of the farthest, each image the farthest in w from those before it.
Each variant trains the ensemble once and labels the same fresh samples. Results are stored in
--out; a variant with a result is not run again.
"""

import json
from dataclasses import dataclass
from dataclasses import replace as dataclass_replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from benchmarks.machine import machine_name
from benchmarks.served_labels import served_predictions
from checkpoints import InterpreterCard, head_cards, sha256_of_file
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import labels_of_indices
from nets.features import Resize
from nets.generator import Generator
from nets.interpreter import Interpreter
from training.evaluate.evaluation import Evaluation, evaluation_from_predictions
from training.evaluate.report import numbers_from_evaluation, write_report
from training.images.sample import Choice, SampleConfig, drawn_w, spread_rows, typical_rows
from training.interpreter.card import card_from_fit
from training.interpreter.config import InterpreterTrainConfig
from training.interpreter.train import fit_interpreter
from training.labels.labelled_set import LabelledSet
from training.options import read_generator

MOST = 40
TEST_SEED = 31_004
LABEL_SEED = 2021


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    images: int
    choose: Choice = "farthest"
    resize: Resize = "bilinear"

    @property
    def name(self) -> str:
        """Name of its file in --out."""
        return f"{self.images:02d}_{self.choose}_{self.resize}"


VARIANTS = (
    Variant(1),
    Variant(4),
    Variant(16),
    Variant(40),
    Variant(16, resize="nearest"),
    Variant(4, "typical"),
    Variant(16, "typical"),
)


@click.command()
@click.option("--samples", default=1000, help="Number of fresh samples to test on.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo/few_labels"),
    help="Folder for results.",
)
def main(samples: int, out: Path) -> None:
    generator, _, _ = read_generator(GENERATOR, None)
    missing = [v for v in VARIANTS if not (out / f"{v.name}.json").exists()]
    if missing:
        truth = labels_of_indices(generator, TEST_SEED, np.arange(samples))
        for variant in missing:
            labels = labels_of_indices(generator, LABEL_SEED, chosen_indices(generator, variant))
            numbers = run(generator, labels, variant, truth, out)
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{variant.name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(
        f"machine: {machine_name()}; {samples} fresh samples, {InterpreterTrainConfig.steps} steps"
    )
    print(table({v: json.loads((out / f"{v.name}.json").read_text()) for v in VARIANTS}))


def chosen_indices(generator: Generator, variant: Variant) -> NDArray[np.int64]:
    """Indices of the first of the 40 farthest among 640 draws, or of the typical images among 16
    draws for each image."""
    count = MOST if variant.choose == "farthest" else variant.images
    config = SampleConfig(count=count, candidates=16 * count, seed=LABEL_SEED)
    w = drawn_w(generator, config)
    if variant.choose == "typical":
        return typical_rows(w, count, LABEL_SEED)
    return spread_rows(w, count)[: variant.images]


def run(
    generator: Generator, labels: LabelledSet, variant: Variant, truth: LabelledSet, out: Path
) -> dict[str, object]:
    """Trains, labels, compares: numbers of the ensemble and of its first member."""
    config = InterpreterTrainConfig(resize=variant.resize)
    interpreter = fit_interpreter(generator, labels, config)
    recipe, sha256 = generator.config.tap_recipe, sha256_of_file(GENERATOR)
    card = card_from_fit(interpreter, labels, config, sha256, recipe, [])
    ensemble = compare(interpreter, card, truth)
    write_report(out / variant.name, ensemble)
    single = first_member(interpreter)
    member = compare(single, replace(card, heads=head_cards(single)), truth)
    return {
        "ensemble": numbers_from_evaluation(ensemble),
        "member": numbers_from_evaluation(member),
    }


def compare(interpreter: Interpreter, card: InterpreterCard, truth: LabelledSet) -> Evaluation:
    """The labels that a server would give against the truth."""
    return evaluation_from_predictions(
        served_predictions(GENERATOR, interpreter, card, truth.ws), card, truth
    )


def first_member(interpreter: Interpreter) -> Interpreter:
    """The ensemble's first member as an ensemble of one."""
    configs = [dataclass_replace(interpreter.head(k).config, members=1) for k in interpreter.heads]
    single = Interpreter(tuple(configs)).eval().requires_grad_(False)
    rows = {name: tensor.shape for name, tensor in single.state_dict().items()}
    first = {
        name: tensor[: rows[name][0]] if tensor.ndim else tensor
        for name, tensor in interpreter.state_dict().items()
    }
    single.load_state_dict(first)
    return single


def table(results: dict[Variant, dict[str, Any]]) -> str:
    """Markdown table: for each variant one row each for member, ensemble and filtered ensemble."""
    lines = [
        "| images | chosen | resize | labels of | mIoU | PCK@0.1 | depth RMSE | depth AbsRel |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, result in results.items():
        rows = {
            "one member": result["member"]["all"],
            "ensemble of 10": result["ensemble"]["all"],
            "ensemble, most certain 90%": result["ensemble"]["kept"],
        }
        start = f"| {variant.images} | {variant.choose} | {variant.resize}"
        lines += [f"{start} | {name} | {_measures(row)} |" for name, row in rows.items()]
    return "\n".join(lines)


def _measures(row: dict[str, float]) -> str:
    names = ("miou", "pck", "depth_rmse", "depth_abs_rel")
    return " | ".join(f"{row[name]:.4f}" for name in names)


if __name__ == "__main__":
    main()
