"""What a file is its content says; arrays are read, and what is no network is refused."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from checkpoints import (
    ForeignFileError,
    TorchFile,
    read_array,
    read_foreign,
)
from tests.checkpoints.assembler import (
    array,
    pickled,
    tensorflow_networks,
)

FIXTURES = Path(__file__).parent / "fixtures"
ADA = FIXTURES / "stylegan2_ada"


def test_an_expanded_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(3)}, tmp_path / "file.pt")
    file = read_foreign(tmp_path / "file.pt")
    assert isinstance(file, TorchFile) and isinstance(file.content, Mapping)
    with pytest.raises(ForeignFileError, match=r"shape \[3\] does not fit its storage of 1"):
        file.content["a"]


@pytest.mark.parametrize("source", sorted(FIXTURES.rglob("file_*.p*")))
def test_the_content_decides_what_a_file_is(tmp_path: Path, source: Path) -> None:
    renamed = tmp_path / "picture.png"
    renamed.write_bytes(source.read_bytes())
    assert type(read_foreign(renamed)) is type(read_foreign(source))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"G": 1}, "no network of NVIDIA's code under G_ema"),
        ({"G_ema": {"weight": [1.0]}}, "no network of NVIDIA's code under G_ema"),
        (tensorflow_networks(1.0)[:2], "2 TensorFlow networks"),
        (tensorflow_networks(1.0, "n" * 300), "name that is not text, or longer than 256"),
        (tensorflow_networks("text"), "its 'lod' is not a tensor"),
        (tensorflow_networks(array(b"", (0,), "U4")), "only plain numbers"),
    ],
)
def test_a_pickle_without_a_generator_is_refused(
    tmp_path: Path, content: object, reason: str
) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(pickled(content))
    with pytest.raises(ForeignFileError, match=reason):
        read_foreign(path)


def test_other_known_files_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "a.pkl")
    np.save(tmp_path / "b.npy", np.zeros(3))
    (tmp_path / "c.pkl").write_bytes(pickle.dumps([1, 2], 0))
    for name, reason in {
        "a.pkl": "safetensors",
        "b.npy": "numpy array",
        "c.pkl": "of an unknown kind",
    }.items():
        with pytest.raises(ForeignFileError, match=f"^{tmp_path / name}: it is .*{reason}"):
            read_foreign(tmp_path / name)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", "|i1", "<i4", "<i8", "|u1", "|b1"])
@pytest.mark.parametrize("shape", [(), (5,), (18, 512), (2, 3, 4), (0, 512)])
def test_an_array_is_read_as_numpy_reads_it(
    tmp_path: Path, dtype: str, order: Literal["C", "F"], shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    path = tmp_path / "latent.npy"
    np.save(path, np.array(values, order=order))
    found = read_array(path)
    assert found.shape == shape
    assert found.numpy().dtype == values.dtype
    np.testing.assert_array_equal(found.numpy(), np.load(path, allow_pickle=False))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(4.0), version)
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    assert read_array(tmp_path / "a.npy").tolist() == [0, 1, 2, 3]


def test_an_array_of_objects_or_of_another_byte_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for values, reason in (
        (np.array([{}, None]), "does not hold plain numbers"),
        (np.arange(3).astype(">f4"), "big-endian"),
        (np.array(["a"]), "plain numbers"),
    ):
        np.save(path, values, allow_pickle=True)
        with pytest.raises(ForeignFileError, match=reason):
            read_array(path)
    with pytest.raises(ForeignFileError, match="not a numpy array"):
        read_array(ADA / "file_protocol4.pkl")
