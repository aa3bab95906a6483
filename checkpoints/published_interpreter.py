"""Label ensembles in the files of DatasetGAN, HandsOff, EditGAN and ddpm-segmentation.

One file `model_<k>.pth` for each member: Linear, ReLU, BatchNorm1d, Linear, ReLU, BatchNorm1d,
Linear, in a DataParallel wrapper. The files have tensors alone; a recipe gives the other facts.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
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
from nets.config import GeneratorConfig, size_at, stated_start
from nets.interpreter import HeadConfig, Interpreter, member_as_sequential

LINEARS, NORMS = (0, 3, 6), (2, 5)  # positions in the Sequential
STATISTICS = ("weight", "bias", "running_mean", "running_var")
COUNTS = "num_batches_tracked"  # used in training only
MEMBER = re.compile(r"model_[0-9]+\.pth\Z")
NUMBER = re.compile(r"[0-9]+")


def member_paths(path: Path) -> list[Path]:
    """The files of an ensemble, ordered by number.

    `path` is one file, a folder with model_<k>.pth files, or a pattern of names in a folder, such
    as members/car_model_*.pt. Raises WeightsError without such files, or if numbers are missing or
    equal.
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if MEMBER.match(file.name)]
        if not files:
            raise WeightsError(
                f"{path} has no model_0.pth, model_1.pth ...; for other names give a pattern in "
                f"quotes, such as '{path}/car_model_*.pth'"
            )
        first = 0
    elif is_pattern(path):
        files = [file for file in _files_in(path.parent) if fnmatchcase(file.name, path.name)]
        if not files:
            raise WeightsError(f"{path} matches no file")
        first = None
    else:
        return [path]
    return _in_order(path, files, first)


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of file names, such as car_model_*.pt, and no file's name."""
    return any(mark in path.name for mark in "*?[") and not path.exists()


def _files_in(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.iterdir() if not file.is_dir()]
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read ({error.strerror})") from error


def _in_order(path: Path, files: list[Path], first: int | None) -> list[Path]:
    """Files by the one number that differs in their names, which must count up from `first`."""
    alike: dict[str, list[Path]] = {}
    for file in sorted(files):
        alike.setdefault(NUMBER.sub("<k>", file.name), []).append(file)
    if len(alike) > 1:
        one, other = (group[0].name for group in list(alike.values())[:2])
        raise WeightsError(f"{path} matches {one} and {other}, which differ in more than a number")
    numbers = {file: [int(n) for n in NUMBER.findall(file.name)] for file in files}
    columns = [set(column) for column in zip(*numbers.values(), strict=True)]
    varying = [k for k, values in enumerate(columns) if len(values) > 1] or [0]
    if len(varying) > 1:
        raise WeightsError(
            f"{path} matches {min(files).name} and {max(files).name}, which differ in more than "
            "one number; give a narrower pattern"
        )
    found: dict[int, Path] = {}
    for file in sorted(files):
        number = numbers[file][varying[0]] if numbers[file] else 0
        if number in found:
            raise WeightsError(
                f"{path} has both {found[number].name} and {file.name}, which are member {number} "
                "twice; remove one"
            )
        found[number] = file
    start = min(found) if first is None else first
    missing = next((k for k in range(start, start + len(found)) if k not in found), None)
    if missing is not None:
        last = found[max(found)].name
        name = NUMBER.sub("<k>", last).replace("<k>", str(missing)) if first is not None else None
        raise WeightsError(
            f"{path} has {len(found)} members up to {last}, but no "
            + (name or f"member of number {missing}")
        )
    return [found[k] for k in sorted(found)]


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
    card = _card(interpreter, recipe, generator, generator_sha256)
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
    infinite = next((n for n in sorted(names) if not torch.isfinite(state[n]).all()), None)
    if infinite is not None:
        raise WeightsError(f"{source}: {infinite} holds values that are not finite")
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
    _, columns = size_at(file.grid, generator.start)
    if file.width != columns:
        raise CardError(
            f"recipe {recipe.name} has width {file.width}; on a grid of {file.grid} px this "
            f"generator's labels are {columns} wide"
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


def _card(
    interpreter: Interpreter, recipe: Recipe, generator: GeneratorConfig, generator_sha256: str
) -> InterpreterCard:
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
        score_measure=file.score_measure,
        licences=file.licences,
        provenance={"recipe": recipe.name, "note": file.note},
        heads=head_cards(interpreter),
        segmentation=SegmentationCard(classes=recipe.classes),
        start=stated_start(generator.start),
    )
