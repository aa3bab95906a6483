"""Files of other projects give what their own code put into them, bit for bit."""

import argparse
import datetime
import io
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from checkpoints import (
    ForeignFileError,
    PickledNetwork,
    TensorFlowNetwork,
    TorchFile,
    read_foreign,
)
from checkpoints.networks import OtherValue
from tests.checkpoints.assembler import (
    Made,
    Named,
    Raw,
    code_of,
    legacy_file,
    network,
    pickled,
    reference,
    storage_file,
    tensor,
)

FIXTURES = Path(__file__).parent / "fixtures"
ADA = FIXTURES / "stylegan2_ada"
TENSORFLOW = FIXTURES / "stylegan2_tensorflow"
ROSINALITY = FIXTURES / "rosinality"


def check_tensors(found: dict[str, Tensor], expected: Path) -> None:
    truth = load_file(expected)
    assert found.keys() == truth.keys()
    for name, value in found.items():
        assert value.dtype == truth[name].dtype
        assert torch.equal(value, truth[name]), name


def torch_content(path: Path) -> object:
    file = read_foreign(path)
    assert isinstance(file, TorchFile)
    return file.content


def mapping_of(value: object) -> dict[Any, Any]:
    assert isinstance(value, Mapping)
    return {key: mapping_of(v) if isinstance(v, Mapping) else v for key, v in value.items()}


@pytest.mark.parametrize("name", ["file_protocol3", "file_protocol4"])
def test_a_pickled_network_gives_its_tensors(name: str) -> None:
    network = read_foreign(ADA / f"{name}.pkl")
    assert isinstance(network, PickledNetwork)
    assert network.class_name == "Generator"
    check_tensors(network.tensors, ADA / f"{name}.safetensors")


def test_a_pickled_network_gives_its_arguments() -> None:
    network = read_foreign(ADA / "file_protocol4.pkl")
    assert isinstance(network, PickledNetwork)
    assert network.kwargs == {
        "z_dim": 4,
        "c_dim": 2,
        "w_dim": 4,
        "img_resolution": 8,
        "img_channels": 3,
        "mapping_kwargs": {"num_layers": 1},
        "synthesis_kwargs": {
            "channel_base": 32,
            "channel_max": 4,
            "conv_clamp": 256,
            "num_fp16_res": 4,
            "architecture": "resnet",
        },
    }


def test_positional_arguments_get_their_names() -> None:
    network = read_foreign(ADA / "file_protocol3.pkl")
    assert isinstance(network, PickledNetwork)
    named = {key: network.kwargs[key] for key in ("z_dim", "c_dim", "w_dim", "img_resolution")}
    assert named == {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 8}


def test_a_network_may_contain_modules_of_torch(tmp_path: Path) -> None:
    weight = tensor(storage_file([1.0, 2.0]), 0, (2,), (1,))
    state = {"_parameters": {"weight": weight, "bias": None}, "_buffers": {}, "_modules": {}}
    linear = Made("torch.nn.modules.linear Linear", (), state)
    path = tmp_path / "network.pkl"
    path.write_bytes(pickled({"G_ema": network({}, fc=network({"a": weight}, inner=linear))}))
    found = read_foreign(path)
    assert isinstance(found, PickledNetwork)
    assert found.kwargs == {"z_dim": 4}
    assert list(found.tensors) == ["fc.a", "fc.inner.weight"]
    assert found.tensors["fc.inner.weight"].tolist() == [1.0, 2.0]


def test_a_network_with_hooks_is_refused(tmp_path: Path) -> None:
    """A hook is code that changes what a module computes."""
    path = tmp_path / "network.pkl"
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        hooked = network({})
        assert isinstance(hooked.args[0], dict)
        hooked.args[0]["state"][hooks] = {1: "hook"}
        path.write_bytes(pickled({"G_ema": hooked}))
        with pytest.raises(ForeignFileError, match=f"has {hooks}, code that changes"):
            read_foreign(path)


def test_a_tensorflow_pickle_gives_gs_with_its_components() -> None:
    network = read_foreign(TENSORFLOW / "file_networks.pkl")
    assert isinstance(network, TensorFlowNetwork)
    check_tensors(network.variables, TENSORFLOW / "file_networks.safetensors")
    assert {"dlatent_avg", "lod", "G_mapping/Dense0/weight", "G_synthesis/noise0"} <= set(
        network.variables
    )
    assert network.kwargs["resolution"] == 8
    assert network.kwargs["resample_kernel"] == [1, 3, 3, 1]
    assert network.kwargs["truncation_psi"] is None  # given to Gs alone


def test_a_training_state_gives_its_tensors_and_its_arguments() -> None:
    content = mapping_of(torch_content(ROSINALITY / "file_training.pt"))
    ema, average = mapping_of(content["g_ema"]), content["latent_avg"]
    assert isinstance(average, Tensor)
    check_tensors({**ema, "latent_avg": average}, ROSINALITY / "file.safetensors")
    assert mapping_of(content["args"])["arch"] == "stylegan2"
    state = mapping_of(mapping_of(content["g_optim"])["state"])
    assert isinstance(mapping_of(state[0])["exp_avg"], Tensor)
    assert content["ada_aug_p"] == 0.0


def test_the_layout_before_torch_1_6_gives_the_same() -> None:
    content = mapping_of(torch_content(ROSINALITY / "file_legacy.pt"))
    average = content["latent_avg"]
    assert isinstance(average, Tensor)
    found = {**mapping_of(content["g_ema"]), "latent_avg": average}
    check_tensors(found, ROSINALITY / "file.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.bool,
    ],
)
def test_views_of_every_type_are_read_as_torch_reads_them(
    tmp_path: Path, dtype: torch.dtype, zipped: bool
) -> None:
    whole = (torch.arange(24) % 5 - 1).to(dtype)
    grid = whole.view(2, 3, 4)
    tensors = {
        "whole": whole,
        "turned": grid.permute(2, 0, 1),
        "cut": grid[1:, ::2, 1],
        "number": whole[3],
        "empty": torch.empty(0, 3, dtype=dtype),
        "parameter": nn.Parameter(grid, requires_grad=False),
        "again": [grid.clone(), (grid.clone(),)],
    }
    torch.save(tensors, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    content = mapping_of(torch_content(tmp_path / "file"))
    truth = torch.load(tmp_path / "file", weights_only=True)
    for name in ("whole", "turned", "cut", "number", "empty", "parameter"):
        found = content[name]
        assert isinstance(found, Tensor)
        assert found.dtype == truth[name].dtype and found.shape == truth[name].shape
        assert torch.equal(found, truth[name]) and found.is_contiguous()
    again = content["again"]
    assert isinstance(again, list) and torch.equal(again[1][0], grid)


@pytest.mark.parametrize(
    ("protocol", "zipped"), [(2, False), (2, True), (3, True), (4, True), (5, True)]
)
def test_plain_data_is_read_as_it_was_written(tmp_path: Path, protocol: int, zipped: bool) -> None:
    plain = {
        "text": "r\u00e9sum\u00e9 \U0001f600",
        "numbers": [0, 255, -1, 1 << 20, 1 << 40, 2.5, True, None],
        "nested": {"a": ({"b": []}, ())},
        3: {1, 2},
        140_234_567_890_123: "as old optimisers number their parameters",
        "frozen": frozenset({"a"}),
        "bytes": b"\x00\xff",
    }
    content = {
        **plain,
        "ordered": OrderedDict(a=1, b=2),
        "args": argparse.Namespace(path="x", sizes=[1, 2]),
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "array": np.arange(6, dtype=np.float64).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "scalar": np.float32(0.5),
    }
    path = tmp_path / "file"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = mapping_of(torch_content(path))
    assert {key: found[key] for key in plain} == plain
    assert found["ordered"] == {"a": 1, "b": 2}
    assert found["args"] == {"path": "x", "sizes": [1, 2]}
    assert found["size"] == (2, 3)
    assert found["dtype"] == "torch.float16"
    assert found["scalar"] == 0.5
    assert isinstance(found["array"], Tensor) and isinstance(found["fortran"], Tensor)
    assert found["array"].dtype == torch.float64
    assert found["array"].tolist() == found["fortran"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_sizes_in_64_bits_are_read(tmp_path: Path) -> None:
    """As archives over 4 GiB have them."""
    torch.save({"a": torch.arange(3.0)}, tmp_path / "file.pt")
    (tmp_path / "file.pt").write_bytes(in_64_bits((tmp_path / "file.pt").read_bytes()))
    assert zipfile.is_zipfile(tmp_path / "file.pt")
    assert torch.load(tmp_path / "file.pt")["a"].tolist() == [0, 1, 2]
    content = mapping_of(torch_content(tmp_path / "file.pt"))
    assert content["a"].tolist() == [0, 1, 2]


def in_64_bits(data: bytes) -> bytes:
    """The archive with every size and position moved to where 64 bits fit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries, start = archive.infolist(), archive.start_dir
    directory = b""
    for entry in entries:
        extra = struct.pack("<2H3Q", 1, 24, entry.file_size, entry.file_size, entry.header_offset)
        full, name = 0xFFFFFFFF, entry.filename.encode()
        head = (b"PK\x01\x02", 45, 45, entry.flag_bits, 0, 0, 0)
        lengths = (entry.CRC, full, full, len(name), len(extra), 0, 0, 0, 0, full)
        directory += struct.pack("<4s6H3I5H2I", *head, *lengths) + name + extra
    count, size = len(entries), len(directory)
    end = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, full, full, 0)
    return data[:start] + directory + end + locator + last


def test_what_shares_memory_in_the_file_does_not_when_read(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    torch.save({"a": weight, "b": weight}, tmp_path / "file.pt")
    content = mapping_of(torch_content(tmp_path / "file.pt"))
    first, second = content["a"], content["b"]
    assert isinstance(first, Tensor) and isinstance(second, Tensor)
    first += 1
    assert first.tolist() == [1, 1, 1] and second.tolist() == [0, 0, 0]


def test_unknown_classes_beside_the_generator_do_no_harm(tmp_path: Path) -> None:
    """An optimizer, a date, a path, a discriminator of another project, a class in a class."""
    weight = tensor(storage_file([1.0]), 0, (1,), (1,))
    inner = Made("builtins getattr", (Named("training.networks Outer"), "Inner"))
    strangers = {
        "D": Made(
            "pg_modules.discriminator ProjectedDiscriminator", (), {"_modules": {"a": weight}}
        ),
        "date": Made("datetime datetime", (b"\x07\xea\x0b\x1d\x00\x00\x00\x00\x00\x00",)),
        "path": Made("pathlib PosixPath", ("a", "b")),
        "args": Made("easydict EasyDict", (), {"lr": 0.002}),
        "list": Raw(code_of(Made("collections deque")) + b"(" + code_of(1) * 2 + b"e"),
        "nested": Raw(code_of(inner) + b")R"),
        "class": Named("torch.optim.adam Adam"),
    }
    plain, mixed = tmp_path / "plain.pkl", tmp_path / "mixed.pkl"
    for path, others in ((plain, {}), (mixed, strangers)):
        path.write_bytes(pickled({**others, "G_ema": network({"w": weight})}))
    first, second = read_foreign(plain), read_foreign(mixed)
    assert isinstance(first, PickledNetwork) and isinstance(second, PickledNetwork)
    assert first.tensors.keys() == second.tensors.keys() == {"w"}
    assert first.fields == second.fields


def test_unknown_arguments_of_a_constructor_do_no_harm(tmp_path: Path) -> None:
    made = network({})
    assert isinstance(made.args[0], dict)
    kwargs = {"dir": Made("pathlib PosixPath", ("a",)), "synthesis_kwargs": {"conv_clamp": 2}}
    made.args[0]["state"]["_init_kwargs"] = kwargs
    (tmp_path / "network.pkl").write_bytes(pickled({"G_ema": made}))
    found = read_foreign(tmp_path / "network.pkl")
    assert isinstance(found, PickledNetwork)
    assert found.kwargs["synthesis_kwargs"] == {"conv_clamp": 2}
    assert found.kwargs["dir"] == OtherValue("pathlib.PosixPath")


@pytest.mark.parametrize("zipped", [True, False])
def test_of_a_torch_file_only_what_is_asked_for_is_read(tmp_path: Path, zipped: bool) -> None:
    content = {
        "g_ema": {"w": torch.ones(2)},
        "opts": argparse.Namespace(checkpoint=Path("a"), lr=0.1),
        "when": datetime.datetime(2020, 1, 1),
        "where": Path("a/b"),
        "expanded": torch.zeros(1).expand(3),
        "dtypes": {"complex": 1 + 2j},
    }
    path = tmp_path / "file.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    file = read_foreign(path)
    assert isinstance(file, TorchFile) and isinstance(file.content, Mapping)
    assert mapping_of(file.content["g_ema"])["w"].tolist() == [1, 1]
    assert file.content["opts"]["lr"] == 0.1
    for key in ("when", "where", "expanded"):
        with pytest.raises(ForeignFileError, match=rf"^{path}: .*\(under '{key}'\)"):
            file.content[key]


def test_a_network_that_torch_saved_is_read_as_from_a_pickle(tmp_path: Path) -> None:
    """As PTI saves its tuned generators: torch.save of NVIDIA's class."""
    view = Made("torch._utils _rebuild_tensor_v2", (reference("0", 2), 0, (2,), (1,), False, {}))
    data = struct.pack("<q2f", 2, 1.0, 2.0)
    for content in (network({"w": view}), {"G_ema": network({"w": view}), "D": None}):
        (tmp_path / "file.pt").write_bytes(legacy_file(content, ["0"], data))
        found = read_foreign(tmp_path / "file.pt")
        assert isinstance(found, PickledNetwork)
        assert found.tensors["w"].tolist() == [1, 2] and found.kwargs == {"z_dim": 4}


@pytest.mark.parametrize(
    ("parts", "family"),
    [
        ({"synthesis": {"L0_36_512": {}}, "mapping": {"embed_proj": {}}}, "StyleGAN-XL"),
        ({"backbone": {"synthesis": {"b4": {}}}, "renderer": {}}, "EG3D"),
        ({"b8": {"fromrgb": {}}, "b4": {"out": {}}}, "a discriminator"),
    ],
)
def test_a_pickled_network_of_another_family_is_named(
    tmp_path: Path, parts: dict[str, Any], family: str
) -> None:
    def built(inner: dict[str, Any]) -> Made:
        return network({}, "", **{name: built(below) for name, below in inner.items()})

    path = tmp_path / "network.pkl"
    path.write_bytes(pickled({"G_ema": built(parts)}))
    with pytest.raises(ForeignFileError, match=f"^{path}: it is {family}.*are supported"):
        read_foreign(path)
