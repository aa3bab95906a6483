"""The score engine computes only the score, bit for bit the labeller's."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from bundle import Bundle, open_bundle
from bundle.manifest import LABELLER, MANIFEST
from bundle.write import write_manifest
from checkpoints import (
    ClassCard,
    DepthCard,
    KeypointsCard,
    RefinerCard,
    RegulariserCard,
    SegmentationCard,
    config_card_from_refiner,
    head_cards,
)
from engines import EngineOptions, open_engine
from engines.errors import EngineRunError
from engines.protocol import Engine
from export.bundle_from_weights import manifest_from_folder, write_graphs
from export.checks.calibration import open_score_engine
from export.weights import RefinerWeights, SourceWeights, WeightFiles, weights_from_files
from nets.interpreter import HeadKind
from nets.refiner import Refiner, RefinerConfig
from tests.export.networks import OUTPUTS, random_interpreter

SAMPLES = 4


def weights_of_three_heads(generator: Path, interpreter: Path, score: HeadKind) -> SourceWeights:
    """Random heads of every kind, and a refiner."""
    torch.manual_seed(1)
    given = weights_from_files(WeightFiles(generator, interpreter=interpreter))
    assert given.interpreter_card is not None
    heads = random_interpreter(given.interpreter_card.features)
    card = msgspec.structs.replace(
        given.interpreter_card,
        score_source=score,
        heads=head_cards(heads),
        segmentation=SegmentationCard([ClassCard(f"{i}", i) for i in range(7)]),
        keypoints=KeypointsCard(list("abc"), [], sigma_px=1.5, window_px=3),
        depth=DepthCard("m"),
    )
    refiner = Refiner(RefinerConfig(width=4, blocks=1, grain=0))
    refiner_card = RefinerCard(
        format=1,
        kind="refiner",
        height=32,
        width=32,
        grain_seed=0,
        config=config_card_from_refiner(refiner),
        regulariser=RegulariserCard(strength=0.5, reduction="mean", feature="identity"),
        shift_px=0.0,
        structure=1.0,
        licences=[],
        provenance="random",
    )
    behind = RefinerWeights(refiner, refiner_card, "0" * 64)
    return replace(given, interpreter=heads, interpreter_card=card, refiner=behind)


def bundle_of(folder: Path, weights: SourceWeights) -> Bundle:
    folder.mkdir()
    write_graphs(folder, weights, half=False)
    write_manifest(folder, manifest_from_folder(folder, weights))
    return open_bundle(folder)


def scores_of(bundle: Bundle, engine: Engine) -> NDArray[np.generic]:
    """All outputs of the engine, for independent rows of w+."""
    generator = bundle.manifest.generator
    draws = np.random.default_rng(3)
    ws = draws.standard_normal((SAMPLES, generator.num_ws, generator.w_dim)).astype(np.float32)
    limits = np.full(SAMPLES, np.inf, np.float32)
    return engine.run(ws, limits, engine.outputs).arrays["uncertainty"]


def whole_and_cut(bundle: Bundle) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    whole, cut = open_engine(bundle, EngineOptions()), open_score_engine(bundle, EngineOptions())
    return scores_of(bundle, whole), scores_of(bundle, cut)


@pytest.mark.parametrize(
    "score",
    [s if s == "segmentation" else pytest.param(s, marks=pytest.mark.long) for s in OUTPUTS],
)
def test_any_heads_score_has_the_served_bits_and_order(
    score: HeadKind, tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = bundle_of(tmp_path / "b", weights_of_three_heads(*tiny_weights, score))
    served, cut = whole_and_cut(bundle)
    assert len(np.unique(served)) == SAMPLES
    assert served.tobytes() == cut.tobytes()
    open_bundle(bundle.path)  # verifies that no file has changed
    assert {path.name for path in bundle.path.iterdir()} == {*bundle.manifest.files, MANIFEST}


def test_what_the_score_does_not_need_is_not_run(
    tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    weights = weights_of_three_heads(*tiny_weights, "segmentation")
    bundle = bundle_of(tmp_path / "b", weights)
    expected = whole_and_cut(bundle)[1]
    spoil_other_outputs(bundle.file(LABELLER["float32"]))
    bundle = listed_again(bundle, weights)
    with pytest.raises(EngineRunError, match="indices"):
        scores_of(bundle, open_engine(bundle, EngineOptions()))
    cut = scores_of(bundle, open_score_engine(bundle, EngineOptions()))
    assert cut.tobytes() == expected.tobytes()


def listed_again(bundle: Bundle, weights: SourceWeights) -> Bundle:
    """The bundle with a manifest of the files as they are now."""
    (bundle.path / MANIFEST).unlink()  # not one of the files that it lists
    write_manifest(bundle.path, manifest_from_folder(bundle.path, weights))
    return open_bundle(bundle.path)


def spoil_other_outputs(path: Path) -> None:
    """Changes the graph so that computing any image or label output fails."""
    model = onnx.load(path)
    graph = model.graph
    far = onnx.numpy_helper.from_array(np.array([1 << 20], np.int32), "far")
    graph.initializer.append(far)
    graph.node.append(onnx.helper.make_node("Add", ["sample", "far"], ["beyond"]))
    for name in {value.name for value in graph.output} - {"uncertainty", "sample", "kept"}:
        for node in graph.node:
            for i, output in enumerate(node.output):
                if output == name:
                    node.output[i] = f"good {name}"
        graph.node.append(onnx.helper.make_node("Gather", [f"good {name}", "beyond"], [name]))
    onnx.save(model, path)


@pytest.mark.long
def test_weights_beside_the_graph_are_cut_as_well(
    tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    weights = weights_of_three_heads(*tiny_weights, "segmentation")
    bundle = bundle_of(tmp_path / "b", weights)
    within = whole_and_cut(bundle)[1]
    path = bundle.file(LABELLER["float32"])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{path.name}.data")
    bundle = listed_again(bundle, weights)
    assert len(bundle.manifest.files) == 3
    served, cut = whole_and_cut(bundle)
    assert within.tobytes() == served.tobytes() == cut.tobytes()


def test_files_beside_the_graphs_do_not_keep_it_whole(tiny_bundle: Path) -> None:
    """Such files are a view bank or fused kernels."""
    bundle = open_bundle(tiny_bundle)
    files = bundle.manifest.files | {"more": bundle.manifest.files["mapping.onnx"]}
    more = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, files=files))
    assert open_score_engine(more, EngineOptions()).outputs == ("uncertainty",)
