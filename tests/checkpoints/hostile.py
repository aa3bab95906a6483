"""Files that mean harm, by name: code to be run, lengths that lie, memory to be filled."""

import builtins
import functools
import importlib
import io
import os
import pickle
import struct
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.checkpoints.assembler import (
    Made,
    Named,
    Raw,
    array,
    code_of,
    legacy_file,
    network,
    pickled,
    reference,
    storage_file,
    tensor,
    tensorflow_networks,
)

GIGABYTE = 1 << 30
MANY = 100_000


@dataclass(frozen=True)
class Runs:
    """Calls something when it is unpickled."""

    function: Callable[..., object]
    args: tuple[object, ...]

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.args


def corpus(canary: Path) -> dict[str, bytes]:
    """The files by name. Whatever one of them gets run makes `canary`."""
    return {
        **{f"code {name}": data for name, data in _code(canary)},
        **{f"nested {name}": data for name, data in _nested(canary)},
        **{f"zip {name}": data for name, data in _zips()},
        **{f"length {name}": data for name, data in _lengths()},
        **{f"view {name}": data for name, data in _views()},
        **{f"bomb {name}": data for name, data in _bombs()},
    }


def _code(canary: Path) -> Iterator[tuple[str, bytes]]:
    command, statement = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    payloads = {
        "os.system": Runs(os.system, (command,)),
        "eval": Runs(eval, (statement,)),
        "exec": Runs(exec, (statement,)),
        "open": Runs(open, (str(canary), "w")),
        "getattr": Runs(getattr, (Path, "touch")),
        "__import__": Runs(builtins.__import__, ("antigravity",)),
        "import_module": Runs(importlib.import_module, ("antigravity",)),
        "Popen": Runs(subprocess.Popen, (["touch", str(canary)],)),
        "partial": Runs(functools.partial, (os.system, command)),
        "pickle.loads": Runs(pickle.loads, (pickle.dumps(Runs(os.system, (command,))),)),
        "torch.load": Runs(torch.load, (str(canary),)),
        "numpy.load": Runs(np.load, (str(canary),)),
    }
    for name, payload in payloads.items():
        for protocol in range(6):
            yield f"{name}, protocol {protocol}", pickle.dumps(payload, protocol)
        code = Raw(pickle.dumps(payload, 2)[2:-1])
        weight = tensor(storage_file([1.0]), 0, (1,), (1,))
        beside = {"D": code, "G_ema": network({"w": weight}), "args": [code]}
        yield f"{name} beside a network", pickled(beside)
        yield f"{name} under D", pickle.dumps({"G_ema": None, "D": [payload]})
        for layout in (True, False):
            stream = io.BytesIO()
            torch.save({"g_ema": payload}, stream, _use_new_zipfile_serialization=layout)
            yield f"{name} in a {'zip' if layout else 'legacy'} file", stream.getvalue()
    for text in ("posix system", "torch.nn.modules.module os.system", "torch serialization.load"):
        yield f"named {text}", pickled({"G_ema": Made(text, (command,))})
    yield "named with newlines", b"\x80\x04" + code_of("os\nsystem") * 2 + b"\x93."
    yield "opcode OBJ", b"\x80\x02(cos\nsystem\n" + code_of(command) + b"o."
    yield "opcode INST", b"\x80\x02(" + code_of(command) + b"ios\nsystem\n."
    yield "opcode EXT1", b"\x80\x02\x82\x01."
    yield "opcode PERSID", b"\x80\x02Pos.system\n."
    yield "opcode none", b"\x80\x02\xff."
    yield "state of a list", pickled(Raw(b"]" + code_of({"a": 1}) + b"b"))
    yield "call of a value", pickled(Raw(code_of(Made("torch Size", ((),))) + b")R"))


def _nested(canary: Path) -> Iterator[tuple[str, bytes]]:
    payload = Runs(os.system, (f"touch {canary}",))
    legacy, zipped = io.BytesIO(), io.BytesIO()
    torch.save(payload, legacy, _use_new_zipfile_serialization=False)
    torch.save(torch.ones(1), zipped)
    source = Raw(code_of(("module", Named("torch FloatStorage"), "f.py", "code")) + b"Q")
    blobs = {
        "pickle": pickle.dumps(payload),
        "legacy file": legacy.getvalue(),
        "zip file": zipped.getvalue(),
        "code as list of storages": legacy_file(reference("0", 1), Made("os system"), b""),
        "content that is no storage": legacy_file({"a": 1}, [], b""),
        "source of a module": legacy_file(source, [], b""),
        "nothing": b"",
    }
    for name, blob in blobs.items():
        yield name, pickled({"G_ema": network({"weight": tensor(blob, 0, (1,), (1,))})})


def _zips() -> Iterator[tuple[str, bytes]]:
    view = Made("torch._utils _rebuild_tensor_v2", (reference("0", 2), 0, (2,), (1,), False, {}))
    good = {"a/data.pkl": pickled({"w": view}), "a/data/0": b"12345678"}
    yield "bomb", _zip({**good, "a/data/0": bytes(100 << 20)}, zipfile.ZIP_DEFLATED)
    yield "bomb of opcodes", _zip({"a/data.pkl": b"]" * (64 << 20)}, zipfile.ZIP_DEFLATED)
    yield "script", _zip({**good, "a/code/__torch__.py": b"import os", "a/constants.pkl": b""})
    yield "big-endian", _zip({**good, "a/byteorder": b"big"})
    yield "of zips", _zip({"a/data.pkl": _zip(good)})
    yield "without a pickle", _zip({"a.npy": b"", "b.npy": b""})
    yield "with two pickles", _zip({**good, "b/data.pkl": good["a/data.pkl"]})
    yield "without its storage", _zip({"a/data.pkl": good["a/data.pkl"]})
    yield "with a short storage", _zip({**good, "a/data/0": bytes(4)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield "with a name twice", _zip(good, zipfile.ZIP_STORED, good)
    packed = _zip(good)
    entry = packed.rindex(b"PK\x01\x02")
    for name, at, value in (
        ("claims gigabytes", entry + 20, struct.pack("<2I", GIGABYTE, GIGABYTE)),
        ("claims 64-bit sizes", entry + 20, b"\xff" * 8),
        ("begins elsewhere", entry + 42, bytes(4)),
        ("encrypted", entry + 8, b"\x01"),
        ("damaged", packed.index(b"12345678"), b"damaged!"),
        ("many entries", len(packed) - 14, b"\xfe\xff" * 2),
        ("directory elsewhere", len(packed) - 6, b"\xfe\xff\xff\xff"),
        ("comment", len(packed) - 2, b"\xff\xff"),
    ):
        yield name, packed[:at] + value + packed[at + len(value) :]


def _zip(
    entries: dict[str, bytes], method: int = 0, again: dict[str, bytes] | None = None
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in [*entries.items(), *(again or {}).items()]:
            archive.writestr(name, data)
    return stream.getvalue()


def _lengths() -> Iterator[tuple[str, bytes]]:
    prefixes = {
        "BINUNICODE8": (b"\x8d", 8),
        "BINBYTES8": (b"\x8e", 8),
        "BYTEARRAY8": (b"\x96", 8),
        "BINUNICODE": (b"X", 4),
        "BINBYTES": (b"B", 4),
        "BINSTRING": (b"T", 4),
        "LONG4": (b"\x8b", 4),
        "LONG_BINGET": (b"j", 4),
        "FRAME": (b"\x95", 8),
    }
    for name, (opcode, size) in prefixes.items():
        for length in (GIGABYTE, (1 << (8 * size)) - 1):
            code = opcode + length.to_bytes(size, "little")
            yield f"{name} {length}", b"\x80\x05" + code + b"abc."
            yield f"{name} {length} in a torch file", legacy_file(Raw(code), [], b"")
    yield "line", b"\x80\x02c" + b"a" * MANY
    yield "integer", b"\x80\x02\x8a\xff" + b"\x01" * 255 + b"."
    one = {"w": Made("torch._utils _rebuild_tensor", (reference("0", 1), 0, (1,), (1,)))}
    for count in (GIGABYTE, 1 << 62, -1, 2):
        yield f"storage {count}", legacy_file(one, ["0"], struct.pack("<qf", count, 1.0))
    yield "storage twice", legacy_file(one, ["0", "0"], struct.pack("<qfqf", 1, 1.0, 1, 1.0))
    laughs = Raw(b"](N\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"e")
    yield "storages by number", legacy_file(one, [0], struct.pack("<qf", 1, 1.0))
    yield "storages without end", legacy_file(one, laughs, struct.pack("<qf", 1, 1.0))
    yield "storage missing", legacy_file(one, [], b"")
    yield "more than the storages", legacy_file(one, ["0"], struct.pack("<qf", 1, 1.0) + b"more")
    for name, networks in (
        ("shape", tensorflow_networks(array(bytes(8), (GIGABYTE, GIGABYTE)))),
        ("no elements", tensorflow_networks(array(b"", (1 << 62, 0)))),
        ("objects", tensorflow_networks(array(b"", (0,), "O8"))),
        ("giant items", tensorflow_networks(array(b"", (0,), f"V{GIGABYTE}"))),
        ("big-endian", tensorflow_networks(array(bytes(4), (1,), "f4", ">"))),
    ):
        yield f"array {name}", pickled(networks)


def _views() -> Iterator[tuple[str, bytes]]:
    views: dict[str, tuple[object, ...]] = {
        "repeats": (0, (1 << 40,), (0,)),
        "offset": (1, (2,), (1,)),
        "negative offset": (-1, (1,), (1,)),
        "negative stride": (1, (2,), (-1,)),
        "negative shape": (0, (-2, -1), (1, 1)),
        "stride": (0, (2,), (1 << 60,)),
        "empty but huge": (0, (1 << 62, 0), (1, 1)),
        "axes": (0, (1,) * 1000, (1,) * 1000),
        "more strides": (0, (1,), (1, 1)),
        "shape of text": (0, ("1",), (1,)),
        "no shape": (0,),
    }
    for name, view in views.items():
        yield name, pickled({"G_ema": network({"w": tensor(storage_file([1, 2]), *view)})})


def _bombs() -> Iterator[tuple[str, bytes]]:
    laughs = Raw(b"N\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)))
    yield "laughs", _torch_file(laughs)
    yield "laughs as a key", _torch_file(Raw(laughs.code + b"}h\x3cNs"))
    weight = network({"w": tensor(storage_file([1]), 0, _again(60), _again(60))})
    yield "laughs as a shape", pickled({"G": Raw(b"](" + laughs.code + b"e"), "G_ema": weight})
    modules = [network({"w": None}), *(network({}, a=_again(i), b=_again(i)) for i in range(60))]
    named = b"".join(code_of(module) + b"q%c" % i for i, module in enumerate(modules))
    yield "laughing modules", pickled({"G": Raw(b"](" + named + b"e"), "G_ema": _again(60)})
    yield "deep lists", _torch_file(Raw(b"]" * MANY + b"a" * (MANY - 1)))
    yield "deep tuples", _torch_file(Raw(b"N" + b"\x85" * MANY))
    namespace = code_of(Made("argparse Namespace"))
    yield "deep states", _torch_file(Raw(namespace * 20_000 + b"b" * 19_999))
    yield "circle", _torch_file(Raw(b"]q\x00h\x00a"))
    for name, opcode in {"lists": b"]", "dicts": b"}", "sets": b"\x8f", "marks": b"("}.items():
        yield f"opcodes, {name}", b"\x80\x04" + opcode * (10 * MANY) + b"."
    numbers = b"".join(code_of(i * ((1 << 61) - 1)) + b"N" for i in range(1, 20_000))
    yield "equal hashes", _torch_file(Raw(b"}(" + numbers + b"u"))
    members = b"".join(map(code_of, range(20_000)))
    yield "sets", _torch_file(_repeated(Raw(b"\x8f(" + members + b"\x90")))
    yield "bytes", _torch_file(_repeated(bytes(MANY)))
    axes = (1,) * MANY
    yield "axes", _torch_file(_repeated(tensor(storage_file([1]), 0, axes, axes)))
    parts = code_of("torch.nn.modules." + "a" * MANY) + b"q\x01" + code_of("Linear") + b"q\x02"
    yield "names", b"\x80\x04](" + parts + b"\x93" + b"h\x01h\x02\x93" * MANY + b"e."
    values = struct.pack("<q", MANY) + bytes(4 * MANY)
    view = Made("torch._utils _rebuild_tensor", (reference("0", MANY), 0, (MANY,), (1,)))
    shared = _repeated(view)
    yield "tensors of one storage", legacy_file(shared, ["0"], values)
    yield "files in a file", _torch_file(_repeated(tensor(storage_file([1] * MANY), 0, (1,), (1,))))


def _torch_file(content: object) -> bytes:
    return legacy_file(content, [], b"")


def _again(number: int) -> Raw:
    """A value that the pickle has numbered."""
    return Raw(b"h%c" % number)


def _repeated(value: object) -> Raw:
    """A list of one value, many times."""
    return Raw(b"](" + code_of(value) + b"q\x00" + b"h\x00" * MANY + b"e")
