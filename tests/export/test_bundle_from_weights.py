"""`export bundle` writes bundles whose graphs match the reference, or fails with one line."""

import json
import shlex
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from bundle import NotCalibrated, open_bundle
from bundle.calibration import calibration_for
from checkpoints import generator_from_file, write_generator
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from export.__main__ import main
from export.inspect import lines_from_bundle
from nets.stylegan2 import Generator

TinyWeights = tuple[Path, Path]


def export(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refusal(result: Result) -> str:
    """The single line of an error that the user can fix."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output
    return lines[0]


def test_the_manifest_tells_what_the_weights_cannot(
    tiny_bundle: Path, tiny_weights: TinyWeights
) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    generator, card = generator_from_file(tiny_weights[0])
    assert manifest.generator.num_ws == generator.config.num_ws == 8
    assert manifest.generator.view_layers == card.view_layers
    assert manifest.labels is not None and manifest.heads is not None
    assert manifest.labels.feature_dim == 2 * sum(generator.config.channels)
    assert manifest.heads.score_source == "segmentation"
    assert manifest.licences == ["CC0-1.0"]
    assert set(manifest.tools) >= {"torch", "onnx", "onnxruntime"}
    w_avg = torch.tensor(manifest.generator.w_avg)
    assert torch.equal(w_avg, generator.mapping.w_avg)  # through JSON, to the last bit


def test_measured_differences_are_in_the_manifest(tiny_bundle: Path) -> None:
    parity = {p.graph: p for p in open_bundle(tiny_bundle).manifest.parity}
    assert set(parity) == {"mapping.onnx", "labeller.onnx", "labeller.fp16.onnx"}
    single = parity["labeller.onnx"]
    assert single.mask_mismatch_share == 0 and single.image_max_steps in (0, 1)
    assert single.uncertainty_max_excess is not None and single.uncertainty_max_excess <= 1
    assert single.keypoints_max_px is not None and single.keypoints_max_px <= 0.01
    assert single.samples == 8
    assert parity["mapping.onnx"].w_max_difference is not None


def test_both_shares_of_differing_pixels_are_printed_for_both_graphs(tiny_bundle: Path) -> None:
    lines = lines_from_bundle(open_bundle(tiny_bundle))
    for graph in ("labeller.onnx", "labeller.fp16.onnx"):
        (line,) = (line for line in lines if f"{graph} (" in line)
        assert all(f" {name} " in line for name in ("mask_difference_share", "near_tie_share"))
        assert " mask_mismatch_share " in line and "(limit" in line


def test_a_sample_has_the_same_bits_in_every_row_of_every_fill(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    options = EngineOptions(batch_sizes=(8,))
    engine, mapping = open_engine(bundle, options), open_mapping(bundle, options)
    generator = bundle.manifest.generator
    ws = ws_from_indices(mapping, generator, default_options(generator, 3), range(8))
    limits = np.full(8, np.inf, np.float32)
    whole = engine.run(ws, limits, engine.outputs)
    for row in (0, 3, 7):
        for position in (0, 1, 5, 7):
            for fill in (1, 2, 6, 8):
                if position >= fill:
                    continue
                batch = ws[[(row + 1 + k) % 8 for k in range(fill)]]
                batch[position] = ws[row]
                again = engine.run(batch, limits[:fill], engine.outputs)
                for name in engine.outputs:
                    expected = whole.arrays[name][row].tobytes()
                    assert again.arrays[name][position].tobytes() == expected, (name, fill)


def test_a_kept_sample_has_the_same_bits_as_unfiltered(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    engine = open_engine(bundle, EngineOptions(batch_sizes=(8,)))
    mapping = open_mapping(bundle, EngineOptions())
    generator = bundle.manifest.generator
    ws = ws_from_indices(mapping, generator, default_options(generator, 4), range(8))
    whole = engine.run(ws, np.full(8, np.inf, np.float32), engine.outputs)
    median = np.median(whole.arrays["uncertainty"].astype(np.float32))
    kept = engine.run(ws, np.full(8, median, np.float32), engine.outputs)
    assert 0 < len(kept.sample) < 8
    for name in engine.outputs:
        assert kept.arrays[name].tobytes() == whole.arrays[name][kept.sample].tobytes(), name


def test_half_precision_runs_and_is_another_graph(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    mapping = open_mapping(bundle, EngineOptions())
    generator = bundle.manifest.generator
    ws = ws_from_indices(mapping, generator, default_options(generator), range(2))
    limits = np.full(2, np.inf, np.float32)
    single = open_engine(bundle, EngineOptions(precision="float32"))
    half = open_engine(bundle, EngineOptions(precision="float16"))
    scores = [
        engine.run(ws, limits, ("uncertainty",)).arrays["uncertainty"].astype(np.float32)
        for engine in (single, half)
    ]
    assert (scores[0] != scores[1]).any()
    assert np.allclose(scores[0], scores[1], atol=0.01)


def test_a_graph_that_fails_parity_is_not_written(
    tiny_weights: TinyWeights, tmp_path: Path
) -> None:
    generator, card = generator_from_file(tiny_weights[0])
    assert isinstance(generator, Generator)
    generator.synthesis.blocks()[0].const.data.mul_(1e6)  # over what float16 can hold
    path, out = tmp_path / "large.safetensors", tmp_path / "out"
    write_generator(path, generator, card)
    result = export("bundle", "--generator", path, "--out", out)
    assert "labeller.fp16.onnx" in refusal(result) and "--no-half" in refusal(result)
    assert not out.exists() and len(list(tmp_path.iterdir())) == 2
    result = export("bundle", "--generator", path, "--out", out, "--no-half")
    assert result.exit_code == 0, result.output
    assert "labeller.fp16.onnx" not in open_bundle(out).manifest.files


def test_an_image_only_bundle_serves_images(tiny_weights: TinyWeights, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = export("bundle", "--generator", tiny_weights[0], "--out", out, "--no-half")
    assert result.exit_code == 0, result.output
    bundle = open_bundle(out)
    assert bundle.manifest.heads is None
    engine = open_engine(bundle, EngineOptions(batch_sizes=(4,)))
    ws = np.zeros((3, 8, 12), np.float32)
    images = engine.run(ws, np.full(3, np.inf, np.float32), ("image",)).arrays["image"]
    assert images.shape == (3, 32, 32, 3)
    assert "no score_source" in refusal(export("calibrate", out, "--samples", 64))


def test_what_cannot_be_calibrated_is_said_before_the_export(
    tiny_weights: TinyWeights, tmp_path: Path
) -> None:
    start = ("bundle", "--generator", tiny_weights[0], "--out", tmp_path / "out")
    result = export(*start, "--calibrate", 64)
    assert "--interpreter is not given" in refusal(result)
    assert "comparing" not in result.stderr
    few = export(*start, "--interpreter", tiny_weights[1], "--calibrate", 63)
    assert few.exit_code == 2 and "63 is under 64" in few.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_refused_before_any_work(
    tiny_bundle: Path, tiny_weights: TinyWeights
) -> None:
    result = export("bundle", "--generator", tiny_weights[0], "--out", tiny_bundle)
    assert "--force" in refusal(result)


def test_an_interpreter_of_another_generator_is_refused(
    tiny_weights: TinyWeights, tmp_path: Path
) -> None:
    generator, interpreter = (shutil.copy(path, tmp_path) for path in tiny_weights)
    for path in tiny_weights:
        shutil.copy(path.with_suffix(".toml"), tmp_path)
    toml = Path(interpreter).with_suffix(".toml")
    card = toml.read_text()
    start = card.index('generator_sha256 = "') + len('generator_sha256 = "')
    toml.write_text(card[:start] + "0" * 64 + card[start + 64 :])
    out = tmp_path / "out"
    result = export("bundle", "--generator", generator, "--interpreter", interpreter, "--out", out)
    assert "was trained on a generator with SHA-256 0000" in refusal(result)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--generator", "--interpreter"])
def test_missing_weights_are_one_line(
    tiny_weights: TinyWeights, tmp_path: Path, option: str
) -> None:
    given = {"--generator": tiny_weights[0], "--interpreter": tiny_weights[1]}
    given[option] = tmp_path / "absent.safetensors"
    arguments = [word for pair in given.items() for word in pair]
    result = export("bundle", *arguments, "--out", tmp_path / "out")
    assert "absent" in refusal(result)
    assert list(tmp_path.iterdir()) == []


def test_weights_in_each_others_place_are_told_by_their_kind(
    tiny_weights: TinyWeights, tmp_path: Path
) -> None:
    generator, interpreter = tiny_weights
    out = ("--out", tmp_path / "out")
    for option in ("--interpreter", "--refiner", "--views"):
        line = refusal(export("bundle", "--generator", generator, option, generator, *out))
        assert f"{generator} is of kind 'generator'" in line
        assert f"give one of kind '{option[2:]}'" in line
    line = refusal(export("bundle", "--generator", interpreter, *out))
    assert "is of kind 'interpreter'" in line and "give one of kind 'generator'" in line


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert export("bundle", "--out", tmp_path / "x").exit_code == 2
    assert export("calibrate", tmp_path, "--samples", 3).exit_code == 2
    assert export("transmogrify").exit_code == 2


def test_inspect_prints_what_a_bundle_is(tiny_bundle: Path) -> None:
    result = export("inspect", tiny_bundle)
    assert result.exit_code == 0
    for words in (
        open_bundle(tiny_bundle).manifest.bundle_id,
        "class 3",
        "32 x 32",
        "(limit 10000)",
    ):
        assert words in result.output


def test_inspect_finds_a_damaged_file(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    data = bytearray((copy / "labeller.onnx").read_bytes())
    data[1000] ^= 4
    (copy / "labeller.onnx").write_bytes(data)
    assert "labeller.onnx has SHA-256" in refusal(export("inspect", copy))


def test_calibrate_extends_the_manifest_and_keeps_the_id(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    before = open_bundle(copy).manifest
    result = export("calibrate", copy, "--samples", 64, "--psi", 0.5, "--views", 2)
    assert result.exit_code == 0, result.output
    after = open_bundle(copy).manifest
    assert after.bundle_id == before.bundle_id
    added = after.calibrations[-1]
    assert (added.options.truncation_psi, added.options.views_per_object) == (0.5, 2)
    assert len(added.quantiles) == 17 and added.samples == 64
    again = export("calibrate", copy, "--samples", 64, "--psi", 0.5, "--views", 2)
    assert "--replace" in refusal(again)
    replaced = export("calibrate", copy, "--samples", 128, "--psi", 0.5, "--views", 2, "--replace")
    assert replaced.exit_code == 0
    assert open_bundle(copy).manifest.calibrations[-1].samples == 128


def test_the_command_in_the_refusal_works(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "a copy"))
    manifest = open_bundle(copy).manifest
    key = msgspec.structs.replace(
        manifest.calibrations[0].options, truncation_psi=0.9, truncation_cutoff=3
    )
    with pytest.raises(NotCalibrated) as caught:
        calibration_for(manifest, key, copy)
    command = shlex.split(str(caught.value).split("run: ")[1])
    assert command[:3] == ["python", "-m", "export"]
    command[command.index("4096")] = "64"
    assert export(*command[3:]).exit_code == 0
    assert calibration_for(open_bundle(copy).manifest, key, copy).samples == 64


def test_the_manifest_is_plain_json(tiny_bundle: Path) -> None:
    content = json.loads((tiny_bundle / "manifest.json").read_text())
    assert content["format"] == 1
