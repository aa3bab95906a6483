"""Published label ensembles classify as the public code does, and only with a fitting recipe."""

from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from checkpoints import CardError, CheckpointError, InterpreterCard, WeightsError
from checkpoints.foreign import TorchFile
from checkpoints.published_interpreter import (
    interpreter_from_published,
    member_paths,
    widths_of_member,
)
from checkpoints.recipes import Recipe, recipe_from_name
from nets.config import GeneratorConfig
from nets.interpreter import Interpreter
from tests.checkpoints.golden import FIXTURES

Members = list[tuple[str, TorchFile]]
GENERATORS = {
    "datasetgan": GeneratorConfig(8, (2, 2), family="stylegan1"),
    "handsoff": GeneratorConfig(8, (3, 2)),
}


def golden_labels(name: str) -> tuple[Members, dict[str, Tensor]]:
    tensors = load_file(FIXTURES / "published_interpreter" / f"golden_{name}.safetensors")
    states: dict[str, dict[str, Tensor]] = {}
    for key in [key for key in tensors if key.startswith("member")]:
        member, _, inner = key.partition("/")
        states.setdefault(member, {})[inner] = tensors.pop(key)
    members = [(m, TorchFile({"model_state_dict": s})) for m, s in sorted(states.items())]
    return members, tensors


def state_of(member: TorchFile) -> dict[str, Tensor]:
    """The tensors of one member, by their public names."""
    assert isinstance(member.content, dict)
    return dict(member.content["model_state_dict"])


def tiny_recipe(name: str, classes: int, **changes: object) -> Recipe:
    config = GENERATORS[name]
    given = recipe_from_name({"datasetgan": "datasetgan-car-20"}.get(name, "handsoff-cars-10"))
    values: dict[str, object] = {
        "features": config.features,
        "grid": 8,
        "crop_top": 1,
        "height": 6,
        "width": 8,
    }
    values |= {"classes": [str(i) for i in range(classes)], **changes}
    return Recipe(name="tiny", file=msgspec.structs.replace(given.file, **values))


def loaded(name: str) -> tuple[Interpreter, InterpreterCard, dict[str, Tensor]]:
    members, expected = golden_labels(name)
    recipe = tiny_recipe(name, expected["logits"].shape[-1])
    ensemble, card = interpreter_from_published(members, recipe, GENERATORS[name], "0" * 64)
    return ensemble, card, expected


@pytest.mark.parametrize("name", GENERATORS)
def test_every_member_classifies_as_the_public_code(name: str) -> None:
    ensemble, card, expected = loaded(name)
    logits = ensemble(expected["x"].float())["segmentation"]
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-5, atol=1e-5)
    assert card.heads[0].members == len(logits)
    assert card.tap_recipe == GENERATORS[name].tap_recipe
    assert (card.crop_top, card.height, card.score_fraction) == (1, 6, 0.1)


def test_hidden_widths_are_those_of_the_tensors() -> None:
    source, member = golden_labels("handsoff")[0][0]
    assert widths_of_member(member, source) == (10, 12, 9, 4)
    assert loaded("datasetgan")[1].heads[0].hidden == (128, 32)
    assert loaded("handsoff")[1].heads[0].hidden == (12, 9)


def test_double_precision_becomes_single() -> None:
    members, expected = golden_labels("handsoff")
    state = state_of(members[0][1])
    doubled = {k: t.double() if t.is_floating_point() else t for k, t in state.items()}
    recipe = tiny_recipe("handsoff", 4)
    file = TorchFile({"model_state_dict": doubled})
    ensemble, _ = interpreter_from_published(
        [("model_0.pth", file)], recipe, GENERATORS["handsoff"], "0" * 64
    )
    logits = ensemble(expected["x"].float())["segmentation"]
    torch.testing.assert_close(logits[0], expected["logits"][0], rtol=1e-5, atol=1e-5)


def test_members_come_by_number(tmp_path: Path) -> None:
    for k in range(12):
        (tmp_path / f"model_{k}.pth").touch()
    (tmp_path / "model_20parts_iter5000_number_3.pth").touch()
    assert [p.name for p in member_paths(tmp_path)] == [f"model_{k}.pth" for k in range(12)]
    (tmp_path / "model_7.pth").unlink()
    with pytest.raises(WeightsError, match=r"11 members up to model_11.pth, but no model_7.pth"):
        member_paths(tmp_path)


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no model_0.pth"):
        member_paths(tmp_path)


def refusal(members: Members, recipe: Recipe, config: GeneratorConfig) -> str:
    with pytest.raises(CheckpointError) as caught:
        interpreter_from_published(members, recipe, config, "0" * 64)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_recipe_is_refused_with_both_numbers_and_those_that_match() -> None:
    state = {"layers.0.weight": torch.zeros(12, 5056), "layers.0.bias": torch.zeros(12)}
    for i, (out, into) in {3: (9, 12), 6: (20, 9)}.items():
        state |= {
            f"layers.{i}.weight": torch.zeros(out, into),
            f"layers.{i}.bias": torch.zeros(out),
        }
    for i, width in {2: 12, 5: 9}.items():
        for kind in ("weight", "bias", "running_mean", "running_var"):
            state[f"layers.{i}.{kind}"] = torch.ones(width)
    config = GeneratorConfig(1024, (512,) * 5 + (256, 128, 64, 32))
    message = refusal(
        [("model_0.pth", TorchFile({"model_state_dict": state}))],
        recipe_from_name("datasetgan-face-34"),
        config,
    )
    assert "reads 5056 features" in message and "face-34 have 5088" in message
    assert "recipes that match: datasetgan-car-20" in message


def test_another_generator_is_refused_with_both_numbers() -> None:
    members, _ = golden_labels("handsoff")
    message = refusal(members, tiny_recipe("handsoff", 4), GeneratorConfig(8, (4, 4)))
    assert "reads 10 features" in message and "has 16" in message


def test_taps_of_another_meaning_are_refused() -> None:
    members, _ = golden_labels("datasetgan")
    message = refusal(members, tiny_recipe("datasetgan", 5), GeneratorConfig(8, (2, 2)))
    assert "taps dg-pair" in message and "taps styledconv+const" in message


def test_another_number_of_classes_is_refused() -> None:
    members, _ = golden_labels("handsoff")
    message = refusal(members, tiny_recipe("handsoff", 7), GENERATORS["handsoff"])
    assert "has 4 classes; recipe tiny names 7" in message


def test_members_of_different_widths_are_refused() -> None:
    members = [golden_labels("handsoff")[0][0], golden_labels("datasetgan")[0][0]]
    message = refusal(members, tiny_recipe("handsoff", 4), GENERATORS["handsoff"])
    assert "(8, 128, 32, 5)" in message and "(10, 12, 9, 4)" in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("module.layers.3.bias", None, "lacks layers.3.bias"),
        ("module.layers.7.weight", torch.zeros(1), "unexpected layers.7.weight"),
        ("module.layers.2.bias", torch.zeros(5), "layers.0 and the layers around it"),
        ("module.layers.6.weight", torch.zeros(4, 8), "layers.6 and the layers around it"),
        ("module.layers.0.weight", torch.zeros(()), "impossible shape []"),
        ("module.layers.6.bias", torch.full((4,), torch.nan), "not finite"),
        ("module.layers.6.bias", "text", "not a dictionary of tensors"),
    ],
)
def test_a_broken_member_is_refused(name: str, value: object, words: str) -> None:
    members, _ = golden_labels("handsoff")
    state: dict[str, object] = {**state_of(members[0][1])}
    state[name] = value
    if value is None:
        del state[name]
    broken = [("m.pth", TorchFile({"model_state_dict": state}))]
    assert words in refusal(broken, tiny_recipe("handsoff", 4), GENERATORS["handsoff"])


def test_a_crop_outside_the_grid_is_the_recipes_fault() -> None:
    members, _ = golden_labels("handsoff")
    with pytest.raises(CardError, match="recipe tiny: crop_top is 5 and height 6"):
        recipe = tiny_recipe("handsoff", 4, crop_top=5)
        interpreter_from_published(members, recipe, GENERATORS["handsoff"], "0" * 64)
