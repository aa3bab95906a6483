"""Inverse-graphics networks load exactly as written, and only with a card that explains them."""

from pathlib import Path

import msgspec
import pytest
import torch

from checkpoints import (
    CardError,
    InverseGraphicsCard,
    WeightsError,
    inverse_graphics_from_file,
    write_inverse_graphics,
)
from nets.inverse_graphics import InverseGraphics, InverseGraphicsConfig

CARD = InverseGraphicsCard(
    format=1,
    kind="inverse-graphics",
    bundle_id="0" * 64,
    extent=8,
    hidden=6,
    texture=8,
    radius=0.75,
    camera=True,
    distance=6.0,
    focal=2.4,
    background=["background", "hat"],
    keypoints=["nose"],
    silhouette=0.9,
    licences=["CC0-1.0"],
    provenance={"steps": 10},
)


def inverse_graphics(camera: bool = True) -> InverseGraphics:
    torch.manual_seed(0)
    network = InverseGraphics(InverseGraphicsConfig(8, 6, 8, radius=0.75, camera=camera))
    for parameter in network.parameters():
        parameter.data.normal_(std=0.1)
    return network.eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "i.safetensors"
    write_inverse_graphics(path, inverse_graphics(), CARD)
    return path


@pytest.mark.parametrize("camera", [True, False])
def test_what_was_written_is_read(tmp_path: Path, camera: bool) -> None:
    network, path = inverse_graphics(camera), tmp_path / "i.safetensors"
    given = msgspec.structs.replace(CARD, camera=camera, keypoints=[], silhouette=0)
    write_inverse_graphics(path, network, given)
    before = torch.random.get_rng_state()
    read, card = inverse_graphics_from_file(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert card == given and read.config == network.config and not read.training
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        for name, value in vars(network(images)).items():
            found = getattr(read(images), name)
            assert found is value is None or torch.equal(found, value), name


def test_a_card_of_another_network_is_not_written(tmp_path: Path) -> None:
    path, network = tmp_path / "i.safetensors", inverse_graphics()
    for wrong in ({"hidden": 16}, {"radius": 1.0}, {"texture": 24}, {"silhouette": 2.0}):
        with pytest.raises(CardError, match="is not written"):
            write_inverse_graphics(path, network, msgspec.structs.replace(CARD, **wrong))
    network.stem.weight.data[0] = torch.nan
    with pytest.raises(WeightsError, match="not finite"):
        write_inverse_graphics(path, network, CARD)
    assert not list(tmp_path.iterdir())
