"""A refined bundle has the labels of the plain one bit for bit, and other images."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from bundle import open_bundle
from checkpoints import (
    RefinerCard,
    RegulariserCard,
    config_card_from_refiner,
    generator_from_file,
    refiner_from_file,
    sha256_of_file,
    write_refiner,
)
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from export.__main__ import main
from export.checks.reference import uint8_from_image
from export.graph.to_onnx import OPERATORS
from nets.refiner import GrainSource, Refiner, RefinerConfig

SAMPLES = 6


def export(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refusal(result: Result) -> str:
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output
    return lines[0]


def written_refiner(folder: Path, generator: Path, grain: int = 3, **changes: Any) -> Path:
    """A refiner of random weights for a generator of 32 px, and its card."""
    torch.manual_seed(5)
    network = Refiner(RefinerConfig(width=6, blocks=2, grain=grain))
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.15)
    card = RefinerCard(
        format=1,
        kind="refiner",
        generator_sha256=sha256_of_file(generator),
        height=32,
        width=32,
        grain_seed=9,
        config=config_card_from_refiner(network),
        regulariser=RegulariserCard(strength=0.5, reduction="mean", feature="identity"),
        shift_px=0.21,
        structure=0.93,
        licences=["CC-BY-4.0"],
        provenance="random",
    )
    path = folder / "refiner.safetensors"
    write_refiner(path, network, msgspec.structs.replace(card, **changes))
    return path


@pytest.fixture(scope="module")
def refiner(tiny_weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_refiner(tmp_path_factory.mktemp("refiner"), tiny_weights[0])


@pytest.fixture(scope="module")
def refined(
    tiny_weights: tuple[Path, Path], refiner: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`tiny_bundle` exported with a refiner."""
    out = tmp_path_factory.mktemp("bundles") / "refined"
    generator, interpreter = tiny_weights
    words = ("bundle", "--generator", generator, "--interpreter", interpreter)
    result = export(*words, "--refiner", refiner, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def ws_of(folder: Path) -> NDArray[np.float32]:
    bundle = open_bundle(folder)
    sampling = default_options(bundle.manifest.generator, 3)
    mapping = open_mapping(bundle, EngineOptions())
    return ws_from_indices(mapping, bundle.manifest.generator, sampling, range(SAMPLES))


def outputs_of(folder: Path) -> dict[str, NDArray[Any]]:
    engine = open_engine(open_bundle(folder), EngineOptions(batch_sizes=(SAMPLES,)))
    limits = np.full(SAMPLES, np.inf, np.float32)
    return dict(engine.run(ws_of(folder), limits, engine.outputs).arrays)


def test_labels_are_those_of_the_plain_bundle_and_images_are_not(
    tiny_bundle: Path, refined: Path
) -> None:
    plain, other = outputs_of(tiny_bundle), outputs_of(refined)
    assert plain.keys() == other.keys() >= {"image", "mask", "keypoints", "uncertainty"}
    for name in plain.keys() - {"image"}:
        assert plain[name].tobytes() == other[name].tobytes(), name
    changed = np.abs(plain["image"].astype(int) - other["image"])
    assert (changed > 8).mean() > 0.5


def test_images_are_those_of_the_refiner(
    tiny_weights: tuple[Path, Path], refiner: Path, refined: Path
) -> None:
    generator, _ = generator_from_file(tiny_weights[0])
    network, card = refiner_from_file(refiner)
    ws = torch.from_numpy(ws_of(refined))
    grain = GrainSource(3, 32, 32, generator.mapping.w_avg, card.grain_seed)(ws)
    with torch.no_grad():
        expected = network(generator.synthesis(ws).image.clamp(-1, 1), grain)
    served = outputs_of(refined)["image"]
    for i in range(SAMPLES):
        steps = np.abs(uint8_from_image(expected[i : i + 1]).astype(int) - served[i])
        assert steps.max() <= 1


def test_the_manifest_says_so_and_the_id_is_another(
    tiny_bundle: Path, refined: Path, refiner: Path
) -> None:
    plain, manifest = open_bundle(tiny_bundle).manifest, open_bundle(refined).manifest
    assert plain.refiner is None and manifest.refiner is not None
    assert b'"refiner"' not in (tiny_bundle / "manifest.json").read_bytes()
    assert manifest.bundle_id != plain.bundle_id
    facts = manifest.refiner
    assert facts.weights_sha256 == sha256_of_file(refiner)
    assert (facts.width, facts.blocks, facts.grain, facts.grain_seed) == (6, 2, 3, 9)
    assert facts.regulariser == "0.5 x mean of identity"
    assert manifest.licences == ["CC0-1.0", "CC-BY-4.0"]
    for parity in manifest.parity[1:]:
        assert parity.samples == 8 and parity.image_max_steps is not None
    assert manifest.parity[1].image_max_steps in (0, 1)


@pytest.mark.parametrize("graph", ["labeller.onnx", "labeller.fp16.onnx"])
def test_its_graphs_hold_what_every_tensorrt_parses(refined: Path, graph: str) -> None:
    model = onnx.load(refined / graph)
    kinds = {node.op_type for node in model.graph.node}
    assert "Tanh" in kinds and kinds <= OPERATORS
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    constants = {i.name: i for i in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert all(node.input[1] in constants for node in convolutions)
    half = onnx.TensorProto.FLOAT16 if "fp16" in graph else onnx.TensorProto.FLOAT
    tanh = next(node for node in model.graph.node if node.op_type == "Tanh")
    feeding = {name for node in convolutions for name in node.output}
    assert feeding and tanh.input
    assert all(constants[node.input[1]].data_type == half for node in convolutions)


def test_inspect_shows_bundle_and_weights(refined: Path, refiner: Path) -> None:
    shown = export("inspect", refined).output
    assert "refiner      2 blocks of width 6, grain 3, regulariser 0.5 x mean of identity" in shown
    shown = export("inspect", refiner).output
    assert "refiner for the generator of SHA-256" in shown and "drift        0.21 px" in shown


def test_a_refiner_without_grain_works_on_images_alone(
    tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    path = written_refiner(tmp_path, tiny_weights[0], grain=0)
    out = tmp_path / "out"
    words = ("bundle", "--generator", tiny_weights[0], "--refiner", path, "--out", out)
    result = export(*words, "--no-half")
    assert result.exit_code == 0, result.output
    assert outputs_of(out)["image"].shape == (SAMPLES, 32, 32, 3)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "another generator": ({"generator_sha256": "0" * 64}, "trained on images of a generator with"),
    "another size": ({"width": 64}, "images 64 pixels wide; this bundle's are 32"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refiner_that_does_not_belong_is_refused(
    tiny_weights: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    changes, words = REFUSALS[name]
    path = written_refiner(tmp_path, tiny_weights[0], **changes)
    out = tmp_path / "out"
    result = export("bundle", "--generator", tiny_weights[0], "--refiner", path, "--out", out)
    assert words in refusal(result)
    assert not out.exists()


def test_broken_weights_and_cards_are_one_line(
    tiny_weights: tuple[Path, Path], refiner: Path, tmp_path: Path
) -> None:
    def absent(path: Path) -> None:
        path.unlink()

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:300])

    def gray(path: Path) -> None:
        card = path.with_suffix(".toml")
        card.write_text(card.read_text().replace("channels = 3", "channels = 1"))

    def interpreters(path: Path) -> None:
        shutil.copy(tiny_weights[1].with_suffix(".toml"), path.with_suffix(".toml"))

    cases: dict[Callable[[Path], None], str] = {
        absent: "does not exist", cut: "no intact safetensors", gray: "channels is 1",
        interpreters: "kind",
    }  # fmt: skip
    for damage, words in cases.items():
        folder = tmp_path / damage.__name__
        folder.mkdir()
        path = Path(shutil.copy(refiner, folder))
        shutil.copy(refiner.with_suffix(".toml"), folder)
        damage(path)
        result = export(
            "bundle", "--generator", tiny_weights[0], "--refiner", path, "--out", folder / "out"
        )
        assert words in refusal(result), damage.__name__
        assert not (folder / "out").exists()


def test_a_refiner_of_unknown_origin_is_taken(
    tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    path = written_refiner(tmp_path, tiny_weights[0], generator_sha256=None)
    words = ("bundle", "--generator", tiny_weights[0], "--refiner", path, "--no-half")
    assert export(*words, "--out", tmp_path / "out").exit_code == 0
