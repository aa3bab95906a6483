"""Labels learned from real images by inversion, on the demo's domain.

    python -m benchmarks.handsoff [--samples 1000] [--images 16] [--out demo/handsoff]

The real images are renders, which the generator did not draw, of the scenes that
benchmarks.few_labels labels, so that the results of both can be compared. It runs the commands
`training encoder`, `invert` and `interpreter`. Existing outputs in --out are reused.
"""

import json
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.few_labels import LABEL_SEED, TEST_SEED, Variant, chosen_indices
from benchmarks.machine import machine_name
from benchmarks.served_labels import served_predictions
from checkpoints import interpreter_from_file
from examples.demo.__main__ import GENERATOR
from examples.demo.labels import labels_from_truth, labels_of_indices, truth_of_indices
from training.__main__ import main as training_command
from training.evaluate.evaluation import evaluation_from_predictions
from training.evaluate.report import numbers_from_evaluation, write_report
from training.images.image_set import image_set_from_folder
from training.label_crop import rgb_from_float
from training.labels.write import write_labels
from training.options import read_generator


@click.command()
@click.option("--samples", default=1000, help="Number of fresh samples to test on.")
@click.option("--images", default=16, help="Number of labeled real images.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo/handsoff"))
def main(samples: int, images: int, out: Path) -> None:
    generator, _, _ = read_generator(GENERATOR, None)
    indices = chosen_indices(generator, Variant(images))
    inverted, weights = out / "inverted", out / "interpreter.safetensors"
    if not inverted.exists():
        write_real_images(indices, out / "real")
        run("encoder", "--out", out / "encoder.safetensors", "--force")
        run(
            "invert", "--images", out / "real", "--encoder", out / "encoder.safetensors",
            "--out", inverted,
        )  # fmt: skip
    image_set = image_set_from_folder(inverted)
    truth = truth_of_indices(LABEL_SEED, indices, image_set.crop.grid)
    labels = labels_from_truth(image_set.crop, image_set.stems, image_set.ws, truth)
    write_labels(inverted, labels)
    run("interpreter", "--labels", inverted, "--out", weights, "--force")
    interpreter, card = interpreter_from_file(weights)
    fresh = labels_of_indices(generator, TEST_SEED, np.arange(samples))
    served = served_predictions(GENERATOR, interpreter, card, fresh.ws)
    evaluation = evaluation_from_predictions(served, card, fresh)
    write_report(out / "report", evaluation)
    numbers = json.loads(json.dumps(numbers_from_evaluation(evaluation)))
    psnr = [entry.psnr_db for entry in image_set.index.images if entry.psnr_db is not None]
    print(f"machine: {machine_name()}; {samples} fresh samples")
    print(
        f"{len(psnr)} of {images} inverted, PSNR {np.mean(psnr):.1f} dB ({min(psnr):.1f} at worst)"
    )
    for name in ("all", "kept"):
        row = numbers[name]
        print(
            f"{name}: mIoU {row['miou']:.3f}, PCK at 0.1 {row['pck']:.3f}, depth RMSE "
            f"{row['depth_rmse']:.3f}, AbsRel {row['depth_abs_rel']:.4f}"
        )


def write_real_images(indices: NDArray[np.int64], folder: Path) -> None:
    """Writes renders of these scenes, 000.png and so on, in the order of the indices."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = rgb_from_float(truth_of_indices(LABEL_SEED, indices, 64).image)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:03d}.png")


def run(subcommand: str, *options: object) -> None:
    """Runs a subcommand of `python -m training`."""
    words = [subcommand, "--generator", str(GENERATOR), *map(str, options)]
    training_command(words, standalone_mode=False)


if __name__ == "__main__":
    main()
