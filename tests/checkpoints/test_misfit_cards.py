"""A card with a value out of range, or that does not fit its tensors, is refused in one line.

The line names the field, its value and the limit.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from checkpoints import (
    CardError,
    CheckpointError,
    WeightsError,
    encoder_from_file,
    generator_from_file,
    interpreter_from_file,
    inverse_graphics_from_file,
    refiner_from_file,
    views_from_file,
    write_encoder,
    write_generator,
    write_interpreter,
    write_inverse_graphics,
    write_refiner,
    write_views,
)
from checkpoints.weights import save_tensors, tensors_from_file
from tests.checkpoints import (
    test_encoder,
    test_generator,
    test_interpreter,
    test_inverse_graphics,
    test_refiner,
    test_views,
)
from tests.checkpoints.cards import ABSENT, edit_card, one_line

FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "generator": (
        lambda path: write_generator(path, test_generator.generator(), test_generator.CARD),
        generator_from_file,
    ),
    "interpreter": (
        lambda path: write_interpreter(
            path,
            test_interpreter.interpreter(),
            test_interpreter.card(test_interpreter.interpreter()),
        ),
        interpreter_from_file,
    ),
    "refiner": (
        lambda path: write_refiner(
            path, test_refiner.refiner(), test_refiner.card(test_refiner.refiner())
        ),
        refiner_from_file,
    ),
    "encoder": (
        lambda path: write_encoder(path, test_encoder.encoder(), test_encoder.CARD),
        encoder_from_file,
    ),
    "inverse-graphics": (
        lambda path: write_inverse_graphics(
            path, test_inverse_graphics.inverse_graphics(), test_inverse_graphics.CARD
        ),
        inverse_graphics_from_file,
    ),
    "views": (
        lambda path: write_views(path, test_views.CODES, test_views.CARD),
        views_from_file,
    ),
}
MISFITS: dict[str, list[tuple[str, object, str]]] = {
    "generator": [
        ("format", 2, "format"),
        ("kind", "interpreter", "kind"),
        ("family", "stylegan9", "family is 'stylegan9'"),
        ("family", "stylegan1", "no c_dim, conv_clamp"),
        ("config.architecture", "unet", "architecture"),
        ("view_layers", ABSENT, "view_layers"),
        ("view_layers", 7, "view_layers is 7; it must be in [0, 6]"),
        ("surprise", 2, "surprise"),
        ("truncation_cutoff", -4, "truncation_cutoff is -4; it must be >= 0"),
        ("truncation_psi", math.nan, "truncation_psi is nan"),
        ("config.resolution", 17, "resolution is 17"),
        ("config.resolution", 32, "channels has 3 entries"),
        ("config.resolution", 1 << 60, f"config.resolution is {1 << 60}; it must be <= 4096"),
        ("config.mapping_layers", 1_000_000_000, "config.mapping_layers is 1000000000"),
        ("config.w_dim", 1 << 62, f"config.w_dim is {1 << 62}"),
        ("config.w_dim", 1 << 20, "must be"),  # a terabyte, were it allocated
        ("config.channels", [], "config.channels has 0 values"),
        ("config.channels", [6, 5, 3], "synthesis.b16.conv0.bias is [4]; by m.toml it must be [3]"),
        ("config.conv_clamp", 0.0, "config.conv_clamp is 0.0"),
    ],
    "interpreter": [
        ("crop_top", 5, "crop_top is 5"),
        ("width", 17, "width is 17; it must be in [1, 16]"),
        ("score_fraction", 0, "score_fraction is 0; it must be > 0"),
        ("surprise", {}, "surprise"),
        ("depth", ABSENT, "[depth]"),
        ("heads.1.members", 0, "heads[1].members is 0; it must be >= 1"),
        ("heads.1.members", 4, "it must be [4, 1, 3]"),
        ("features", 8, "linear1"),
        ("keypoints.names", ["a"], "[keypoints] describes 1"),
        ("keypoints.skeleton", [[0, 2]], "edge [0, 2]"),
        ("heads.0.hidden", [6], "heads[0].hidden has 1 values"),
        ("heads.0.hidden", [6, -5], "heads[0].hidden[1] is -5; it must be >= 1"),
        ("resize", "bicubic", "resize"),
        ("heads.2.kind", "normals", "kind"),
        ("heads.2.kind", "segmentation", "segmentation"),
    ],
    "refiner": [
        ("config.channels", 1, "config.channels is 1; it must be >= 3"),
        ("config.blocks", 1_000_000_000, "config.blocks is 1000000000"),
        ("config.blocks", 3, "lacks blocks.2"),
        ("config.width", 7, "is [5]; by m.toml it must be [7]"),
        ("config.grain", -1, "config.grain is -1"),
        ("kind", "interpreter", "kind"),
        ("format", 2, "format"),
        ("mood", 1, "mood"),
        ("regulariser.reduction", "sum", "reduction"),
    ],
    "encoder": [
        ("kind", "generator", "kind"),
        ("grid", 2, "grid is 2; it must be >= 4"),
        ("crop_top", 9, "rows is 24; it must be in [1, 23]"),
        ("crop_top", -1, "crop_top is -1; it must be >= 0"),
        ("width", 0, "width is 0"),
        ("height", 99999, "height is 99999; it must be <= 4096"),
        ("iterations", 0, "iterations is 0"),
        ("channels", [16, 33], "multiples of 16"),
        ("channels", [16], "channels has 1 values; it must be of length >= 2"),
        ("channels", [16, 99999999], "channels[1] is 99999999"),
        ("channels", [16, 64], "must be"),
        ("channels", [16, 32, 32], "lacks"),
        ("num_ws", 1 << 20, "must be"),
        ("hidden", 9, "must be"),
        ("color", 1, "color"),
        ("w_dim", ABSENT, "w_dim"),
    ],
    "inverse-graphics": [
        ("kind", "encoder", "kind"),
        ("format", 2, "format"),
        ("extent", 3, "extent is 3; it must be >= 4"),
        ("extent", 64, "lacks blocks."),
        ("hidden", 0, "hidden is 0"),
        ("hidden", 1_000_000_000, "hidden is 1000000000; it must be <= 4096"),
        ("hidden", 7, "by m.toml it must be"),
        ("texture", 12, "texture is 12; it must be a power of two"),
        ("texture", 16, "lacks texture."),
        ("radius", math.nan, "radius is nan"),
        ("radius", 0.0, "radius is 0.0"),
        ("camera", False, "has unexpected camera."),
        ("distance", math.inf, "distance is inf"),
        ("focal", -1.0, "focal is -1.0"),
        ("silhouette", 1.5, "silhouette is 1.5; it must be <= 1.0"),
        ("keypoints", ["nose", "nose"], "keypoints names nose twice"),
        ("mood", 1, "mood"),
        ("licences", ABSENT, "licences"),
    ],
    "views": [
        ("kind", "generator", "generator"),
        ("codes", 4, "cameras has 3 entries; there are 4 codes"),
        ("codes", 0, "codes is 0"),
        ("view_layers", 3, "must be torch.float32 [3, 3, 8]"),
        ("w_dim", ABSENT, "w_dim"),
        ("cameras.0.elevation_deg", 90.5, "cameras[0].elevation_deg is 90.5; it must be <= 90.0"),
        ("cameras.0.azimuth_deg", math.nan, "cameras[0].azimuth_deg is nan"),
        ("cameras.0.azimuth_deg", -361, "azimuth_deg is -361"),
        ("cameras.0.distance", 0, "distance is 0; it must be > 0.0"),
        ("cameras.0.focal", math.inf, "focal is inf"),
        ("cameras.0.focal", 1e300, "focal is 1e+300"),
        ("cameras.0.focal", "wide", "focal is 'wide'"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "keys", "value", "words"),
    [(kind, *misfit) for kind, misfits in MISFITS.items() for misfit in misfits],
)
def test_a_card_that_does_not_fit_is_refused(
    tmp_path: Path, kind: str, keys: str, value: object, words: str
) -> None:
    path = tmp_path / "m.safetensors"
    write, read = FORMATS[kind]
    write(path)
    edit_card(path, keys, value)
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert words in one_line(caught.value, path)


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 400_000 + " = 1",
        "a" + " . 'b'" * 100_000 + " = 1",
        "[[ a" + '."b.c"' * 100_000 + "]]",
        "b = {c = 1, a" + ".a" * 400_000 + " = 1}",
    ],
)
def test_keys_of_endless_parts_are_refused_unread(tmp_path: Path, text: str) -> None:
    """tomllib takes the square of their number: minutes."""
    path = tmp_path / "m.safetensors"
    write, read = FORMATS["generator"]
    write(path)
    path.with_suffix(".toml").write_text(text)
    with pytest.raises(CheckpointError, match="a key of over 32 parts"):
        read(path)


@pytest.mark.parametrize("name", FORMATS)
def test_names_in_a_file_of_somebody_else_cannot_steer_a_terminal(
    name: str, tmp_path: Path
) -> None:
    path, (write, read) = tmp_path / "w.safetensors", FORMATS[name]
    steering = "\x1b]0;a\x07\nerror: \u202e"
    write(path)
    save_tensors(path, {**tensors_from_file(path), steering: torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"\\x1b\]0;a\\x07\\nerror: \\u202e") as caught:
        read(path)
    assert str(caught.value).isprintable()
    card = path.with_suffix(".toml")
    card.write_text('"\\u001b[2J" = 1\n' + card.read_text())
    with pytest.raises(CardError, match=r"\\x1b\[2J") as refused:
        read(path)
    assert str(refused.value).isprintable()
