"""Recipes: TOML files with the facts that files of published label ensembles lack.

Recipes of the published configurations are in `published/`; users may write their own.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bundle.manifest import Count, Psi, ScoreMeasure
from bundle.records import Strict
from checkpoints.card import ClassCard, GeneratorCard
from checkpoints.classes import classes_from_file, distinct_colors
from checkpoints.errors import CardError
from checkpoints.toml import read_toml
from nets.config import TapRecipe, rows_of_ws
from nets.features import Resize

FOLDER = Path(__file__).parent / "published"


class RecipeFile(Strict, frozen=True, kw_only=True):
    """Content of a recipe's TOML file."""

    format: Literal[1]
    kind: Literal["recipe"]
    note: str  # source of the configuration, in words
    tap_recipe: TapRecipe
    features: int  # length of the hypercolumn
    grid: int  # rows and columns that every feature map is resized to, pixels
    crop_top: int  # first row of the grid that is kept
    height: int  # label and image rows after the crop
    width: int
    resize: Resize
    truncation_psi: Psi
    truncation_cutoff: Count  # rows of w+
    score_fraction: float = 0.1  # share of the most uncertain pixels that the score averages
    score_measure: ScoreMeasure = "jensen_shannon"  # uncertainty of a pixel; the papers' by default
    licences: list[str]
    classes: Annotated[list[str], msgspec.Meta(min_length=1)]  # names by class id
    colors: list[int] | None = None  # 0xRRGGBB by class id; absent: distinct colors


class Recipe(Strict, frozen=True, kw_only=True):
    """A recipe and its name."""

    name: str
    file: RecipeFile

    @property
    def classes(self) -> list[ClassCard]:
        """Names and colors of the classes."""
        colors = self.file.colors or distinct_colors(len(self.file.classes))
        return [
            ClassCard(name=name, color=color)
            for name, color in zip(self.file.classes, colors, strict=True)
        ]


def published_names() -> list[str]:
    """Names of the published recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def recipe_from_name(name_or_path: str) -> Recipe:
    """A published recipe by name, or the recipe of a TOML file by path. Raises CardError."""
    if name_or_path in published_names():
        return _recipe(name_or_path, FOLDER / f"{name_or_path}.toml")
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise CardError(
            f"there is no recipe {name_or_path}; there are {', '.join(published_names())}; or give "
            "the path of your own TOML file"
        )
    return _recipe(path.stem, path)


def recipe_with_classes(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with names and colors of classes from a classes.toml. Raises CardError."""
    cards = classes_from_file(path).cards
    file = msgspec.structs.replace(
        recipe.file,
        classes=[card.name for card in cards],
        colors=[card.color for card in cards],
    )
    return Recipe(name=recipe.name, file=file)


def matching_recipes(features: int, tap_recipe: TapRecipe | None = None) -> list[str]:
    """Names of the published recipes with `features` channels, and with `tap_recipe` if given."""
    files = {name: recipe_from_name(name).file for name in published_names()}
    return [
        name
        for name, file in files.items()
        if file.features == features and tap_recipe in (None, file.tap_recipe)
    ]


def card_with_recipe(card: GeneratorCard, recipe: Recipe) -> GeneratorCard:
    """The generator's card with truncation and licenses of the recipe. Raises CardError."""
    rows = rows_of_ws(card.family, len(card.config.channels))
    if recipe.file.truncation_cutoff > rows:
        raise CardError(
            f"recipe {recipe.name} truncates {recipe.file.truncation_cutoff} rows of w+; this "
            f"generator has {rows}"
        )
    return msgspec.structs.replace(
        card,
        truncation_psi=recipe.file.truncation_psi,
        truncation_cutoff=recipe.file.truncation_cutoff,
        licences=list(dict.fromkeys([*card.licences, *recipe.file.licences])),
    )


def _recipe(name: str, path: Path) -> Recipe:
    file = read_toml(path, RecipeFile)
    problem = _contradiction(file)
    if problem:
        raise CardError(f"{path}: {problem}")
    return Recipe(name=name, file=file)


def _contradiction(file: RecipeFile) -> str | None:
    """The first broken rule; the cards made from the recipe check more."""
    if file.colors is not None and len(file.colors) != len(file.classes):
        return f"colors has {len(file.colors)} entries, classes has {len(file.classes)}"
    if not all(0 <= color <= 0xFFFFFF for color in file.colors or ()):
        return "colors has a value outside 0x000000 to 0xffffff"
    return None
