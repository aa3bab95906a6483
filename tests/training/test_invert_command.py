"""python -m training invert: real pictures in, the set that `sample` would write out."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from checkpoints import sha256_of_file
from training.__main__ import main
from training.images.image_set import image_set_from_folder, read_rgb

ROWS = ["--rows", "4:28"]  # of the tiny generator's 32


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, size in enumerate([(32, 24), (64, 48), (96, 72)]):
        pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photo {i}.png")
    return folder


@pytest.fixture(scope="module")
def encoder(tiny_weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encoder") / "new" / "encoder.safetensors"
    options = ["--latent-steps", "2", "--image-steps", "1", "--batch", "2", *ROWS]
    result = run("encoder", "--generator", str(tiny_weights[0]), "--out", str(out), *options)
    assert result.exit_code == 0, result.output
    return out


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def refused(*arguments: str) -> str:
    """The one line that `run` of the module prints."""
    result = run(*arguments)
    assert result.exit_code != 0
    if isinstance(result.exception, SystemExit):
        return result.output
    assert result.exception is not None and "\n" not in str(result.exception)
    return str(result.exception)


def common(generator: Path, pictures: Path, out: Path) -> list[str]:
    generator_options = ["--generator", str(generator), "--steps", "3"]
    return ["invert", *generator_options, "--images", str(pictures), "--out", str(out)]


def test_real_pictures_become_a_set_of_images_and_latents(
    tiny_weights: tuple[Path, Path], encoder: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    result = run(*common(tiny_weights[0], pictures, out), "--encoder", str(encoder))
    assert result.exit_code == 0, result.output
    found = image_set_from_folder(out)
    found.check_files()
    assert found.stems == ["photo 0", "photo 1", "photo 2"] and str(found.crop) == "32x24"
    assert found.ws.shape == (3, 8, 12) and found.index.generator_sha256 == sha256_of_file(
        tiny_weights[0]
    )
    entries = found.index.images
    assert [entry.source for entry in entries] == ["photo 0.png", "photo 1.png", "photo 2.png"]
    assert [entry.source_size for entry in entries] == [None, (64, 48), (96, 72)]
    assert all(entry.psnr_db is not None for entry in entries)
    assert np.array_equal(found.image(0), read_rgb(pictures / "photo 0.png"))
    assert f"perceptual distance: {found.index.made['distance']}" in result.output
    report = json.loads((out / "report.json").read_text())
    for entry, reported in zip(entries, report["images"], strict=True):
        assert reported["best"]["psnr_db"] == pytest.approx(entry.psnr_db, abs=1e-3)
        assert reported["last"]["step"] == 3
    with Image.open(out / "report_1.png") as sheet:
        assert sheet.width > 4 * 100


def test_two_runs_write_the_same_bytes(
    tiny_weights: tuple[Path, Path], encoder: Path, pictures: Path, tmp_path: Path
) -> None:
    digests = []
    for name in ("one", "two"):
        run(*common(tiny_weights[0], pictures, tmp_path / name), "--encoder", str(encoder))
        digests.append(
            {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted((tmp_path / name).rglob("*.*"))
            }
        )
    assert digests[0] == digests[1] and len(digests[0]) == 7


def test_dropped_images_are_listed(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    arguments = common(tiny_weights[0], pictures, tmp_path / "set")
    psnrs = [
        entry["best"]["psnr_db"]
        for entry in json.loads(report_after(arguments, tmp_path / "set"))["images"]
    ]
    bad = int(np.argmin(psnrs))
    least = str(sorted(psnrs)[1] - 1e-4)
    out = tmp_path / "dropped"
    limit = ["--min-psnr", least, "--on-bad", "drop"]
    result = run(*common(tiny_weights[0], pictures, out), *ROWS, *limit)
    assert f"dropped: 1 of 3 (photo {bad}.png)" in result.output
    assert image_set_from_folder(out).stems == [f"photo {i}" for i in range(3) if i != bad]
    assert json.loads((out / "report.json").read_text())["images"][bad]["verdict"] == "dropped"
    flagged = run(*common(tiny_weights[0], pictures, tmp_path / "flagged"), *ROWS, *limit[:2])
    assert f"flagged: 1 of 3 (photo {bad}.png)" in flagged.output
    assert len(image_set_from_folder(tmp_path / "flagged")) == 3
    words = refused(
        *common(tiny_weights[0], pictures, tmp_path / "none"), *ROWS, "--min-psnr", "99", *limit[2:]
    )
    assert "none of 3 images is kept" in words and (tmp_path / "none/report.json").exists()


def report_after(arguments: list[str], out: Path) -> str:
    assert run(*arguments, *ROWS).exit_code == 0
    return (out / "report.json").read_text()


def test_input_that_cannot_be_used_is_one_line(
    tiny_weights: tuple[Path, Path], encoder: Path, pictures: Path, tmp_path: Path
) -> None:
    arguments = common(tiny_weights[0], pictures, tmp_path / "set")
    assert "crop it to 32:32" in refused(*arguments)
    words = refused(*arguments, "--encoder", str(encoder), "--rows", "0:24")
    assert "reads rows 4:28 of a grid of 32, not 0:24 of 32; leave out" in words
    assert "rows are 4:40" in refused(*arguments, "--rows", "4:40")
    words = refused("encoder", *arguments[1:3], "--out", str(tmp_path / "encoder.toml"))
    assert "encoder.toml; weights are written as .safetensors" in words
    assert "torch cannot use 'tpu9'" in refused(*arguments, *ROWS, "--device", "tpu9")
    card = encoder.with_suffix(".toml")
    other = tmp_path / "other.safetensors"
    other.write_bytes(encoder.read_bytes())
    sha256 = sha256_of_file(tiny_weights[0])
    other.with_suffix(".toml").write_text(card.read_text().replace(sha256, "0" * 64))
    words = refused(*arguments, "--encoder", str(other))
    assert f"to the generator with SHA-256 {'0' * 64}, this one has {sha256}" in words
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert "broken.jpg cannot be read" in refused(*arguments, *ROWS)
    (pictures / "broken.jpg").unlink()
    assert not (tmp_path / "set").exists()
    assert run(*arguments, *ROWS).exit_code == 0
    assert "holds a set of images already" in refused(*arguments, *ROWS)


def test_a_set_that_was_interrupted_once_complete_is_complete(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    """The folder of finished batches is removed after the index was written."""
    arguments = [*common(tiny_weights[0], pictures, tmp_path / "set"), *ROWS]
    assert run(*arguments).exit_code == 0
    whole = image_set_from_folder(tmp_path / "set").index
    (tmp_path / "set" / "unfinished").mkdir()
    again = run(*arguments)
    assert again.exit_code == 0 and "was complete; removed unfinished/" in again.output
    assert not (tmp_path / "set" / "unfinished").exists()
    assert image_set_from_folder(tmp_path / "set").index == whole
    assert "holds a set of images already" in refused(*arguments)


def test_the_pictures_are_never_written_over(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    inside = tmp_path / "set" / "images"
    inside.parent.mkdir()
    pictures.rename(inside)
    for out in (inside.parent, inside, inside / ".." / "images"):
        words = refused(*common(tiny_weights[0], inside, out), *ROWS)
        assert "would write over the pictures" in words
    assert {pictures / path.name: path.read_bytes() for path in inside.iterdir()} == before


def test_names_of_files_cannot_steer_a_terminal(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    (pictures / "a\x1b[2J\n.txt").touch()
    (pictures / os.fsdecode(b"b\xff.txt")).touch()  # no text, and standard output takes no other
    (pictures / "photo 0.png").rename(pictures / "\x1b[2J 0.png")
    options = ["--min-psnr", "99", "--on-bad", "drop", *ROWS]
    result = run(*common(tiny_weights[0], pictures, tmp_path / "set"), *options)
    assert result.exit_code == 1, result.output
    assert "ignored, not pictures: a\\x1b[2J\\n.txt, b\\udcff.txt\n" in result.output
    assert "(\\x1b[2J 0.png, photo 1.png" in result.output
    assert all(line.isprintable() for line in result.stdout.splitlines())


def test_an_image_that_fails_is_never_written(
    tiny_weights: tuple[Path, Path], pictures: Path, tmp_path: Path
) -> None:
    arguments = common(tiny_weights[0], pictures, tmp_path / "set")
    words = refused(*arguments, *ROWS, "--learning-rate", "1e30")
    assert "none of 3 images is kept" in words
    report = json.loads((tmp_path / "set/report.json").read_text())
    assert {entry["verdict"] for entry in report["images"]} == {"failed"}
    assert not (tmp_path / "set/latents.npy").exists()
