"""`export inspect` describes weights files."""

from pathlib import Path

import pytest

from checkpoints import (
    CardError,
    generator_from_foreign,
    write_encoder,
    write_inverse_graphics,
)
from checkpoints.foreign import TorchFile
from export.inspect import lines_from_generator, lines_from_weights
from nets.config import GeneratorConfig
from nets.stylegan2 import channels_from_base
from tests.checkpoints import test_encoder, test_inverse_graphics
from tests.checkpoints.golden import golden, pickled_network


def test_a_generator_says_all_that_is_asked_of_it() -> None:
    of = golden("stylegan2_ada/golden_skip_32_clamp")
    generator, card = generator_from_foreign(pickled_network(of), "g.pkl")
    text = "\n".join(lines_from_generator("g", generator.config, card))
    for words in (
        "stylegan2 (skip)",
        "32 px",
        "24, 24, 16, 8 from 4 px on",
        "8 layers",
        "8 rows of w+",
        "not conditional",
        "clamp        2",
        "styledconv+const, D = 144",
        "not stated",
    ):
        assert words in text


def test_drawn_noise_is_said() -> None:
    file = TorchFile(golden("stylegan1/golden_32").weights)
    generator, card = generator_from_foreign(file, "g.pt")
    text = "\n".join(lines_from_generator("g", generator.config, card))
    assert "drawn from seed 0" in text and "stylegan1 (" in text


def test_recipes_of_other_taps_are_not_offered() -> None:
    _, card = generator_from_foreign(TorchFile(golden("stylegan1/golden_32").weights), "g.pt")
    channels = channels_from_base(1024, 16384)
    for config, offered in (
        (GeneratorConfig(1024, channels, family="stylegan1"), True),
        (GeneratorConfig(1024, channels, family="stylegan2"), False),
    ):
        text = "\n".join(lines_from_generator("g", config, card))
        assert "D = 5088" in text and ("recipe       datasetgan-face-34" in text) is offered


def test_weights_of_every_kind_that_training_writes_are_known(tmp_path: Path) -> None:
    encoder, shapes = tmp_path / "e.safetensors", tmp_path / "s.safetensors"
    write_encoder(encoder, test_encoder.encoder(), test_encoder.CARD)
    write_inverse_graphics(
        shapes, test_inverse_graphics.inverse_graphics(), test_inverse_graphics.CARD
    )
    assert "encoder for the generator" in lines_from_weights(encoder)[0]
    assert "inverse graphics for objects" in lines_from_weights(shapes)[0]


def test_a_damaged_card_is_named_by_its_own_fault(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    write_encoder(path, test_encoder.encoder(), test_encoder.CARD)
    card = path.with_suffix(".toml")
    card.write_text(card.read_text().replace("num_ws", "nun_ws"))
    with pytest.raises(CardError, match="nun_ws"):
        lines_from_weights(path)
