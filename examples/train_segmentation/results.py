"""Results of runs in the output folder, and the table of all of them.

A run is `<arm>-<seed>.json` and its weights. Both are written when it ends, so an interrupted
command loses only the current run.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_model, save_model

from examples.demo.scene import CLASS_NAMES, KEYPOINT_NAMES
from examples.train_segmentation.arms import Arm
from examples.train_segmentation.evaluate import Score
from examples.train_segmentation.fit import UNetTrainConfig
from examples.train_segmentation.unet import UNet, UNetConfig

NETWORK = UNetConfig(len(CLASS_NAMES), len(KEYPOINT_NAMES))


@dataclass(frozen=True)
class Run:
    """One arm trained from one seed."""

    arm: str  # letter
    seed: int
    config: dict[str, float]  # of UNetTrainConfig
    score: Score  # on the test images
    curve: list[tuple[int, float]]  # step and mIoU on the validation images
    seconds: float  # training time, including waiting for data and validation


def write_run(folder: Path, run: Run, network: UNet) -> None:
    """Writes the run and its weights to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{run.arm}-{run.seed}"
    save_model(network, str(folder / f"{name}.safetensors"))
    (folder / f"{name}.json").write_text(json.dumps(asdict(run), indent=1) + "\n")


def runs_of_folder(folder: Path, config: UNetTrainConfig) -> list[Run]:
    """All runs in the folder, by arm and seed.

    Raises:
        ValueError: a run has another configuration, or a file is not a run.
    """
    runs = [_run_from_file(path) for path in sorted(folder.glob("?-*.json"))]
    for run in runs:
        for name, value in asdict(config).items():
            if run.config.get(name) != value:
                raise ValueError(
                    f"{folder}/{run.arm}-{run.seed}.json has {name} {run.config.get(name)}, this "
                    f"command {value}; give the same or another --out"
                )
    return runs


def _run_from_file(path: Path) -> Run:
    try:
        fields = json.loads(path.read_text())
        fields["score"] = Score(**fields["score"])
        fields["curve"] = [(int(step), float(value)) for step, value in fields["curve"]]
        return Run(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a result of this example: {error!r}; delete it") from error


def network_of_run(folder: Path, run: Run) -> UNet:
    """The trained network."""
    network = UNet(NETWORK)
    load_model(network, str(folder / f"{run.arm}-{run.seed}.safetensors"))
    return network.eval()


def table_from_runs(runs: Sequence[Run]) -> str:
    """Markdown table: a row for each arm, with means over its seeds and the range of the mIoU."""
    titles = ["", "training data", "seeds", "mIoU", "PCK@0.1", "keypoints, px", *CLASS_NAMES]
    lines = [titles, ["---"] * len(titles)]
    for arm in Arm:
        of_arm = [run for run in runs if run.arm == arm.value]
        if of_arm:
            lines.append([arm.value, arm.title, str(len(of_arm)), *_figures(of_arm)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figures(runs: Sequence[Run]) -> list[str]:
    scores = [run.score for run in runs]
    mious = [100 * score.miou for score in scores]
    spread = f" ({min(mious):.1f} to {max(mious):.1f})" if len(runs) > 1 else ""
    return [
        f"{_mean(mious):.1f}{spread}",
        f"{100 * _mean([score.pck for score in scores]):.1f}",
        f"{_mean([score.keypoint_error_px for score in scores]):.2f}",
        *(f"{100 * _mean(list(part)):.1f}" for part in zip(*(s.iou for s in scores), strict=True)),
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
