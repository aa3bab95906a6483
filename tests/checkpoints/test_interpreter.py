"""Label ensembles load exactly as written, and only with a card that explains all of them."""

from pathlib import Path

import msgspec
import pytest
import torch

from checkpoints import (
    CardError,
    ClassCard,
    DepthCard,
    InterpreterCard,
    KeypointsCard,
    SegmentationCard,
    head_cards,
    interpreter_from_file,
    write_interpreter,
)
from nets.interpreter import HeadConfig, Interpreter


def interpreter() -> Interpreter:
    torch.manual_seed(0)
    return Interpreter(
        (
            HeadConfig("segmentation", 7, (6, 5), 3, members=2),
            HeadConfig("keypoints", 7, (4, 3), 2, members=3),
            HeadConfig("depth", 7, (4, 3), 1, members=1),
        )
    )


def card(network: Interpreter) -> InterpreterCard:
    return InterpreterCard(
        format=1,
        kind="interpreter",
        generator_sha256="0" * 64,
        tap_recipe="styledconv+const",
        features=7,
        grid=16,
        crop_top=2,
        height=12,
        width=16,
        resize="bilinear",
        score_source="segmentation",
        score_fraction=0.1,
        licences=["CC0-1.0"],
        provenance={"labels": 16},
        heads=head_cards(network),
        segmentation=SegmentationCard(
            classes=[ClassCard(name=n, color=i) for i, n in enumerate(["sky", "tür", '"x"'])],
            ignore_id=255,
        ),
        keypoints=KeypointsCard(names=["a", "b"], skeleton=[(0, 1)], sigma_px=1.5, window_px=3),
        depth=DepthCard(unit="metres"),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "interpreter.safetensors"
    network = interpreter()
    write_interpreter(path, network, card(network))
    return path


def test_what_was_written_is_read(path: Path) -> None:
    expected = interpreter().eval()
    network, found = interpreter_from_file(path)
    assert found == card(expected) and not network.training
    x = torch.randn(5, 7)
    for kind, raw in network(x).items():
        assert torch.equal(raw, expected(x)[kind]), kind


def test_a_single_head_needs_no_other_tables(tmp_path: Path) -> None:
    network = Interpreter((HeadConfig("depth", 7, (4, 3), 1, members=2),))
    only = msgspec.structs.replace(
        card(network), segmentation=None, keypoints=None, score_source=None
    )
    path = tmp_path / "depth.safetensors"
    write_interpreter(path, network, only)
    assert interpreter_from_file(path)[1] == only


def test_a_score_needs_its_head(path: Path) -> None:
    network = Interpreter((HeadConfig("depth", 7, (4, 3), 1, members=2),))
    wrong = msgspec.structs.replace(card(network), segmentation=None, keypoints=None)
    with pytest.raises(CardError, match="score_source is segmentation"):
        write_interpreter(path, network, wrong)


def test_a_card_of_another_ensemble_is_not_written(path: Path) -> None:
    before = path.read_bytes()
    network = Interpreter((HeadConfig("depth", 7, (4, 3), 1, members=2),))
    with pytest.raises(CardError, match="not the interpreter's"):
        write_interpreter(path, network, card(interpreter()))
    assert path.read_bytes() == before
