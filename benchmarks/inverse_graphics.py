"""Errors of meshes from single images, after training with 1, 4 and 8 views of each object.

    make demo
    python -m benchmarks.inverse_graphics [--steps 1000] [--threads 1]

Builds a view bank of 8 codes with exact cameras and a bundle with it, and trains on the first 64
and on 256 objects, in parallel. Outputs are in demo/inverse and are reused. The meshes of other
objects are compared with the demo's exact geometry, from cameras that were not in the training.
"""

import itertools
import json
import math
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import machine_name
from checkpoints import inverse_graphics_from_file
from examples.demo.render import pixel_centers, trace
from examples.demo.scene import BACKGROUND, Z_DIM, Scene, scene_from_latents
from examples.demo.serving import server
from labelmint.latents import Purpose, latents
from nets.inverse_graphics import InverseGraphics
from nets.mesh import turned_inside_out
from nets.textured import Cameras, Seen, seen_from
from training.inverse_graphics.config import template
from training.inverse_graphics.object_sets import SetsConfig, cameras_of_bank, sets_from_service
from training.sheet import rows_from_images, sheet_from_rows

GENERATOR = Path("examples/demo/generator.safetensors")
OUT = Path("demo/inverse")
BANK, VIEWS = 8, (1, 4, 8)
TRAINED, TESTED = (64, 256), 96  # objects
SEEN = 4  # cameras for each tested object, drawn as in the demo
EXTENT = 64
TEST_SEED, CAMERA_SEED = 777, 1000


@dataclass(frozen=True)
class Truth:
    """True renders of the tested objects, each from one camera."""

    cameras: Cameras
    mask: Tensor  # bool [N, R, R]
    depth: Tensor  # [N, R, R]
    color: Tensor  # [N, 3, R, R] in [0, 1]


@click.command(context_settings={"show_default": True})
@click.option("--steps", default=1000, type=click.IntRange(1), help="Training steps.")
@click.option("--threads", default=1, type=click.IntRange(1), help="Threads of each training.")
def main(steps: int, threads: int) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    bundle = bundle_with_views()
    with server(bundle) as address:
        for objects in TRAINED:
            train_side_by_side(address, objects, steps, threads)
        asked = SetsConfig(TESTED, 1, EXTENT, (), TEST_SEED)
        sets, model = sets_from_service(address, asked)
    bank = cameras_of_bank(model, math.nan, math.nan)
    truths = [truth_of_draw(draw, bank) for draw in range(SEEN)]
    images = sets.images[:, 0]
    print(f"machine: {machine_name()}\n{steps} steps, {TESTED} objects, {SEEN} cameras of each\n")
    print("| training | silhouette IoU | depth error | silhouettes it was trained on | inverted |")
    print("|---|---|---|---|---|")
    truth = bytes_of(truths[0].color * truths[0].mask[:, None])
    rows = {"input image": images[:10], "true object, other camera": truth[:10]}
    figures = {}
    for name, network, own in networks():
        seen = [seen_by(network, images, truth.cameras) for truth in truths]
        iou, depth = scores(seen, truths)
        inverted = inverted_by(network, images)
        figures[name] = {"iou": iou, "depth": depth, "own": own, "inverted": inverted}
        print(f"| {name} | {iou:.3f} | {depth:.3f} | {own:.3f} | {inverted:.4f} |")
        if name.startswith(f"{TRAINED[0]} "):
            rows[f"mesh after {name}"] = bytes_of(seen[0].color)[:10]
            rows[f"its normals, {name}"] = bytes_of(facing(seen[0]))[:10]
    columns = [f"object {i}" for i in range(len(images[:10]))]
    sheet_from_rows(rows_from_images(rows), columns).save(OUT / "shapes.png")
    (OUT / "figures.json").write_text(json.dumps(figures, indent=2))


def bundle_with_views() -> Path:
    cameras, views, bundle = OUT / "cameras.csv", OUT / "views.safetensors", OUT / "bundle"
    if not bundle.exists():
        cameras.unlink(missing_ok=True)
        run("examples.demo.cameras", "--out", str(cameras))
        run(
            "training", "views", "--generator", str(GENERATOR), "--cameras", str(cameras),
            "--count", str(BANK), "--out", str(views),
        )  # fmt: skip
        run(
            "export", "bundle", "--generator", str(GENERATOR), "--interpreter",
            "demo/interpreter.safetensors", "--views", str(views), "--out", str(bundle),
        )  # fmt: skip
    return bundle


def train_side_by_side(address: str, objects: int, steps: int, threads: int) -> None:
    """Trains with each number of views at once; a step has 16 images, one each of 16 objects or two
    each of 8."""
    started = []
    for views in VIEWS:
        out = weights_of(objects, views)
        if out.exists():
            continue
        line = [
            "training", "inverse-graphics", "--source", address, "--out", str(out), "--objects",
            str(objects), "--views", str(views), "--batch", "16" if views == 1 else "8", "--steps",
            str(steps), "--extent", "32", "--texture", "32", "--resume",
        ]  # fmt: skip
        if not out.with_suffix(".state.safetensors").exists():
            line.remove("--resume")
        started.append(run_beside(threads, *line))
    if any([process.wait() for process in started]):
        raise SystemExit("a training failed")


def weights_of(objects: int, views: int) -> Path:
    return OUT / f"{objects}_objects_{views}_views.safetensors"


def networks() -> list[tuple[str, InverseGraphics, float]]:
    """Each training's title, network, and IoU from its card."""
    found = []
    for objects, views in itertools.product(TRAINED, VIEWS):
        network, card = inverse_graphics_from_file(weights_of(objects, views))
        name = f"{objects} objects, {views} view{'s' * (views > 1)}"
        found.append((name, network, card.silhouette))
    return found


def truth_of_draw(draw: int, bank: Cameras) -> Truth:
    scene = scenes(draw)
    hits = trace(scene, *pixel_centers(EXTENT))
    away, focal = (x.mean().expand(TESTED) for x in (bank.distance, bank.focal))
    cameras = Cameras(scene.azimuth, scene.elevation, away, focal)
    return Truth(cameras, hits.part != BACKGROUND, hits.depth, hits.color)


def scenes(draw: int) -> Scene:
    """The tested objects, each from another random camera."""
    objects = np.arange(TESTED)
    content = latents(TEST_SEED, Purpose.OBJECT, objects, Z_DIM)
    view = latents(CAMERA_SEED + draw, Purpose.OBJECT, objects, Z_DIM)
    return scene_from_latents(torch.from_numpy(view), torch.from_numpy(content))


@torch.no_grad()
def seen_by(network: InverseGraphics, images: Tensor, cameras: Cameras) -> Seen:
    """Renders the meshes of images uint8 [N, 3, EXTENT, EXTENT], with their estimated light."""
    found = network(input_of(network, images))
    mesh = template(torch.device("cpu"))
    return seen_from(found.points, mesh.faces, mesh.uv, found.texture, cameras, EXTENT, found.light)


@torch.no_grad()
def inverted_by(network: InverseGraphics, images: Tensor) -> float:
    """Mean share of faces that point inwards."""
    points = network(input_of(network, images)).points
    return float(turned_inside_out(points, network.faces).mean())


def input_of(network: InverseGraphics, images: Tensor) -> Tensor:
    extent = network.config.extent
    x = images.float() / 255
    return torch.nn.functional.interpolate(x, (extent, extent), mode="bilinear", antialias=True)


def scores(seen: list[Seen], truths: list[Truth]) -> tuple[float, float]:
    """Mean IoU of silhouettes, and mean absolute z-depth error inside both, in object units."""
    ious, errors = [], []
    for found, truth in zip(seen, truths, strict=True):
        covered = found.face >= 0
        both = covered & truth.mask
        ious.append(both.sum(dim=(1, 2)) / (covered | truth.mask).sum(dim=(1, 2)))
        apart = torch.where(both, (found.depth - truth.depth).abs(), 0.0).sum(dim=(1, 2))
        errors.append(apart / both.sum(dim=(1, 2)))
    return float(torch.cat(ious).mean()), float(torch.cat(errors).mean())


def facing(seen: Seen) -> Tensor:
    return torch.where((seen.face >= 0)[:, None], seen.normals * 0.5 + 0.5, 0.0)


def bytes_of(colors: Tensor) -> Tensor:
    return (colors.clamp(0, 1) * 255).round().to(torch.uint8)


def run(*command: str) -> None:
    if run_beside(1, *command).wait():
        raise SystemExit(f"python -m {shlex.join(command)} failed")


def run_beside(threads: int, *command: str) -> subprocess.Popen[bytes]:
    print(f"\n$ python -m {shlex.join(command)}", flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen([sys.executable, "-m", *command], env=environment)


if __name__ == "__main__":
    main()
