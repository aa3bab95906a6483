"""Recipes hold the published facts; a wrong one is refused in one line naming the file."""

from pathlib import Path

import pytest

from checkpoints import CardError, GeneratorCard, card_from_config
from checkpoints.classes import distinct_colors
from checkpoints.recipes import (
    FOLDER,
    card_with_recipe,
    matching_recipes,
    published_names,
    recipe_from_name,
    recipe_with_classes,
)
from nets.config import GeneratorConfig
from nets.stylegan2 import channels_from_base

# Name -> channel base of the published generator, its extent, classes.
PUBLISHED = {
    "datasetgan-car-20": (16384, 512, 20),
    "datasetgan-cat-16": (16384, 256, 16),
    "datasetgan-face-34": (16384, 1024, 34),
    "handsoff-cars-10": (32768, 512, 10),
    "handsoff-faces-19": (32768, 1024, 19),
}


def test_the_published_recipes_are_these() -> None:
    assert published_names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_features_are_those_of_the_published_generator(name: str) -> None:
    base, resolution, classes = PUBLISHED[name]
    recipe = recipe_from_name(name)
    assert recipe.file.features == 2 * sum(channels_from_base(resolution, base))
    assert len({c.name for c in recipe.classes}) == len({c.color for c in recipe.classes})
    assert len(recipe.classes) == classes and recipe.classes[0].name == "background"
    assert matching_recipes(recipe.file.features) == [name]


def test_colours_are_distinct_and_in_range() -> None:
    colors = distinct_colors(256)
    assert len(set(colors)) == 256 and colors[0] == 0
    assert all(0 <= color <= 0xFFFFFF for color in colors)


def test_a_recipe_decides_the_truncation() -> None:
    config = GeneratorConfig(256, (8,) * 7, family="stylegan1")
    card = GeneratorCard(
        format=1,
        kind="generator",
        family="stylegan1",
        config=card_from_config(config),
        view_layers=0,
        truncation_psi=1,
        truncation_cutoff=14,
        licences=["a"],
        provenance="random",
    )
    changed = card_with_recipe(card, recipe_from_name("datasetgan-cat-16"))
    assert (changed.truncation_psi, changed.truncation_cutoff) == (0.7, 7)
    assert changed.licences == ["a", "CC-BY-NC-4.0"]
    with pytest.raises(CardError, match="truncates 18 rows of w\\+; this generator has 14"):
        card_with_recipe(card, recipe_from_name("handsoff-faces-19"))


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(CardError, match=r"no recipe face; there are datasetgan-car-20, "):
        recipe_from_name("face")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format = 1", "format = 2", "format"),
        ('"dg-pair"', '"all"', "tap_recipe"),
        ("grid = 256", "", "grid"),
        ("grid = 256", "grid = 256\nsurprise = 1", "surprise"),
        ("truncation_psi = 0.7", "truncation_psi = 7", "truncation_psi is 7"),
        ("truncation_cutoff = 7", "truncation_cutoff = -1", "truncation_cutoff is -1"),
        ("classes = [", "colors = [1, 2]\nclasses = [", "colors has 2 entries, classes has 16"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = (FOLDER / "datasetgan-cat-16.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CardError) as caught:
        recipe_from_name(str(path))
    assert words in str(caught.value) and "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ones_own_recipe_and_colours_are_taken(tmp_path: Path) -> None:
    text = (FOLDER / "datasetgan-cat-16.toml").read_text()
    colors = ", ".join(f"0x{i:06x}" for i in range(16))
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("classes = [", f"colors = [{colors}]\nclasses = [", 1))
    recipe = recipe_from_name(str(path))
    assert recipe.name == "mine" and [c.color for c in recipe.classes] == list(range(16))


def test_classes_of_a_labelled_set_replace_the_recipes(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text('[[classes]]\nname = "sky"\ncolor = "#0000Ff"\n')
    recipe = recipe_with_classes(recipe_from_name("datasetgan-cat-16"), path)
    assert [(c.name, c.color) for c in recipe.classes] == [("sky", 0xFF)]
    assert recipe.file.features == 4992
    for text, words in {
        '[[classes]]\nname = "sky"\ncolor = "blue"\n': "classes[0].color is 'blue'",
        "classes = []": "lists 0 classes",
        '[[classes]]\nname = "sky"\n': "color",
    }.items():
        path.write_text(text)
        with pytest.raises(CardError) as caught:
            recipe_with_classes(recipe, path)
        assert words in str(caught.value) and "classes.toml" in str(caught.value)
