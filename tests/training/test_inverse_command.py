"""The subcommand trains from a service, goes on, and says in one line what it cannot do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from checkpoints import inverse_graphics_from_file
from engines.fake import fake_bundle
from tests.service.harness import FakeModel, served
from training.__main__ import main
from training.errors import TrainingError
from training.resume import state_path

BANK = fake_bundle(resolution=16, view_codes=5, view_layers=4)
QUICK = (
    "--objects", "3", "--views", "2", "--extent", "16", "--texture", "4", "--hidden", "8",
    "--batch", "2", "--resolution", "16", "--steps", "2", "--every", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def source() -> Iterator[str]:
    """A service with a bank of five views, of which four have azimuths."""
    with served([FakeModel(bundle=BANK)]) as server:
        yield f"127.0.0.1:{server.server.port}"


def ran(source: str, out: Path, *arguments: object) -> Result:
    line = ["inverse-graphics", "--source", source, "--out", str(out), *map(str, arguments)]
    return CliRunner().invoke(main, line)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--texture", 5], "power of two"),
        (["--extent", 2], "extent is 2"),
        (["--views", 6], "its bank has 4"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    source: str, tmp_path: Path, arguments: list[object], words: str
) -> None:
    result = ran(source, tmp_path / "n.safetensors", *QUICK, *arguments)
    assert isinstance(result.exception, TrainingError)
    assert words in str(result.exception) and "\n" not in str(result.exception)


def test_weights_are_written_once_and_nobodys_are_written_over(source: str, tmp_path: Path) -> None:
    out = tmp_path / "made" / "n.safetensors"
    result = ran(source, out, *QUICK, "--tell-camera", "--refine-cameras")
    assert result.exit_code == 0, result.output
    assert "silhouettes of 3 objects at IoU" in result.output
    again = ran(source, out, *QUICK)
    resumed = ran(source, out, *QUICK, "--tell-camera", "--refine-cameras", "--resume")
    assert resumed.exit_code == 0
    assert isinstance(again.exception, TrainingError) and "--resume" in str(again.exception)
    _, card = inverse_graphics_from_file(out)
    assert card.camera and card.background == ["part 0"] and card.bundle_id.startswith("sha256:")
    assert {path.name for path in out.parent.iterdir()} == {
        "n.safetensors", "n.toml", "n.state.safetensors", "n-000001.png", "n-000002.png",
    }  # fmt: skip


def test_a_job_that_always_says_resume_begins_and_goes_on(source: str, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "n.safetensors"
    assert ran(source, whole, *QUICK).exit_code == 0
    begun = ran(source, out, *QUICK, "--resume")
    assert begun.exit_code == 0 and "n.state.safetensors is not there yet" in begun.output
    assert out.read_bytes() == whole.read_bytes()
    again = ran(source, out, *QUICK, "--resume")
    assert again.exit_code == 0 and "not there yet" not in again.output
    state_path(out).unlink()  # the weights are somebody's: nothing says that they may be replaced
    lost = ran(source, out, *QUICK, "--resume")
    assert isinstance(lost.exception, TrainingError) and "delete it to" in str(lost.exception)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.long
def test_one_view_of_one_object_is_enough_to_begin_with(source: str, tmp_path: Path) -> None:
    out = tmp_path / "n.safetensors"
    assert ran(source, out, *QUICK, "--objects", 1, "--views", 1).exit_code == 0
    made = inverse_graphics_from_file(out)[1].provenance
    assert isinstance(made, dict) and made["objects"] == 1


def test_names_that_are_no_weights_and_services_that_are_not_there_are_said(tmp_path: Path) -> None:
    result = ran("127.0.0.1:1", tmp_path / "n.pt", *QUICK)
    assert isinstance(result.exception, TrainingError) and ".safetensors" in str(result.exception)
    result = ran("127.0.0.1:1", tmp_path / "n.safetensors", *QUICK)
    assert isinstance(result.exception, TrainingError) and "--source" in str(result.exception)
