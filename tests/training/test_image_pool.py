"""Every source gives the same images again, or one line that says what is wrong with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from bundle import open_bundle
from checkpoints import sha256_of_file
from engines import EngineOptions, default_options, open_engine, open_mapping, ws_from_indices
from engines.fake import fake_bundle
from labelmint import Client
from tests.service.harness import FakeModel, served
from training.__main__ import main
from training.errors import TrainingError
from training.images.sources import images_from_folder, opened_pool


def folder_of(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """Images of these widths and heights."""
    path.mkdir()
    source = np.random.default_rng(0)
    for i, (width, height) in enumerate(sizes):
        pixels = source.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    (path / "notes.txt").write_text("no image")
    return path


def refine(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["refiner", *map(str, arguments)])


def refusal(result: Result) -> str:
    assert result.exit_code == 1
    assert isinstance(result.exception, TrainingError), result.output
    return str(result.exception)


def test_weights_give_the_images_of_a_stream(
    tiny_weights: tuple[Path, Path], tiny_bundle: Path
) -> None:
    with opened_pool(str(tiny_weights[0]), 5, seed=3) as pool:
        assert len(pool.images) == 0
        pool.fill(5)
    assert pool.images.shape == (5, 3, 32, 32) and pool.images.dtype == torch.uint8
    assert pool.generator_sha256 == sha256_of_file(tiny_weights[0])
    assert pool.licences == ("CC0-1.0",)
    bundle = open_bundle(tiny_bundle)
    sampling = default_options(bundle.manifest.generator, 3)
    mapping = open_mapping(bundle, EngineOptions())
    ws = ws_from_indices(mapping, bundle.manifest.generator, sampling, range(5))
    engine = open_engine(bundle, EngineOptions(batch_sizes=(8,)))
    served_ = engine.run(ws, np.full(5, np.inf, np.float32), ("image",)).arrays["image"]
    steps = pool.images.permute(0, 2, 3, 1).numpy().astype(int) - served_
    assert np.abs(steps).max() <= 1  # of a byte


def test_a_service_gives_its_first_samples() -> None:
    with served() as server, Client(f"127.0.0.1:{server.server.port}") as client:
        with opened_pool(f"127.0.0.1:{server.server.port}", 20, seed=7) as pool:
            for count in (3, 17, 20):
                pool.fill(count)
                assert len(pool.images) == count
        batch = next(iter(client.stream(20, seed=7, count=20)))
        assert batch.images is not None
    assert np.array_equal(pool.images.permute(0, 2, 3, 1).numpy(), batch.images)
    assert pool.masks is not None and batch.masks is not None
    assert np.array_equal(pool.masks.numpy(), batch.masks)
    assert pool.generator_sha256 is None


def test_a_folder_gives_its_images_by_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", [(30, 24)] * 3)
    with opened_pool(str(folder), 2, seed=0) as pool:
        pass
    assert pool.images.shape == (2, 3, 24, 30) and pool.size == (24, 30)
    expected = np.asarray(Image.open(folder / "1.png"))
    assert np.array_equal(pool.images[1].permute(1, 2, 0).numpy(), expected)


def test_what_is_no_source_is_one_line(tmp_path: Path, tiny_bundle: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        str(tiny_bundle): "is a bundle, which training does not run; serve it and give HOST:PORT",
        str(empty): "has no images",
        str(tmp_path / "absent"): "does not exist; give a generator's weights, HOST:PORT",
        "127.0.0.1:1": "--source 127.0.0.1:1: ",
    }
    for source, words in cases.items():
        with pytest.raises(TrainingError, match=words), opened_pool(source, 4, seed=0):
            pass


def test_mixed_sizes_are_refused_unless_they_are_to_be_cut(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", [(32, 32), (32, 32), (40, 32)])
    with pytest.raises(TrainingError, match=r"2\.png is 40x32 pixels, 0\.png is 32x32; .*--fit"):
        images_from_folder(folder, 9, None)
    assert images_from_folder(folder, 9, (24, 28)).shape == (3, 3, 24, 28)
    assert images_from_folder(folder, 2, None).shape == (2, 3, 32, 32)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", [(32, 32)])
    (folder / "5.png").write_bytes((folder / "0.png").read_bytes()[:200])
    with pytest.raises(TrainingError, match=r"5\.png cannot be read as an image"):
        images_from_folder(folder, 9, None)


def test_the_command_refuses_before_it_trains(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "s", [(32, 32)] * 2)
    real = folder_of(tmp_path / "r", [(40, 40)] * 2)
    small = folder_of(tmp_path / "small", [(16, 32)] * 2)
    out = tmp_path / "out.safetensors"
    where = ("--source", source, "--out", out)
    assert "32x32 pixels, the real ones 40x40; --fit" in refusal(refine(*where, "--real", real))
    assert "has no images" in refusal(refine(*where, "--real", tmp_path))
    history = refine(*where, "--real", source, "--history", 3)
    assert "--history is 3; it must hold half a batch, 8" in refusal(history)
    none = refine(*where, "--real", source, "--steps", 0, "--warm-up", 0, "--critic-warm-up", 0)
    assert "are 0; one must not be" in refusal(none)
    tiny = refine("--source", small, "--real", small, "--out", out)
    assert "16 pixels across; at least 24" in refusal(tiny)
    assert refine("--source", source, "--real", source, "--out", tmp_path / "x.pt").exit_code == 2
    assert refine(*where, "--real", source, "--feature", "hue").exit_code == 2
    assert not out.exists()


def test_a_services_masks_are_what_the_segmenter_learns_from(tmp_path: Path) -> None:
    real, out = folder_of(tmp_path / "r", [(32, 32)] * 3), tmp_path / "r.safetensors"
    with served([FakeModel(bundle=fake_bundle(resolution=32))]) as server:
        result = refine(
            "--source", f"127.0.0.1:{server.server.port}", "--images", 6, "--real", real,
            "--out", out, "--steps", 1, "--warm-up", 1, "--critic-warm-up", 1, "--batch", 2,
            "--segmenter-steps", 2, "--min-agreement", 0, "--min-structure", -1, "--max-shift", 99,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert ", agreement 0." in result.output or ", agreement 1.000" in result.output
    card = out.with_suffix(".toml").read_text()
    assert "agreement = " in card and "generator_sha256" not in card


def test_the_command_trains_and_resumes(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "s", [(32, 32)] * 3)
    real = folder_of(tmp_path / "r", [(40, 44)] * 3)
    out = tmp_path / "deep" / "refiner.safetensors"
    words = (
        "--source", source, "--real", real, "--fit", "--out", out, "--width", 4, "--blocks", 1,
        "--critic-width", 4, "--warm-up", 1, "--critic-warm-up", 1, "--batch", 2, "--max-shift", 9,
        "--min-structure", -1,
    )  # fmt: skip
    first = refine(*words, "--steps", 1)
    assert first.exit_code == 0 and f"wrote {out} and its card" in first.output
    before = out.read_bytes()
    assert refine(*words, "--steps", 2, "--resume").exit_code == 0
    assert out.read_bytes() != before
    after = out.read_bytes()
    assert refine(*words, "--steps", 2, "--resume").exit_code == 0  # at its end already
    assert "exists; give --resume to continue" in refusal(refine(*words, "--steps", 2))
    assert out.read_bytes() == after
