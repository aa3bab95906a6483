"""A bundle stores its view bank bit for bit, and only with the bank's own generator."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from bundle import BundleError, open_bundle
from bundle.calibration import calibration_for
from bundle.errors import NotCalibrated
from bundle.manifest import VIEWS
from checkpoints import (
    CameraCard,
    GeneratorCard,
    ViewsCard,
    card_from_config,
    sha256_of_file,
    write_generator,
    write_views,
)
from engines import EngineOptions, open_mapping, ws_from_indices
from engines.sampling import default_options, key_from_options
from export.__main__ import main, view_mode_from_text
from export.errors import ExportError
from tests.export.networks import random_generator

Codes = NDArray[np.float32]
CODES = np.random.default_rng(1).standard_normal((3, 2, 16)).astype(np.float32)
CAMERAS = [CameraCard(azimuth_deg=-40.5, elevation_deg=2.0), CameraCard(), CameraCard(focal=2.4)]


def export(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def one_line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    return lines[0]


def generator_at(folder: Path, seed: int = 0, view_layers: int = 2) -> Path:
    folder.mkdir()
    network = random_generator(16, seed)
    card = GeneratorCard(
        format=1,
        kind="generator",
        family="stylegan2",
        config=card_from_config(network.config),
        view_layers=view_layers,
        truncation_psi=0.7,
        truncation_cutoff=6,
        licences=["CC0-1.0"],
        provenance="by a test",
    )
    write_generator(folder / "g.safetensors", network, card)
    return folder / "g.safetensors"


def bank_at(path: Path, generator: Path, codes: Codes = CODES, **changes: Any) -> Path:
    card = ViewsCard(
        format=1,
        kind="views",
        generator_sha256=sha256_of_file(generator),
        codes=codes.shape[0],
        view_layers=codes.shape[1],
        w_dim=codes.shape[2],
        licences=[],
        provenance="by a test",
        cameras=CAMERAS,
    )
    write_views(path, codes, msgspec.structs.replace(card, **changes))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a generator, its view bank, and bundles with and without the bank."""
    folder = tmp_path_factory.mktemp("views")
    generator = generator_at(folder / "generator")
    bank = bank_at(folder / "v.safetensors", generator)
    common = ("bundle", "--generator", generator, "--no-half", "--parity-samples", 2)
    for name, more in (("with", ("--views", bank)), ("without", ())):
        result = export(*common, "--out", folder / name, *more)
        assert result.exit_code == 0, result.output
    return folder


def test_codes_and_cameras_are_in_the_bundle_to_the_last_bit(folder: Path) -> None:
    bundle = open_bundle(folder / "with")
    assert bundle.views is not None and bundle.views.codes.tobytes() == CODES.tobytes()
    nan = np.nan
    expected = [[-40.5, 2, nan, nan], [nan] * 4, [nan, nan, nan, np.float32(2.4)]]
    np.testing.assert_array_equal(bundle.views.cameras, np.array(expected, np.float32))
    assert (bundle.path / VIEWS).read_bytes() == CODES.tobytes()


def test_a_bank_makes_another_bundle_and_its_absence_changes_nothing(folder: Path) -> None:
    with_bank, without = (open_bundle(folder / name) for name in ("with", "without"))
    assert with_bank.manifest.bundle_id != without.manifest.bundle_id
    assert without.views is None
    assert "views" not in json.loads((folder / "without" / "manifest.json").read_text())


def test_inspect_says_what_the_bank_is(folder: Path) -> None:
    bundle = export("inspect", folder / "with")
    assert "views        3 in the bank, azimuth -40 to -40 degrees" in bundle.output
    bank = export("inspect", folder / "v.safetensors")
    assert bank.exit_code == 0 and "the first 2 rows of w+ of 16" in bank.output


def test_what_is_served_has_the_codes_in_its_rows(folder: Path) -> None:
    bundle = open_bundle(folder / "with")
    generator = bundle.manifest.generator
    options = replace(default_options(generator), views_per_object=3, view_mode="bank")
    mapping = open_mapping(bundle, EngineOptions())
    ws = ws_from_indices(mapping, generator, options, range(6), bank=bundle.views)
    assert (ws[:, :2] == np.concatenate([CODES, CODES])).all()


def test_a_bank_of_another_generator_is_refused(folder: Path, tmp_path: Path) -> None:
    other = generator_at(tmp_path / "other", seed=1)
    refused = export(
        "bundle", "--generator", other, "--views", folder / "v.safetensors", "--out", tmp_path / "b"
    )
    line = one_line(refused)
    assert sha256_of_file(other) in line and "v.safetensors has views of a generator" in line
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (CODES[:, :1], "has codes of 1 rows; the card of"),
        (CODES[..., :8], "has codes of 8 values per row"),
    ],
)
def test_a_bank_of_other_extents_is_refused(
    folder: Path, tmp_path: Path, codes: Codes, words: str
) -> None:
    generator = folder / "generator" / "g.safetensors"
    bank = bank_at(tmp_path / "v.safetensors", generator, codes)
    refused = export("bundle", "--generator", generator, "--views", bank, "--out", tmp_path / "b")
    assert words in one_line(refused)


def test_the_bank_says_which_rows_carry_the_view_where_the_generator_does_not(
    tmp_path: Path,
) -> None:
    generator = generator_at(tmp_path / "silent", view_layers=0)
    bank = bank_at(tmp_path / "v.safetensors", generator)
    result = export(
        "bundle", "--generator", generator, "--views", bank, "--out", tmp_path / "b", "--no-half",
        "--parity-samples", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert open_bundle(tmp_path / "b").manifest.generator.view_layers == 2
    long = bank_at(
        tmp_path / "l.safetensors", generator, np.zeros((1, 7, 16), np.float32), cameras=None
    )
    refused = export("bundle", "--generator", generator, "--views", long, "--out", tmp_path / "c")
    assert "has codes of 7 rows" in one_line(refused) and "6 rows of w+" in refused.output


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m["views"].update(codes=2), "views.f32"),
        (lambda m: m["views"].update(codes=70000), "views.codes is 70000"),
        (lambda m: m["views"]["cameras"].pop(), "views.cameras has 2 entries"),
        (lambda m: m["views"]["cameras"][0].update(elevation_deg=91), "elevation_deg is 91"),
        (lambda m: m["views"]["cameras"][0].update(azimuth_deg=-30.0), "bundle_id"),
        (lambda m: m["views"]["cameras"][0].update(distance=1e300), r"distance is 1e\+300"),
        (lambda m: m["views"]["cameras"][0].update(zoom=1), "zoom"),
        (lambda m: m.pop("views"), "files has views.f32, but views is absent"),
        (lambda m: m["files"].pop("views.f32"), "files lacks views.f32"),
        (lambda m: m["generator"].update(view_layers=0), "generator.view_layers is 0"),
        (lambda m: m["generator"].update(view_layers=3), "have 576 bytes"),
    ],
)
def test_a_manifest_that_contradicts_its_bank_is_refused(
    folder: Path, tmp_path: Path, edit: Callable[[Any], Any], words: str
) -> None:
    copy = shutil.copytree(folder / "with", tmp_path / "b")
    manifest = json.loads((copy / "manifest.json").read_text())
    edit(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=words) as caught:
        open_bundle(copy)
    assert "\n" not in str(caught.value)


def test_a_damaged_bank_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / "with", tmp_path / "b")
    data = bytearray((copy / VIEWS).read_bytes())
    data[5] ^= 1
    (copy / VIEWS).write_bytes(data)
    with pytest.raises(BundleError, match=r"views\.f32 has SHA-256"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("views", "view", "command"),
    [
        (2, None, "--views 2 --view bank"),
        (1, "1", "--view 1"),
        (1, "random", "--view random"),
        (2, "drawn", "--views 2 --view drawn"),
    ],
)
def test_the_command_that_calibrates_names_the_views(
    folder: Path, views: int, view: str | None, command: str
) -> None:
    bundle = open_bundle(folder / "with")
    mode, fixed = view_mode_from_text(view, views, bundle.views)
    options = replace(
        default_options(bundle.manifest.generator),
        views_per_object=views,
        view_mode=mode,
        view=fixed,
    )
    with pytest.raises(NotCalibrated) as caught:
        calibration_for(bundle.manifest, key_from_options(options), Path("b"))
    assert str(caught.value).endswith(f"--psi 0.7 --cutoff 6 {command}")


def test_a_view_that_is_none_is_refused() -> None:
    for text in ("-1", "1.5", "front", ""):
        with pytest.raises(ExportError, match="--view is"):
            view_mode_from_text(text, 1, None)
