"""A StyleGAN3 and an ensemble for it become a bundle of labels; what it cannot have is refused."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bundle import open_bundle
from checkpoints import generator_from_file, interpreter_from_file
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from export.__main__ import main
from export.checks.reference import reference_outputs
from export.manifest_from_cards import spec_from_cards
from tests.conftest import write_tiny_weights
from tests.export.networks import random_stylegan3


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_tiny_weights(
        tmp_path_factory.mktemp("weights"), config=random_stylegan3(32).config
    )


@pytest.mark.long
def test_its_labels_are_served_and_calibrated(weights: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    given = ["--generator", weights[0], "--interpreter", weights[1], "--out", out]
    more = ["--calibrate", 64, "--parity-samples", 2]
    done = CliRunner().invoke(main, ["bundle", *map(str, [*given, *more])])
    assert done.exit_code == 0, done.output
    bundle = open_bundle(out)
    manifest, facts = bundle.manifest, bundle.manifest.generator
    assert (facts.family, facts.num_ws, facts.noise) == ("stylegan3", 7, "none")
    assert manifest.labels is not None and len(manifest.calibrations) == 1
    assert (manifest.labels.tap_recipe, manifest.labels.feature_dim) == ("stylegan3", 45)

    engine, mapping = open_engine(bundle, EngineOptions()), open_mapping(bundle, EngineOptions())
    indices = np.arange(3, dtype=np.uint64)
    ws = ws_from_indices(mapping, facts, default_options(facts, 5), indices)
    arrays = engine.run(ws, np.full(3, np.inf, np.float32), ("image", "mask")).arrays
    generator, card = generator_from_file(weights[0])
    ensemble, labels = interpreter_from_file(weights[1])
    expected = reference_outputs(generator, ensemble, spec_from_cards(card, labels), ws)
    assert np.abs(arrays["image"].astype(int) - expected["image"]).max() <= 1
    clear = expected["mask_margin"] > 1e-4
    assert clear.mean() > 0.99 and len(np.unique(expected["mask"])) > 1
    np.testing.assert_array_equal(arrays["mask"][clear], expected["mask"][clear])


@pytest.mark.parametrize(
    ("more", "grid", "words"),
    [
        (["--fused", "9.0"], 32, "the generator is a StyleGAN3, which the fused kernel does not"),
        ([], 16, "the label grid is 16; it must be over 16"),
    ],
)
def test_what_it_cannot_have_is_told_in_one_line(
    weights: tuple[Path, Path], tmp_path: Path, more: list[str], grid: int, words: str
) -> None:
    interpreter = tmp_path / "i.safetensors"
    interpreter.write_bytes(weights[1].read_bytes())
    text = weights[1].with_suffix(".toml").read_text()
    for field in ("grid", "height", "width"):
        text = text.replace(f"{field} = 32", f"{field} = {grid}")
    interpreter.with_suffix(".toml").write_text(text)
    given = ["--generator", weights[0], "--interpreter", interpreter, "--out", tmp_path / "b"]
    done = CliRunner().invoke(main, ["bundle", *map(str, given), *more])
    assert done.exit_code == 1 and not (tmp_path / "b").exists()
    assert words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
