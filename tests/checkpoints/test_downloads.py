"""What a failed download really is, and what to do, is said in one line whatever its suffix."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from checkpoints import CheckpointError, generator_from_path, tensors_from_file
from checkpoints.downloads import failed_download
from export.inspect import lines_from_weights

SUFFIXES = (".pkl", ".pt", ".pth", ".npy", ".safetensors", ".onnx", "")
FIXTURES = Path(__file__).parent / "fixtures"
WEIGHTS = (FIXTURES / "stylegan2_ada" / "file_protocol4.pkl").read_bytes()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 363986352\n"


def tar_of(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("weights.pkl")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def zip_of(data: bytes, method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("weights.pkl", data)
    return stream.getvalue()


DOWNLOADS = {
    "empty": (b"", "empty; download it again"),
    "zeros": (bytes(4096), "not finished; download it again"),
    "html": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", "HTML page.*login"),
    "html with a BOM": (b"\xef\xbb\xbf\r\n <HTML lang='en'>", "HTML page.*browser"),
    "xml": (b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied", "XML page"),
    "xml of a storage service": (b"<Error><Code>NoSuchKey</Code>", "XML page"),
    "json": (b'{"error": "Repository not found"}', "JSON text"),
    "json as safetensors begin": (b'{"a":{}}{"b": 1}', "JSON text"),
    "json list": (b"[\n  {\n", "JSON text"),
    "git lfs": (POINTER, "Git LFS pointer.*git lfs pull"),
    "git annex": (b"../.git/annex/objects/7V/MD5E-s12--a.pkl/MD5E-s12--a.pkl\n", "git-annex"),
    "gz": (gzip.compress(WEIGHTS), "gzip; unpack it"),
    "bz2": (bz2.compress(WEIGHTS), "bzip2; unpack it"),
    "xz": (lzma.compress(WEIGHTS), "xz; unpack it"),
    "tar": (tar_of(WEIGHTS), "tar archive; unpack it"),
    "zip": (zip_of(WEIGHTS, zipfile.ZIP_STORED), "zip archive.*unpack it"),
    "packed zip": (zip_of(WEIGHTS, zipfile.ZIP_DEFLATED), "zip.*unpack it"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", DOWNLOADS)
def test_a_failed_download_is_named_in_any_suffix(tmp_path: Path, kind: str, suffix: str) -> None:
    data, words = DOWNLOADS[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(data)
    for read in (generator_from_path, lines_from_weights):
        with pytest.raises(CheckpointError, match=words) as caught:
            read(path)
        assert (
            str(caught.value).startswith(f"{path}: it")
            and "\n" not in str(caught.value)
            and len(str(caught.value)) < 400
        )


def test_a_failed_download_beside_a_card_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(POINTER)
    path.with_suffix(".toml").write_text("format = 1\n")
    for read in (generator_from_path, tensors_from_file):
        with pytest.raises(CheckpointError, match="Git LFS pointer"):
            read(path)
    save_file({"a": torch.zeros(1)}, path)
    path.with_suffix(".toml").write_bytes(POINTER)
    with pytest.raises(
        CheckpointError, match=r"weights\.toml is not TOML: it is a Git LFS pointer"
    ):
        generator_from_path(path)


@pytest.mark.parametrize("suffix", [".part", ".crdownload", ".pt.part"])
def test_the_name_of_an_unfinished_download_is_mentioned(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"network.pkl{suffix}"
    path.write_bytes(WEIGHTS[: len(WEIGHTS) // 2])
    with pytest.raises(CheckpointError, match=rf"name ends in \{path.suffix}, a download that is"):
        generator_from_path(path)


def test_no_whole_file_is_taken_for_a_failed_download() -> None:
    files = [
        path for path in FIXTURES.rglob("*.*") if path.suffix in (".pkl", ".pt", ".safetensors")
    ]
    assert len(files) > 20
    for path in files:
        assert failed_download(path.read_bytes()[:512], path.stat().st_size) is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    pipe, device = tmp_path / f"pipe{suffix}", tmp_path / f"device{suffix}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        for read in (generator_from_path, lines_from_weights):
            with pytest.raises(
                CheckpointError, match=r"not a regular file|card of device|card of pipe"
            ):
                read(path)


def test_a_card_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    os.mkfifo(path.with_suffix(".toml"))
    with pytest.raises(CheckpointError, match="not a regular file"):
        generator_from_path(path)
