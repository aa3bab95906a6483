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


def test_two_spellings_of_one_number_are_refused(tmp_path: Path) -> None:
    for name in ("model_0.pth", "model_00.pth", "model_1.pth"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=r"both model_0\.pth and model_00\.pth.*member 0 twice"):
        member_paths(tmp_path)


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["car_model_10.pt", "car_model_9.pt"], "car_model_9.pt car_model_10.pt"),
        (["v2_3_iter5000.pt", "v2_2_iter5000.pt"], "v2_2_iter5000.pt v2_3_iter5000.pt"),
        (["one.pt"], "one.pt"),
        (["car_3.pt"], "car_3.pt"),
    ],
)
def test_members_of_other_names_are_found_by_a_pattern(
    tmp_path: Path, names: list[str], ordered: str
) -> None:
    for name in [*names, "notes.txt"]:
        (tmp_path / name).touch()
    assert [path.name for path in member_paths(tmp_path / "*.pt")] == ordered.split()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "matches no file"),
        (["car_1.pt", "cat_1.pt"], "car_1.pt and cat_1.pt, which differ in more than a number"),
        (["car_1_1.pt", "car_2_2.pt"], "differ in more than one number"),
        (["car_1.pt", "car_01.pt"], "member 1 twice"),
        (["car_1.pt", "car_3.pt"], "2 members up to car_3.pt, but no member of number 2"),
    ],
)
def test_a_pattern_that_is_no_ensemble_is_refused(
    tmp_path: Path, names: list[str], words: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=words):
        member_paths(tmp_path / "*.pt")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_is_blamed_on_its_file(value: float) -> None:
    members, _ = golden_labels("handsoff")
    states = [state_of(members[0][1]) for _ in range(3)]
    states[1]["module.layers.3.bias"] = torch.full_like(states[1]["module.layers.3.bias"], value)
    files = [
        (f"model_{k}.pth", TorchFile({"model_state_dict": state})) for k, state in enumerate(states)
    ]
    message = refusal(files, tiny_recipe("handsoff", 4), GENERATORS["handsoff"])
    assert message == "model_1.pth: layers.3.bias holds values that are not finite"


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
