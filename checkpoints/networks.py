"""Keyword arguments and tensors of networks that NVIDIA's code pickled, from pickle records.

- StyleGAN2-ADA (PyTorch): {"G": ..., "D": ..., "G_ema": network, ...}; each module is pickled with
  its Python source, which is not read, and its fields, among them its submodules
- StyleGAN2 (TensorFlow): (G, D, Gs); each network is pickled with its keyword arguments, its own
  variables and its component networks
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from checkpoints.other_families import family_of
from checkpoints.pickle_names import PERSISTENT_OBJECT, TENSORFLOW_NETWORK
from checkpoints.pickles import Key, RecordedCall
from checkpoints.read_budget import FileRefused, shown
from checkpoints.values import MAPPINGS, Values

MAX_NAME = 256  # characters of a tensor's name, with its modules
# Parameters of the constructor in order, for networks built with positional arguments.
GENERATOR_ARGUMENTS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
# Names of the generator in a file, its moving average first.
NETWORKS = ("G_ema", "g_ema", "generator_ema", "G", "g", "generator", "netG", "model")
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
NUMPY_SCALAR = "numpy._core.multiarray.scalar"
ARRAYS = ("numpy._core.multiarray._reconstruct", "numpy._core.numeric._frombuffer")
MAX_ITEMS = 64  # of an attribute that is a list or an array


@dataclass(frozen=True)
class OtherValue:
    """A value that is neither a number nor text nor None, in a message or a comparison."""

    kind: str  # its type or, from a call that was not made, the name of the function

    def __repr__(self) -> str:
        return f"a value of kind {shown(self.kind)}"


@dataclass(frozen=True)
class PickledNetwork:
    """A PyTorch network from a pickle of StyleGAN2-ADA's or StyleGAN3's code."""

    class_name: str  # of the network's outermost module
    kwargs: dict[str, object]  # of the constructor; plain data, nested mappings as dicts
    tensors: dict[str, Tensor]  # parameters and buffers by dotted name, in their stored dtype
    # Attributes of each module by its dotted name ("" is the network): numbers, text, None, short
    # tuples of these (from lists and arrays too), and OtherValue for the rest. They are what the
    # network computes with when it is unpickled.
    fields: dict[str, dict[str, object]]


@dataclass(frozen=True)
class TensorFlowNetwork:
    """A TensorFlow network from a StyleGAN2 pickle."""

    kwargs: dict[str, object]  # static keyword arguments, plain data
    variables: dict[str, Tensor]  # by name; in components, e.g. G_mapping/Dense0/weight


def pickled_network_from_record(record: object, values: Values) -> PickledNetwork:
    """The generator's moving average, G_ema, of a pickle, else its only generator.

    Raises FileRefused.
    """
    network = network_of(record)
    class_name, state = _module(network)
    kwargs = _arguments(state.get("_init_kwargs", {}), 0, values)
    positional = state.get("_init_args", ())
    if not isinstance(positional, tuple) or len(positional) > len(GENERATOR_ARGUMENTS):
        raise FileRefused(
            f"its {shown(class_name)} was built with positional arguments of unknown names"
        )
    named = dict(zip(GENERATOR_ARGUMENTS, positional, strict=False))
    tensors: list[tuple[str, Tensor]] = []
    fields: dict[str, dict[str, object]] = {}
    for prefix, module in _modules(network, "", 0, values):
        tensors += _tensors(module, prefix, values)
        fields[prefix.removesuffix(".")] = _fields(module, values)
    arguments = {**_text_keys(kwargs), **_text_keys(_arguments(named, 0, values))}
    return PickledNetwork(class_name, arguments, _named(tensors), fields)


def network_of(record: object) -> object:
    """The record of the generator in the content of a file, or the content itself."""
    if isinstance(record, RecordedCall) and record.name == "collections.OrderedDict":
        record = record.items
    if isinstance(record, dict):
        for key in NETWORKS:
            if key in record:
                return record[key]
    return record


def is_module(record: object) -> bool:
    """Whether a record is a pickled torch module, of any class."""
    return _class_and_state(record) is not None


def tensors_of_module(record: object, values: Values) -> dict[str, Tensor]:
    """The state dict of a pickled module. Raises FileRefused."""
    modules = _modules(record, "", 0, values)
    return _named(pair for prefix, state in modules for pair in _tensors(state, prefix, values))


def is_tensorflow(record: object) -> bool:
    """Whether the content of a pickle is one or more TensorFlow networks."""
    first = record[0] if isinstance(record, tuple | list) and record else record
    return isinstance(first, RecordedCall) and first.name == TENSORFLOW_NETWORK


def tensorflow_network_from_record(record: object, values: Values) -> TensorFlowNetwork:
    """Gs, the generator's moving average, of a TensorFlow pickle. Raises FileRefused."""
    if isinstance(record, tuple | list):
        if len(record) != 3:
            raise FileRefused(f"it holds {len(record)} TensorFlow networks, not the three G, D, Gs")
        record = record[2]
    kwargs = _text_keys(values.mapping(_tensorflow_state(record).get("static_kwargs")))
    return TensorFlowNetwork(kwargs, _named(_variables(record, "", 0, values)))


def _class_and_state(record: object) -> tuple[object, dict[Key, object]] | None:
    """Class name and fields of a pickled module; None for anything else."""
    if not isinstance(record, RecordedCall):
        return None
    name: object = record.name
    state = record.state
    if name == PERSISTENT_OBJECT:
        meta = record.args[0] if record.args else None
        if not isinstance(meta, dict) or meta.get("type") != "class":
            return None
        name, state = meta.get("class_name"), meta.get("state")
    return (name, state) if isinstance(state, dict) and "_modules" in state else None


def _module(record: object) -> tuple[str, dict[Key, object]]:
    """Class name and fields of a pickled module. Raises FileRefused for anything else."""
    found = _class_and_state(record)
    if found is None:
        what = shown(record.name) if isinstance(record, RecordedCall) else type(record).__name__
        raise FileRefused(
            f"it has no network of NVIDIA's code under G_ema, or a broken one (it has {what} "
            "there; nothing was run)"
        )
    return _name(found[0]), found[1]


def _arguments(record: object, depth: int, values: Values) -> dict[Key, object]:
    """Arguments of a constructor: plain data, nested mappings as dicts, OtherValue for the rest."""
    values.budget.spend_value(depth)
    if isinstance(record, RecordedCall) and record.name in MAPPINGS:
        record = values.records(record)
    if not isinstance(record, dict):
        raise FileRefused("it has keyword arguments that are no mapping")
    arguments: dict[Key, object] = {}
    for key, item in record.items():
        nested = isinstance(item, dict) or (
            isinstance(item, RecordedCall) and item.name in MAPPINGS
        )
        try:
            arguments[key] = (
                _arguments(item, depth + 1, values) if nested else values.value(item, depth + 1)
            )
        except FileRefused:
            arguments[key] = OtherValue(getattr(item, "name", type(item).__name__))
    return arguments


def _modules(
    record: object, prefix: str, depth: int, values: Values
) -> Iterator[tuple[str, dict[Key, object]]]:
    """The state of a module and of its submodules, with the prefix of their tensors' names."""
    values.budget.spend_value(depth)
    class_name, state = _module(record)
    modules = _items(state.get("_modules"), values)
    family = family_of(_inner_names(prefix, modules, values))
    if family:
        raise FileRefused(
            f"it is {family}; generators of StyleGAN1, StyleGAN2, StyleGAN2-ADA and StyleGAN3 are "
            "supported"
        )
    for hooks in HOOKS:
        hooked = state.get(hooks)
        if hooked.items if isinstance(hooked, RecordedCall) else hooked:
            raise FileRefused(
                f"its {shown(prefix + class_name)} has {hooks}, code that changes what the module "
                "computes; remove the hooks and save it again"
            )
    yield prefix, state
    for name, module in modules.items():
        if module is not None:
            yield from _modules(module, f"{prefix}{name}.", depth + 1, values)


def _inner_names(prefix: str, modules: dict[str, object], values: Values) -> list[str]:
    """Names of submodules, and of theirs: a family may show in the last of them."""
    names = [prefix + name for name in modules]
    for name, module in modules.items():
        found = _class_and_state(module)
        inner = {} if found is None else _items(found[1].get("_modules"), values)
        names += [f"{prefix}{name}.{key}" for key in inner]
    return names


def _tensors(state: dict[Key, object], prefix: str, values: Values) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of one module."""
    for kind in ("_parameters", "_buffers"):
        for name, item in _items(state.get(kind), values).items():
            if item is not None:
                yield prefix + name, _tensor(values.value(item), prefix + name)


def _fields(state: dict[Key, object], values: Values) -> dict[str, object]:
    """Attributes of one module, without those that begin with an underscore."""
    names = [name for name in state if isinstance(name, str) and not name.startswith("_")]
    values.budget.spend_value(0, len(names))
    return {_name(name): _field(state[name], values) for name in names}


def _field(record: object, values: Values) -> object:
    if record is None or isinstance(record, bool | int | float | str):
        return record
    if isinstance(record, list | tuple) and len(record) <= MAX_ITEMS:
        values.budget.spend_value(0, len(record))
        if all(isinstance(item, bool | int | float | str) for item in record):
            return tuple(record)
    if isinstance(record, RecordedCall):
        if record.name in ARRAYS:
            return _items_of_array(record, values)
        return values.value(record) if record.name == NUMPY_SCALAR else OtherValue(record.name)
    return OtherValue(type(record).__name__)


def _items_of_array(record: RecordedCall, values: Values) -> object:
    """The numbers of a short array of one axis as a tuple, OtherValue for any other array."""
    try:
        array = values.value(record)
    except FileRefused:
        return OtherValue(record.name)
    if isinstance(array, Tensor) and array.ndim == 1 and len(array) <= MAX_ITEMS:
        return tuple(array.tolist())
    return OtherValue(record.name)


def _tensorflow_state(record: object) -> dict[Key, object]:
    if isinstance(record, RecordedCall) and record.name == TENSORFLOW_NETWORK:
        state = record.state
        if isinstance(state, dict):
            return state
    raise FileRefused("it has a value of another kind where a TensorFlow network belongs")


def _variables(
    record: object, prefix: str, depth: int, values: Values
) -> Iterator[tuple[str, Tensor]]:
    """Variables of a network and of its components, with their names."""
    values.budget.spend_value(depth)
    state = _tensorflow_state(record)
    variables = values.value(state.get("variables"))
    if not isinstance(variables, list):
        raise FileRefused("it has a TensorFlow network without variables")
    for pair in variables:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise FileRefused("it has a TensorFlow variable without name and value")
        name = prefix + _name(pair[0])
        yield name, _tensor(pair[1], name)
    for component in _items(state.get("components", {}), values).values():
        name = _name(_tensorflow_state(component).get("name"))
        yield from _variables(component, f"{prefix}{name}/", depth + 1, values)


def _tensor(value: object, name: str) -> Tensor:
    """A tensor. TensorFlow's scalars are stored as numbers and become float32 tensors."""
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float32)
    if not isinstance(value, Tensor):
        raise FileRefused(f"its {shown(name)} is not a tensor")
    return value


def _named(pairs: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in pairs:
        if name in tensors:
            raise FileRefused(f"it has two tensors named {shown(name)}")
        tensors[_name(name)] = tensor
    return tensors


def _items(record: object, values: Values) -> dict[str, object]:
    """Items of a dict or OrderedDict with names as keys."""
    if (
        isinstance(record, RecordedCall)
        and record.name == "collections.OrderedDict"
        and not record.args
    ):
        record = record.items
    if not isinstance(record, dict):
        raise FileRefused("it has a network without its dict of parts")
    values.budget.spend_value(0, len(record))
    return {_name(name): item for name, item in record.items()}


def _name(record: object) -> str:
    if not isinstance(record, str) or len(record) > MAX_NAME:
        raise FileRefused(
            f"its network has a name that is not text, or longer than {MAX_NAME} characters"
        )
    return record


def _text_keys(mapping: dict[Key, object]) -> dict[str, object]:
    if not all(isinstance(key, str) for key in mapping):
        raise FileRefused("it has keyword arguments without names")
    return {str(key): value for key, value in mapping.items()}
