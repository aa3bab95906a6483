"""The measure that ranks samples is chosen at the export, without another training, and whoever
reads the bundle, the stream or a data set is told which it is."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from bundle import ManifestError, open_bundle
from bundle.manifest import Heads, ScoreMeasure
from checkpoints import interpreter_from_file, write_interpreter
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from engines.fake import fake_bundle
from export.__main__ import main
from export.checks.certificate import refuse_misfit
from export.checks.reference import reference_outputs
from export.errors import ExportError
from export.weights import WeightFiles, weights_from_files
from labelmint import Client
from labelmint.model import Model, model_from_proto
from labelmint.v1 import label_service_pb2 as pb
from nets.interpreter import Interpreter
from tests.client.scripted_service import MODEL
from tests.datasets.folders import target_of
from tests.export.test_certify import HASHES, LIMITS, certified_manifest, reviewed, written
from tests.service.harness import FakeModel, served

TinyWeights = tuple[Path, Path]


def export(weights: TinyWeights, out: Path, *more: str) -> Result:
    files = ["--generator", str(weights[0]), "--interpreter", str(weights[1]), "--out", str(out)]
    return CliRunner().invoke(main, ["bundle", *files, "--no-half", *more])


@pytest.mark.parametrize(
    "measure", [pytest.param("entropy", marks=pytest.mark.long), "least_confidence"]
)
def test_a_bundle_scores_by_the_measure_of_its_export(
    measure: ScoreMeasure, tiny_weights: TinyWeights, tiny_bundle: Path, tmp_path: Path
) -> None:
    result = export(
        tiny_weights, tmp_path / "b", "--score-measure", measure, "--calibrate", "64",
        "--parity-samples", "2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"segmentation, by {measure}" in result.output
    bundle, usual = open_bundle(tmp_path / "b"), open_bundle(tiny_bundle)
    heads = bundle.manifest.heads
    assert heads is not None and heads.score_measure == measure
    assert bundle.manifest.bundle_id != usual.manifest.bundle_id
    assert bundle.manifest.weights == usual.manifest.weights  # nothing was trained again
    ws = ws_from_indices(
        open_mapping(bundle, EngineOptions()), bundle.manifest.generator,
        default_options(bundle.manifest.generator), range(2),
    )  # fmt: skip
    engine = open_engine(bundle, EngineOptions(batch_sizes=(2,)))
    found = engine.run(ws, np.full(2, np.inf, np.float32), ("uncertainty", "mask"))
    files = WeightFiles(*tiny_weights[:1], None, tiny_weights[1], score_measure=measure)
    weights = weights_from_files(files)
    expected = reference_outputs(weights.generator, weights.interpreter, weights.spec, ws)
    scores = found.arrays["uncertainty"].astype(np.float32)
    np.testing.assert_allclose(scores, expected["uncertainty"], rtol=1e-4, atol=1e-6)
    (calibration,) = bundle.manifest.calibrations
    assert 0 < calibration.quantiles[0] < calibration.quantiles[-1] < np.log(4)


def test_a_card_says_the_measure_and_the_export_may_say_another(
    tiny_weights: TinyWeights, tmp_path: Path
) -> None:
    network, card = interpreter_from_file(tiny_weights[1])
    assert card.score_measure == "jensen_shannon"
    path = tmp_path / "i.safetensors"
    write_interpreter(path, network, msgspec.structs.replace(card, score_measure="entropy"))
    assert interpreter_from_file(path)[1].score_measure == "entropy"
    files = WeightFiles(tiny_weights[0], None, path)
    assert weights_from_files(files).spec.score_measure == "entropy"
    again = replace(files, score_measure="jensen_shannon")
    assert weights_from_files(again).spec.score_measure == "jensen_shannon"


def test_a_card_of_before_there_was_a_choice_means_the_divergence(
    tiny_weights: TinyWeights, tmp_path: Path
) -> None:
    path = tmp_path / "i.safetensors"
    path.write_bytes(tiny_weights[1].read_bytes())
    lines = tiny_weights[1].with_suffix(".toml").read_text().splitlines()
    kept = [line for line in lines if "score_measure" not in line]
    assert len(kept) == len(lines) - 1
    path.with_suffix(".toml").write_text("\n".join(kept) + "\n")
    assert interpreter_from_file(path)[1].score_measure == "jensen_shannon"


def test_the_manifest_of_the_divergence_is_that_of_older_versions(tiny_bundle: Path) -> None:
    content = json.loads((tiny_bundle / "manifest.json").read_text())
    assert "score_measure" not in content["heads"]


def of_keypoints(weights: TinyWeights, path: Path) -> Path:
    """An ensemble whose score is of keypoints."""
    network, card = interpreter_from_file(weights[1])
    config = network.head("keypoints").config
    alone = Interpreter((config,)).eval()
    state = network.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    (head,) = (head for head in card.heads if head.kind == "keypoints")
    fewer = msgspec.structs.replace(
        card, heads=[head], segmentation=None, depth=None, score_source="keypoints"
    )
    write_interpreter(path, alone, fewer)
    return path


def test_a_score_that_is_not_of_classes_has_no_choice(
    tiny_weights: TinyWeights, tmp_path: Path
) -> None:
    path = of_keypoints(tiny_weights, tmp_path / "k.safetensors")
    result = export((tiny_weights[0], path), tmp_path / "b", "--score-measure", "entropy")
    assert result.exit_code == 1 and "it is of keypoints; leave it out" in result.output
    files = ["--generator", str(tiny_weights[0]), "--out", str(tmp_path / "b")]
    result = CliRunner().invoke(main, ["bundle", *files, "--score-measure", "entropy"])
    assert result.exit_code == 1 and "there is no --interpreter; leave it out" in result.output
    assert not (tmp_path / "b").exists()
    network, card = interpreter_from_file(path)
    with pytest.raises(Exception, match="only segmentation has a choice"):
        write_interpreter(path, network, msgspec.structs.replace(card, score_measure="entropy"))


def scored_by(measure: ScoreMeasure) -> Heads:
    heads = fake_bundle(resolution=16).manifest.heads
    assert heads is not None
    return msgspec.structs.replace(heads, score_measure=measure)


def test_a_certificate_is_of_one_measure(tmp_path: Path) -> None:
    manifest = certified_manifest(fake_bundle(resolution=16).manifest)
    other = msgspec.structs.replace(manifest, heads=scored_by("entropy"))
    certificate, path = reviewed(HASHES, LIMITS), tmp_path / "c.json"
    refuse_misfit(manifest, certificate, tmp_path, path)
    with pytest.raises(ExportError, match="export it with --score-measure jensen_shannon"):
        refuse_misfit(other, certificate, tmp_path, path)
    # Of the divergence, its file is as older versions wrote it.
    assert b"score_measure" not in written(path, certificate).read_bytes()
    by_entropy = msgspec.structs.replace(certificate, score_measure="entropy")
    refuse_misfit(other, by_entropy, tmp_path, path)
    assert b'"score_measure":"entropy"' in written(path, by_entropy).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_measure": "margin"}, "score_measure"),
        (
            {"score_measure": "entropy", "score_source": "keypoints"},
            "only segmentation has a choice",
        ),
    ],
)
def test_a_manifest_without_that_choice_is_refused(
    change: dict[str, str], message: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    content = json.loads((tiny_bundle / "manifest.json").read_text())
    content["heads"] |= change
    content["calibrations"] = []
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ManifestError, match=message):
        open_bundle(tmp_path)


WORDS = {
    "jensen_shannon": "Jensen-Shannon divergence of the members, 0 to 1.39 nats",
    "entropy": "entropy of the members' mean probabilities, 0 to 1.39 nats",
    "least_confidence": "1 minus the largest mean probability, 0 to 0.75",
}


@pytest.mark.parametrize("measure", WORDS)
def test_clients_are_told_the_measure_with_its_unit_and_range(measure: ScoreMeasure) -> None:
    bundle = fake_bundle(resolution=16)
    manifest = msgspec.structs.replace(bundle.manifest, heads=scored_by(measure))
    model = FakeModel("one", replace(bundle, manifest=manifest))
    with served([model]) as server, Client(target_of(server)) as client:
        known = client.model()
    assert len(known.classes) == 4
    assert (known.score_measure, known.score_words()) == (
        measure,
        f"segmentation: {WORDS[measure]}",
    )
    assert known.score_unit == ("" if measure == "least_confidence" else "nats")


def scripted(**changes: str) -> Model:
    message = pb.Model()
    message.CopyFrom(MODEL)
    for name, value in changes.items():
        setattr(message, name, value)
    return model_from_proto(message)


def test_a_server_that_names_no_measure_has_the_only_one_there_was() -> None:
    assert scripted().score_measure == "jensen_shannon"
    depth = scripted(score_source="depth")
    assert depth.score_words() == "depth: variance over the members, in squared units of the head"
    assert scripted(score_source="").score_words() == ""
    assert scripted(score_measure="of tomorrow").score_words() == "segmentation: of tomorrow"
