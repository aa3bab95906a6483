"""Pickles written opcode by opcode, so that a test can ask for what no object of ours would."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """A global: "module name"."""

    text: str


@dataclass(frozen=True)
class Made:
    """The result of calling a global, with a state built into it."""

    name: str  # "module name"
    args: tuple[object, ...] = ()
    state: object = None


@dataclass(frozen=True)
class Raw:
    """Opcodes that leave one value."""

    code: bytes


def pickled(content: object, protocol: int = 2) -> bytes:
    """A whole pickle."""
    return bytes([0x80, protocol]) + code_of(content) + b"."


def code_of(content: object) -> bytes:
    """The opcodes that make a value."""
    match content:
        case None:
            return b"N"
        case bool():
            return b"\x88" if content else b"\x89"
        case int():
            data = content.to_bytes(10, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", content)
        case str():
            return b"X" + struct.pack("<I", len(content.encode())) + content.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(content)) + content
        case list() | tuple():
            items = b"".join(map(code_of, content))
            return b"(" + items + b"t" if isinstance(content, tuple) else b"](" + items + b"e"
        case dict():
            return b"}(" + b"".join(code_of(k) + code_of(v) for k, v in content.items()) + b"u"
        case Named():
            return b"c" + content.text.replace(" ", "\n").encode() + b"\n"
        case Made():
            made = code_of(Named(content.name)) + code_of(content.args) + b"R"
            return made if content.state is None else made + code_of(content.state) + b"b"
        case Raw():
            return content.code
    raise TypeError(type(content))


def reference(key: str, count: int) -> Raw:
    """A storage of float32 outside the pickle."""
    return Raw(code_of(("storage", Named("torch FloatStorage"), key, "cpu", count, None)) + b"Q")


def legacy_file(content: object, keys: object, data: bytes) -> bytes:
    """What torch wrote before 1.6: five pickles, then the storages."""
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    parts = (1001, {"little_endian": True}, content, keys)
    return magic + b"".join(map(pickled, parts)) + data


def storage_file(values: list[float]) -> bytes:
    """A storage as NVIDIA's pickles hold it: a legacy file of its own."""
    data = struct.pack(f"<q{len(values)}f", len(values), *values)
    return legacy_file(reference("0", len(values)), ["0"], data)


def tensor(blob: bytes, *view: object) -> Made:
    """A tensor as NVIDIA's pickles hold it; view: offset, shape, strides."""
    storage = Made("torch.storage _load_from_bytes", (blob,))
    return Made("torch._utils _rebuild_tensor_v2", (storage, *view, False, {}))


def network(parameters: dict[str, object], source: str = "", **modules: object) -> Made:
    """A module as NVIDIA's pickles hold it."""
    state = {
        "_parameters": parameters,
        "_buffers": {},
        "_modules": modules,
        "_init_args": (),
        "_init_kwargs": {"z_dim": 4},
    }
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Generator"}
    return Made("torch_utils.persistence _reconstruct_persistent_obj", ({**meta, "state": state},))


def array(data: bytes, shape: tuple[int, ...], dtype: str = "f4", order: str = "<") -> Made:
    """An array of numpy's."""
    kind = Made("numpy dtype", (dtype, False, True), (3, order, None, None, None, -1, -1, 0))
    state = (1, shape, kind, False, data)
    made = ("numpy.core.multiarray _reconstruct", (Named("numpy ndarray"), (0,), b"b"))
    return Made(*made, state)


def tensorflow_networks(variable: object, name: str = "lod") -> tuple[Made, ...]:
    """G, D and Gs with one variable each."""
    state = {"version": 4, "name": "G", "static_kwargs": {"resolution": 8}, "components": {}}
    state = {**state, "build_module_src": "", "variables": [(name, variable)]}
    return (Made("dnnlib.tflib.network Network", (), state),) * 3
