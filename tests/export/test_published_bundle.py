"""Published generators and label ensembles become bundles whose graphs pass their parity check."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bundle import open_bundle
from checkpoints import sha256_of_file, write_generator, write_interpreter
from checkpoints.families import generator_from_foreign
from checkpoints.foreign import TorchFile
from checkpoints.published_interpreter import interpreter_from_published
from checkpoints.recipes import Recipe, card_with_recipe, recipe_from_name
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from export.__main__ import main
from nets.interpreter import member_as_sequential
from tests.checkpoints.golden import golden
from tests.export.networks import random_interpreter

# Published recipe -> the fixture that stands for its generator.
PAIRS = {
    "datasetgan-face-34": "stylegan1/golden_32",
    "datasetgan-car-20": "stylegan1/golden_32",
    "handsoff-cars-10": "rosinality/golden_32",
}


def small(recipe: Recipe, features: int, resize: str) -> Recipe:
    """The recipe with its geometry scaled down to 16 px labels of a 32 px generator."""
    file = recipe.file
    scale = file.grid // 16
    values = {
        "features": features,
        "grid": 16,
        "crop_top": file.crop_top // scale,
        "height": file.height // scale,
        "width": 16,
        "resize": resize,
        "truncation_cutoff": 5,
        "classes": [str(i) for i in range(7)],
    }
    return Recipe(name=recipe.name, file=msgspec.structs.replace(file, **values))


def saved_members(features: int) -> list[tuple[str, TorchFile]]:
    """A random ensemble as the release saves it."""
    head = random_interpreter(features, members=3, kinds=("segmentation",)).head("segmentation")
    states = [member_as_sequential(head, k).state_dict() for k in range(3)]
    return [
        (
            f"model_{k}.pth",
            TorchFile({"model_state_dict": {f"module.layers.{n}": t for n, t in state.items()}}),
        )
        for k, state in enumerate(states)
    ]


@pytest.mark.parametrize(
    "name",
    ["handsoff-cars-10", *(pytest.param(n, marks=pytest.mark.long) for n in list(PAIRS)[:2])],
)
@pytest.mark.parametrize("resize", ["bilinear", pytest.param("nearest", marks=pytest.mark.long)])
def test_a_bundle_of_published_weights_is_written(tmp_path: Path, name: str, resize: str) -> None:
    torch.manual_seed(0)
    weights = golden(PAIRS[name]).weights
    content = {"g_ema": weights} if name.startswith("handsoff") else weights
    generator, card = generator_from_foreign(TorchFile(content), "generator.pt")
    for parameter_name, parameter in generator.synthesis.named_parameters():
        if "torgb" in parameter_name and parameter.shape[0] == 3:
            parameter.mul_(0.3)  # most pixels between the clips
    recipe = small(recipe_from_name(name), generator.config.features, resize)
    path = tmp_path / "generator.safetensors"
    write_generator(path, generator, card_with_recipe(card, recipe))
    ensemble, ensemble_card = interpreter_from_published(
        saved_members(generator.config.features), recipe, generator.config, sha256_of_file(path)
    )
    labels, out = tmp_path / "interpreter.safetensors", tmp_path / "bundle"
    write_interpreter(labels, ensemble, ensemble_card)
    arguments = ["--generator", path, "--interpreter", labels, "--out", out]
    half = () if resize == "bilinear" else ("--no-half",)
    result = CliRunner().invoke(main, ["bundle", *map(str, arguments), *half])
    assert result.exit_code == 0, result.output

    bundle = open_bundle(out)
    manifest = bundle.manifest
    assert manifest.labels is not None
    assert manifest.labels.tap_recipe == recipe.file.tap_recipe
    assert (manifest.labels.crop_top, manifest.labels.resize) == (recipe.file.crop_top, resize)
    assert manifest.generator.noise == ("const" if name.startswith("handsoff") else "seed:0")
    assert manifest.generator.truncation_cutoff == 5
    mapping, engine = open_mapping(bundle, EngineOptions()), open_engine(bundle, EngineOptions())
    options = default_options(manifest.generator)
    ws = ws_from_indices(mapping, manifest.generator, options, np.arange(2, dtype=np.uint64))
    arrays = engine.run(ws, np.full(2, np.inf, np.float32), engine.outputs).arrays
    engine.close()
    assert arrays["image"].shape == (2, recipe.file.height, 16, 3)
    assert arrays["mask"].shape == (2, recipe.file.height, 16)
