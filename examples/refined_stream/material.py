"""Training data of the arms: plain and refined streamed samples, and photographs with exact labels.

Each is created once and kept in a folder for later commands.
"""

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from examples.demo.__main__ import GENERATOR, run
from examples.demo.camera import photographed
from examples.demo.serving import server
from examples.train_segmentation.arms import OUTPUTS
from examples.train_segmentation.samples import Samples, SceneDraw, rendered, samples_from_batch
from labelmint.torch import LabelStream

# Photographs: the refiner is trained on the images, the oracle also on their labels.
REAL = SceneDraw(seed=51_001, count=2048)
TEST = SceneDraw(seed=51_003, count=1024)  # for the table only; no recipe was chosen on it
STREAMED = 2048  # samples from each bundle
STREAM_SEED = 41_000
AT_ONCE = 16


def photographs(draw: SceneDraw) -> Samples:
    """Photographs of rendered scenes, with the renderer's labels."""
    scenes = rendered(draw)
    return Samples(photographed(scenes.images, draw.seed), scenes.masks, scenes.keypoints)


def camera_folder(out: Path) -> Path:
    """A folder of photographs without labels."""
    folder = out / "camera"
    if not folder.exists():
        partial = out / "camera.partial"
        partial.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(tqdm(photographs(REAL).images, desc="photographs")):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(partial / f"{i:04d}.png")
        partial.rename(folder)
    return folder


def refined_bundle(demo: Path, out: Path) -> Path:
    """The demo's bundle with a refiner for the camera."""
    refiner, bundle = out / "refiner.safetensors", out / "bundle"
    if not refiner.exists():
        run(
            "training", "refiner", "--source", str(GENERATOR), "--real", str(camera_folder(out)),
            "--out", str(refiner),
        )  # fmt: skip
    if not bundle.exists():
        interpreter = str(demo / "interpreter.safetensors")
        run(
            "export", "bundle", "--generator", str(GENERATOR), "--interpreter", interpreter,
            "--refiner", str(refiner), "--out", str(bundle),
        )  # fmt: skip
    return bundle


def streamed_sets(demo: Path, out: Path) -> tuple[Samples, Samples]:
    """The same samples from the demo's bundle and from the refined one."""
    files = {name: out / f"{name}.safetensors" for name in ("plain", "refined")}
    if not all(path.exists() for path in files.values()):
        refined = refined_bundle(demo, out)
        with server(demo / "bundle", "--bundle", f"refined={refined}") as target:
            for name, model in (("plain", "demo"), ("refined", "refined")):
                save_file(_tensors(_streamed(target, model)), files[name])
    plain, refined_set = (Samples(**load_file(path)) for path in files.values())
    if not torch.equal(plain.masks, refined_set.masks):
        raise ValueError(
            f"the plain and refined samples in {out} have different labels; delete the folder"
        )
    return plain, refined_set


def _streamed(target: str, model: str) -> Samples:
    stream = LabelStream(
        target, batch_size=AT_ONCE, seed=STREAM_SEED, end_index=STREAMED, outputs=OUTPUTS,
        model=model,
    )  # fmt: skip
    bar = tqdm(stream, total=STREAMED // AT_ONCE, desc=model, unit="batch")
    parts = [samples_from_batch(batch) for batch in bar]
    return Samples(
        torch.cat([part.images for part in parts]),
        torch.cat([part.masks for part in parts]).byte(),
        torch.cat([part.keypoints for part in parts]),
    )


def _tensors(samples: Samples) -> dict[str, torch.Tensor]:
    return {
        "images": samples.images.contiguous(),
        "masks": samples.masks,
        "keypoints": samples.keypoints,
    }
