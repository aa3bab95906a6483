"""`export bundle` reads checkpoints of other projects and refuses wrong combinations."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from bundle import open_bundle
from checkpoints import read_foreign
from engines.open import EngineOptions, open_engine, open_mapping
from engines.sampling import default_options, ws_from_indices
from export.__main__ import main
from nets.interpreter import HeadConfig, Interpreter, member_as_sequential

FIXTURES = Path("tests/checkpoints/fixtures")
GENERATORS = {
    "ada": FIXTURES / "stylegan2_ada" / "file_protocol4.pkl",
    "tensorflow": FIXTURES / "stylegan2_tensorflow" / "file_networks.pkl",
    "rosinality": FIXTURES / "rosinality" / "file_training.pt",
    "rosinality, legacy": FIXTURES / "rosinality" / "file_legacy.pt",
    "stylegan3": FIXTURES / "stylegan3" / "file_r_classes.pkl",
}
IN_HALF = ("ada", "stylegan3")  # too; test_families.py runs every family in half precision
MEMBERS, CLASSES, FEATURES = 3, 4, 12

RECIPE = """
format = 1
kind = "recipe"
note = "a test's"
tap_recipe = "styledconv+const"
features = 12
grid = 8
crop_top = 2
height = 4
width = 8
resize = "bilinear"
truncation_psi = 0.7
truncation_cutoff = 4
licences = ["CC0-1.0"]
classes = ["a", "b", "c", "d"]
"""


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(*words: object) -> str:
    """The single line of error of a command that must fail."""
    result = run(*words)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def bundle_of(generator: Path, out: Path, *more: object) -> Path:
    result = run("bundle", "--generator", generator, "--out", out, "--parity-samples", 2, *more)
    assert result.exit_code == 0, result.output
    return out


def save_members(folder: Path, interpreter: Interpreter, numbers: Sequence[int]) -> Path:
    """Member files as the release writes them: wrapped for data parallelism, one per member."""
    folder.mkdir()
    head = interpreter.head("segmentation")
    for k, number in enumerate(numbers):
        wrapped = nn.Module()
        wrapped.module = nn.Module()
        wrapped.module.layers = member_as_sequential(head, k)
        torch.save({"model_state_dict": wrapped.state_dict()}, folder / f"model_{number}.pth")
    return folder


def ensemble(features: int = FEATURES) -> Interpreter:
    torch.manual_seed(3)
    interpreter = Interpreter((HeadConfig("segmentation", features, (8, 6), CLASSES, MEMBERS),))
    for name, tensor in interpreter.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.4)
    return interpreter.eval()


@pytest.fixture
def members(tmp_path: Path) -> Path:
    return save_members(tmp_path / "members", ensemble(), range(MEMBERS))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_published_generator_becomes_a_bundle_of_images(kind: str, tmp_path: Path) -> None:
    half = () if kind in IN_HALF else ("--no-half",)
    bundle = open_bundle(bundle_of(GENERATORS[kind], tmp_path / "bundle", *half))
    manifest = bundle.manifest
    assert manifest.heads is None and {p.graph for p in manifest.parity} >= {"labeller.onnx"}
    engine, mapping = open_engine(bundle, EngineOptions()), open_mapping(bundle, EngineOptions())
    drawn = default_options(manifest.generator, 1)
    ws = ws_from_indices(mapping, manifest.generator, drawn, np.arange(2, dtype=np.uint64))
    images = engine.run(ws, np.full(2, np.inf, np.float32), ("image",)).arrays["image"]
    size = manifest.generator.resolution
    assert images.shape == (2, size, size, 3) and images.std() > 0


def test_published_members_and_a_recipe_become_labels(
    members: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    labels = ("--interpreter", members, "--recipe", recipe)
    manifest = open_bundle(bundle_of(GENERATORS["rosinality"], out, *labels)).manifest
    assert manifest.generator.truncation_psi == 0.7 and manifest.generator.truncation_cutoff == 4
    assert manifest.labels is not None and manifest.heads is not None
    assert (manifest.labels.height, manifest.labels.width, manifest.labels.crop_top) == (4, 8, 2)
    segmentation = manifest.heads.segmentation
    assert segmentation is not None and segmentation.members == MEMBERS
    assert [c.name for c in segmentation.classes] == ["a", "b", "c", "d"]
    assert manifest.licences == ["CC0-1.0"]


@pytest.mark.long
def test_classes_of_a_labelled_set_take_the_place_of_the_recipes(
    members: Path, recipe: Path, tmp_path: Path
) -> None:
    classes = tmp_path / "classes.toml"
    names = ("sky", "road", "car", "tree")
    rows = [f'[[classes]]\nname = "{n}"\ncolor = "#00ff0{i}"\n' for i, n in enumerate(names)]
    classes.write_text("".join(rows))
    labels = ("--interpreter", members, "--recipe", recipe, "--labels", classes)
    bundle = open_bundle(bundle_of(GENERATORS["rosinality"], tmp_path / "bundle", *labels))
    assert bundle.manifest.heads is not None and bundle.manifest.heads.segmentation is not None
    found = bundle.manifest.heads.segmentation.classes
    assert [(c.name, c.color) for c in found] == [(n, 0x00FF00 + i) for i, n in enumerate(names)]


def test_wrong_combinations_name_both_sides_and_the_fix(
    members: Path, recipe: Path, tmp_path: Path, tiny_weights: tuple[Path, Path]
) -> None:
    generator, out = GENERATORS["rosinality"], tmp_path / "out"
    start = ("bundle", "--out", out, "--generator")
    labels = ("--interpreter", members)
    wide = save_members(tmp_path / "wide", ensemble(5056), range(1))
    narrow = tmp_path / "narrow.toml"
    narrow.write_text(RECIPE.replace("features = 12", "features = 10"))
    few = tmp_path / "few.toml"
    few.write_text(RECIPE.replace(', "d"]', "]"))
    gap = save_members(tmp_path / "gap", ensemble(), (0, 2, 3))
    for words, expected in (
        ((*start, generator, *labels), ["does not record which features it reads", "--recipe"]),
        (
            (*start, generator, "--interpreter", tmp_path / "none", "--recipe", recipe),
            ["none does not exist", "model_<k>.pth"],
        ),
        (
            (*start, generator, *labels, "--recipe", "datasetgan-cat-99"),
            ["datasetgan-cat-99", "handsoff-faces-19"],
        ),
        ((*start, generator, *labels, "--recipe", "datasetgan-car-20"), ["12", "5056"]),
        ((*start, generator, *labels, "--recipe", narrow), ["12 features", "10"]),
        (
            (*start, generator, "--interpreter", wide, "--recipe", recipe),
            ["5056", "12", "datasetgan-car-20"],
        ),
        ((*start, generator, *labels, "--recipe", few), ["4 classes", "names 3"]),
        ((*start, generator, "--interpreter", gap, "--recipe", recipe), ["model_1.pth"]),
        ((*start, generator, "--recipe", recipe), ["--recipe", "--interpreter"]),
        (
            (*start, tiny_weights[0], "--interpreter", tiny_weights[1], "--recipe", recipe),
            ["--recipe", "leave it out"],
        ),
        (
            (*start, tiny_weights[0], "--mean-latent", tmp_path / "mean.npy"),
            ["--mean-latent", "leave it out"],
        ),
        ((*start, members / "model_0.pth"), ["member of a label ensemble", "--interpreter"]),
    ):
        line = refused(*words)
        assert all(word in line for word in expected), line
        assert not out.exists()


def test_a_mean_latent_takes_the_place_of_the_files_own(tmp_path: Path) -> None:
    mean = np.linspace(-1, 1, 4, dtype=np.float32)
    np.save(tmp_path / "mean.npy", np.tile(mean, (18, 1)))
    given = ("--mean-latent", tmp_path / "mean.npy", "--no-half")
    bundle = open_bundle(bundle_of(GENERATORS["rosinality"], tmp_path / "bundle", *given))
    np.testing.assert_allclose(bundle.manifest.generator.w_avg, mean)
    np.save(tmp_path / "mean.npy", np.zeros((18, 5), np.float32))
    line = refused("bundle", "--generator", GENERATORS["ada"], "--out", tmp_path / "b", *given)
    assert "[18, 5]" in line and "4 values" in line


def test_inspect_says_what_a_file_is(members: Path, tiny_weights: tuple[Path, Path]) -> None:
    expected: dict[Any, list[str]] = {
        GENERATORS["ada"]: ["(resnet)", "8 px", "classes      2", "clamp        256"],
        GENERATORS["tensorflow"]: ["stylegan2 (skip)", "2 layers", "4 rows"],
        GENERATORS["rosinality"]: ["(skip)", "D = 12", "not conditional", "none of the"],
        GENERATORS["stylegan3"]: ["stylegan3 (radial filters", "stylegan3, D = 32", "has none"],
        members: ["3 members", "D = 12, 8, 6, 4 classes"],
        members / "model_1.pth": ["1 member", "D = 12"],
        tiny_weights[0]: ["32 px", "CC0-1.0", "D = 104"],
        tiny_weights[1]: ["interpreter", "segmentation", "keypoints"],
    }
    for path, words in expected.items():
        result = run("inspect", path)
        assert result.exit_code == 0, result.output
        assert all(word in result.stdout for word in words), result.stdout
    assert "of an unknown kind" in refused("inspect", "README.md")
    assert "cannot be read" in refused("inspect", "no-such-file")
    assert "neither a bundle's manifest.json nor any model_<k>.pth" in refused("inspect", "docs")


def test_inspect_names_the_recipes_that_fit(tmp_path: Path) -> None:
    wide = save_members(tmp_path / "wide", ensemble(6080), range(1))
    result = run("inspect", wide)
    assert "handsoff-faces-19: D = 6080, 512 x 512 px, 19 classes" in result.stdout


def test_reading_imports_nothing_of_the_file() -> None:
    before = set(sys.modules)
    for path in GENERATORS.values():
        read_foreign(path)
    assert not [m for m in set(sys.modules) - before if m.startswith(("torch_utils", "dnnlib"))]
