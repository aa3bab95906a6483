"""Weights load exactly as written or not at all; every refusal is one line naming the file."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from checkpoints import (
    CardError,
    CheckpointError,
    GeneratorCard,
    WeightsError,
    card_from_config,
    generator_from_file,
    write_generator,
)
from nets.generator import generator_from_config
from nets.stylegan2 import Generator, GeneratorConfig

CONFIG = GeneratorConfig(16, (6, 5, 4), z_dim=3, w_dim=4, mapping_layers=2, conv_clamp=64.0)
CARD = GeneratorCard(
    format=1,
    kind="generator",
    family="stylegan2",
    config=card_from_config(CONFIG),
    view_layers=2,
    truncation_psi=0.7,
    truncation_cutoff=4,
    licences=["CC0-1.0"],
    provenance={
        "script": 'quoted "words" and \\ and \x7f',
        "steps": 3,
        "rate": 1e-3,
        "mixed": True,
    },
)
PROFILE = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(CONFIG)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "generator.safetensors"
    write_generator(path, generator(), CARD)
    return path


def test_only_images_that_are_not_square_have_a_start_in_their_card(
    path: Path, tmp_path: Path
) -> None:
    assert "start" not in path.with_suffix(".toml").read_text()
    config = replace(CONFIG, start=(2, 3))
    wide = tmp_path / "wide.safetensors"
    card = msgspec.structs.replace(CARD, config=card_from_config(config))
    write_generator(wide, Generator(config), card)
    back, read = generator_from_file(wide)
    assert back.config == config and read == card
    assert isinstance(back, Generator) and back.config.image_size == (8, 12)
    assert back.synthesis.blocks()[0].const.shape == (6, 2, 3)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        generator_from_file(path)
    message = str(caught.value)
    assert "\n" not in message and path.stem in message
    return message


def test_what_was_written_is_read(path: Path) -> None:
    torch.manual_seed(0)
    expected = Generator(CONFIG)
    generator, card = generator_from_file(path)
    assert card == CARD
    assert generator.config == CONFIG
    assert not generator.training
    for name, tensor in expected.state_dict().items():
        assert torch.equal(generator.state_dict()[name], tensor), name
    z = torch.randn(2, 3)
    assert torch.equal(generator(z), expected.eval()(z))


def test_whoever_may_read_the_card_may_read_the_weights(path: Path) -> None:
    assert path.stat().st_mode == path.with_suffix(".toml").stat().st_mode


def test_weights_that_cannot_be_written_are_one_line(path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be written") as caught:
        write_generator(path.parent / "none" / "g.safetensors", Generator(CONFIG), CARD)
    assert "\n" not in str(caught.value)


def test_half_precision_storage_becomes_float32(path: Path) -> None:
    torch.manual_seed(0)
    original = Generator(CONFIG)
    write_generator(path, original, CARD, torch.float16)
    generator, _ = generator_from_file(path)
    for name, tensor in original.state_dict().items():
        loaded = generator.state_dict()[name]
        assert loaded.dtype == torch.float32, name
        assert torch.equal(loaded, tensor.half().float()), name


def test_a_conditional_generator_survives(tmp_path: Path) -> None:
    config = GeneratorConfig(8, (4, 4), z_dim=3, w_dim=4, c_dim=3, mapping_layers=1)
    card = msgspec.structs.replace(CARD, config=card_from_config(config), provenance="by hand")
    path = tmp_path / "generator.safetensors"
    write_generator(path, Generator(config), card)
    assert generator_from_file(path)[1] == card


@pytest.mark.parametrize(
    "config",
    [
        GeneratorConfig(16, (6, 5, 4), architecture="resnet"),
        GeneratorConfig(16, (6, 5, 4), architecture="orig"),
        GeneratorConfig(16, (6, 5, 4), family="stylegan1"),
    ],
    ids=["resnet", "orig", "stylegan1"],
)
def test_every_architecture_survives(tmp_path: Path, config: GeneratorConfig) -> None:
    torch.manual_seed(0)
    config = replace(config, z_dim=3, w_dim=4, mapping_layers=1)
    original = generator_from_config(config).eval()
    changed = {"config": card_from_config(config), "family": config.family, "noise_seed": 5}
    card = msgspec.structs.replace(CARD, **changed)
    path = tmp_path / "generator.safetensors"
    write_generator(path, original, card)
    generator, found = generator_from_file(path)
    assert found == card and generator.config == config
    ws = torch.randn(2, 6, 4)
    assert torch.equal(generator.synthesis(ws).image, original.synthesis(ws).image)


def test_a_missing_tensor_is_named(path: Path) -> None:
    tensors = load_file(path)
    del tensors["mapping.w_avg"]
    save_file(tensors, path)
    assert "lacks mapping.w_avg" in refusal(path)


def test_an_unexpected_tensor_is_named(path: Path) -> None:
    save_file(load_file(path) | {"encoder.weight": torch.zeros(1)}, path)
    assert "unexpected encoder.weight" in refusal(path)


def test_many_missing_tensors_still_fit_a_line(path: Path) -> None:
    save_file({"x": torch.zeros(1)}, path)
    assert "more" in refusal(path) and len(refusal(path)) < 400


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(path: Path, bad: float) -> None:
    tensors = load_file(path)
    tensors["mapping.fc0.bias"][1] = bad
    save_file(tensors, path)
    assert "mapping.fc0.bias holds values that are not finite" in refusal(path)


def test_integer_weights_are_refused(path: Path) -> None:
    tensors = load_file(path)
    tensors["mapping.w_avg"] = torch.zeros(4, dtype=torch.int64)
    save_file(tensors, path)
    assert "mapping.w_avg is torch.int64" in refusal(path)


def test_values_too_large_for_the_storage_are_not_written(path: Path) -> None:
    before = path.read_bytes()
    generator = Generator(CONFIG)
    generator.mapping.w_avg[0] = 1e6
    with pytest.raises(WeightsError, match=r"mapping\.w_avg"):
        write_generator(path, generator, CARD, torch.float16)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2


def test_a_missing_card_is_named(path: Path) -> None:
    path.with_suffix(".toml").unlink()
    assert "generator.toml cannot be read" in refusal(path)


def test_missing_weights_are_named(path: Path) -> None:
    path.unlink()
    assert "generator.safetensors" in refusal(path)


def test_a_pickle_is_refused(path: Path) -> None:
    torch.save({"mapping.w_avg": torch.zeros(4)}, path)
    assert "no intact safetensors file" in refusal(path)


def test_a_card_that_is_not_toml_is_refused(path: Path) -> None:
    card = path.with_suffix(".toml")
    card.write_text(card.read_text().replace("format = 1", "format = = 1"))
    assert "is not TOML" in refusal(path)


def test_a_card_of_another_network_is_not_written(path: Path) -> None:
    other = GeneratorConfig(16, (6, 5, 3), z_dim=3, w_dim=4, mapping_layers=2)
    with pytest.raises(CardError, match="not the generator's"):
        write_generator(path, Generator(other), CARD)


@PROFILE
@given(data=st.data())
def test_mangled_weights_load_as_they_are_or_give_one_line(path: Path, data: st.DataObject) -> None:
    _mangle(path, data)


@PROFILE
@given(data=st.data())
def test_mangled_cards_load_as_they_are_or_give_one_line(path: Path, data: st.DataObject) -> None:
    _mangle(path.with_suffix(".toml"), data)


def _mangle(file: Path, data: st.DataObject) -> None:
    original = file.read_bytes()
    mangled = bytearray(original)
    # The header of safetensors is where a file can lie; half of the cuts go there.
    end = data.draw(st.sampled_from([min(400, len(original)), len(original)]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, max(0, min(end, len(mangled)) - 1)))
        stop = data.draw(st.integers(start, min(start + 30, len(mangled))))
        mangled[start:stop] = data.draw(st.binary(max_size=12))
    if data.draw(st.booleans()):
        del mangled[data.draw(st.integers(0, len(mangled))) :]
    try:
        file.write_bytes(mangled)
        generator_from_file(file.with_suffix(".safetensors"))
    except CheckpointError as error:
        assert "\n" not in str(error) and file.stem in str(error)
    finally:
        file.write_bytes(original)
