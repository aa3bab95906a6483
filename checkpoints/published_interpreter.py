"""Label ensembles in the files of DatasetGAN, HandsOff, EditGAN and ddpm-segmentation.

One file `model_<k>.pth` for each member: Linear, ReLU, BatchNorm1d, Linear, ReLU, BatchNorm1d,
Linear, in a DataParallel wrapper. The files have tensors alone; a recipe gives the other facts.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from checkpoints.card import InterpreterCard, SegmentationCard
from checkpoints.errors import CardError, WeightsError
from checkpoints.foreign import ForeignFile, TorchFile
from checkpoints.foreign_tensors import extent_of, tensors_of
from checkpoints.interpreter import card_problem, head_cards
from checkpoints.recipes import Recipe, matching_recipes
from checkpoints.weights import fill_module, meta_module, refuse_names
from nets.config import GeneratorConfig
from nets.interpreter import HeadConfig, Interpreter, member_as_sequential

LINEARS, NORMS = (0, 3, 6), (2, 5)  # positions in the Sequential
STATISTICS = ("weight", "bias", "running_mean", "running_var")
COUNTS = "num_batches_tracked"  # used in training only
MEMBER = re.compile(r"model_(\d+)\.pth\Z")


def member_paths(path: Path) -> list[Path]:
    """`path` itself if it is a file, or the files `model_<k>.pth` of a folder, ordered by k.

    Raises WeightsError for a folder without such files or with a gap in their numbers.
    """
    if not path.is_dir():
        return [path]
    found = {int(m[1]): file for file in path.iterdir() if (m := MEMBER.match(file.name))}
    if not found:
        raise WeightsError(f"{path} has no model_0.pth, model_1.pth ...")
    missing = next((k for k in range(len(found)) if k not in found), None)
    if missing is not None:
        raise WeightsError(
            f"{path} has {len(found)} members up to model_{max(found)}.pth, but no "
            f"model_{missing}.pth"
        )
    return [found[k] for k in range(len(found))]


def interpreter_from_published(
    members: Sequence[tuple[str, ForeignFile]],  # name in messages, content
    recipe: Recipe,
    generator: GeneratorConfig,
    generator_sha256: str,
) -> tuple[Interpreter, InterpreterCard]:
    """One interpreter of all members, and its card. Raises CardError, WeightsError."""
    states = [_state(file, source) for source, file in members]
    first, widths = members[0][0], _widths(states[0], members[0][0])
    for (source, _), state in zip(members, states, strict=True):
        if _widths(state, source) != widths:
            raise WeightsError(
                f"{source} has layers {_widths(state, source)}; {first} has {widths}"
            )
    features, h1, h2, classes = widths
    _check_recipe(first, features, classes, recipe, generator)
    head = HeadConfig("segmentation", features, (h1, h2), classes, len(members))
    interpreter = meta_module(lambda: Interpreter((head,)))
    fill_module(interpreter, _ensemble(states), first)
    card = _card(interpreter, recipe, generator_sha256)
    problem = card_problem(card)
    if problem:
        raise CardError(f"recipe {recipe.name}: {problem}")
    return interpreter, card


def write_members(folder: Path, interpreter: Interpreter) -> list[Path]:
    """Writes the segmentation head as model_0.pth, model_1.pth ... for their code.

    Returns the paths. Raises WeightsError for an interpreter without a segmentation head.
    """
    if "segmentation" not in interpreter.heads:
        raise WeightsError(
            f"{folder} is not written: the interpreter has no segmentation head, and published "
            "members are segmentation heads"
        )
    head = interpreter.head("segmentation")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"model_{k}.pth" for k in range(head.config.members)]
    for k, path in enumerate(paths):
        state = member_as_sequential(head, k).state_dict()
        renamed = {f"module.layers.{name}": tensor.clone() for name, tensor in state.items()}
        torch.save({"model_state_dict": renamed}, path)
    return paths


def widths_of_member(file: ForeignFile, source: str) -> tuple[int, int, int, int]:
    """Widths of a member: features, two hidden layers, classes. Raises WeightsError."""
    return _widths(_state(file, source), source)


def _state(file: ForeignFile, source: str) -> dict[str, Tensor]:
    """Tensors of one member by position and kind, such as "0.weight"."""
    content = file.content if isinstance(file, TorchFile) else None
    if isinstance(content, Mapping) and "model_state_dict" in content:
        content = content["model_state_dict"]
    stored = tensors_of(content, source)
    state = {name.removeprefix("module."): tensor for name, tensor in stored.items()}
    names = {f"layers.{i}.{kind}" for i in LINEARS for kind in ("weight", "bias")}
    names |= {f"layers.{i}.{kind}" for i in NORMS for kind in STATISTICS}
    refuse_names(source, "lacks", names - state.keys())
    refuse_names(
        source, "has unexpected", state.keys() - names - {f"layers.{i}.{COUNTS}" for i in NORMS}
    )
    return {name.removeprefix("layers."): state[name] for name in names}


def _widths(state: Mapping[str, Tensor], source: str) -> tuple[int, int, int, int]:
    widths = [extent_of(state, "0.weight", 1, source)]
    for i in LINEARS:
        out, into = (extent_of(state, f"{i}.weight", axis, source) for axis in (0, 1))
        vectors = [f"{i}.bias"] + [f"{i + 2}.{kind}" for kind in STATISTICS if i + 2 in NORMS]
        if into != widths[-1] or any(list(state[name].shape) != [out] for name in vectors):
            raise WeightsError(
                f"{source}: the shapes of layers.{i} and the layers around it do not fit together"
            )
        widths.append(out)
    return widths[0], widths[1], widths[2], widths[3]


def _check_recipe(
    source: str, features: int, classes: int, recipe: Recipe, generator: GeneratorConfig
) -> None:
    file = recipe.file
    matching = ", ".join(matching_recipes(features)) or "none of the published"
    if features != file.features:
        raise CardError(
            f"{source} reads {features} features per pixel; the taps of recipe {recipe.name} have "
            f"{file.features}; recipes that match: {matching}"
        )
    if (generator.tap_recipe, generator.features) != (file.tap_recipe, features):
        raise CardError(
            f"{source} reads {features} features per pixel from taps {file.tap_recipe}; this "
            f"generator ({generator.family}, {generator.resolution} px) has "
            f"{generator.features} from taps {generator.tap_recipe}"
        )
    if classes != len(file.classes):
        raise CardError(
            f"{source} has {classes} classes; recipe {recipe.name} names {len(file.classes)}"
        )
    if file.grid > generator.resolution:
        raise CardError(
            f"recipe {recipe.name} has a grid of {file.grid} px; it must be at most the "
            f"generator's resolution, {generator.resolution}"
        )


def _ensemble(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of all members, stacked as nets.interpreter.Interpreter has them."""
    tensors = {
        "linear1.weight": torch.cat([s["0.weight"] for s in states]),
        "linear1.bias": torch.cat([s["0.bias"] for s in states]),
        "weight2": torch.stack([s["3.weight"].t() for s in states]),
        "bias2": torch.stack([s["3.bias"][None] for s in states]),
        "weight3": torch.stack([s["6.weight"].t() for s in states]),
        "bias3": torch.stack([s["6.bias"][None] for s in states]),
    }
    for norm, position in (("norm1", 2), ("norm2", 5)):
        for kind in STATISTICS:
            tensors[f"{norm}.{kind}"] = torch.cat([s[f"{position}.{kind}"] for s in states])
        tensors[f"{norm}.{COUNTS}"] = torch.tensor(0)
    return {f"heads.segmentation.{name}": tensor for name, tensor in tensors.items()}


def _card(interpreter: Interpreter, recipe: Recipe, generator_sha256: str) -> InterpreterCard:
    file = recipe.file
    return InterpreterCard(
        format=1,
        kind="interpreter",
        generator_sha256=generator_sha256,
        tap_recipe=file.tap_recipe,
        features=file.features,
        grid=file.grid,
        crop_top=file.crop_top,
        height=file.height,
        width=file.width,
        resize=file.resize,
        score_source="segmentation",
        score_fraction=file.score_fraction,
        licences=file.licences,
        provenance={"recipe": recipe.name, "note": file.note},
        heads=head_cards(interpreter),
        segmentation=SegmentationCard(classes=recipe.classes),
    )
