"""Keyword arguments and tensors of networks that NVIDIA's code pickled, from pickle records.

- StyleGAN2-ADA (PyTorch): {"G": ..., "D": ..., "G_ema": network, ...}; each module is pickled with
  its Python source, which is not read, and its fields, among them its submodules
- StyleGAN2 (TensorFlow): (G, D, Gs); each network is pickled with its keyword arguments, its own
  variables and its component networks
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from checkpoints.pickle_names import PERSISTENT_OBJECT, TENSORFLOW_NETWORK, TORCH_MODULE
from checkpoints.pickles import Key, RecordedCall
from checkpoints.read_budget import FileRefused, shown
from checkpoints.values import Values

MAX_NAME = 256  # characters of a tensor's name, with its modules
# Parameters of the constructor in order, for networks built with positional arguments.
GENERATOR_ARGUMENTS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
ALIAS_FREE_CLASS = "SynthesisInput"  # first layer of StyleGAN3
ALIAS_FREE_LAYER = re.compile(r"L\d+_\d+_\d+")  # layer name in StyleGAN3: index, size, channels


@dataclass(frozen=True)
class PickledNetwork:
    """A PyTorch network from a StyleGAN2-ADA pickle."""

    class_name: str  # of the network's outermost module
    kwargs: dict[str, object]  # of the constructor; plain data, nested mappings as dicts
    tensors: dict[str, Tensor]  # parameters and buffers by dotted name, in their stored dtype


@dataclass(frozen=True)
class TensorFlowNetwork:
    """A TensorFlow network from a StyleGAN2 pickle."""

    kwargs: dict[str, object]  # static keyword arguments, plain data
    variables: dict[str, Tensor]  # by name; in components, e.g. G_mapping/Dense0/weight


def pickled_network_from_record(record: object, values: Values) -> PickledNetwork:
    """G_ema, the generator's moving average, of a StyleGAN2-ADA pickle. Raises FileRefused."""
    network = record["G_ema"] if isinstance(record, dict) and "G_ema" in record else record
    class_name, state = _module(network)
    kwargs = _text_keys(values.mapping(state.get("_init_kwargs", {})))
    positional = values.value(state.get("_init_args", ()))
    if not isinstance(positional, tuple) or len(positional) > len(GENERATOR_ARGUMENTS):
        raise FileRefused(
            f"its {shown(class_name)} was built with positional arguments of unknown names"
        )
    kwargs.update(zip(GENERATOR_ARGUMENTS, positional, strict=False))
    return PickledNetwork(class_name, kwargs, _named(_tensors(network, "", 0, values)))


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


def _module(record: object) -> tuple[str, dict[Key, object]]:
    """Class name and fields of a pickled module."""
    if isinstance(record, RecordedCall) and record.name == PERSISTENT_OBJECT:
        meta = record.args[0] if record.args else None
        if isinstance(meta, dict) and meta.get("type") == "class":
            name, state = meta.get("class_name"), meta.get("state")
            if isinstance(state, dict):
                return _name(name), state
    elif isinstance(record, RecordedCall) and TORCH_MODULE.fullmatch(record.name):
        name, state = record.name, record.state
        if isinstance(state, dict):
            return name, state
    raise FileRefused("it has no StyleGAN2-ADA network under G_ema, or a broken one")


def _tensors(
    record: object, prefix: str, depth: int, values: Values
) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and its submodules, with their dotted names."""
    values.budget.spend_value(depth)
    class_name, state = _module(record)
    modules = _items(state.get("_modules"), values)
    if class_name == ALIAS_FREE_CLASS or any(map(ALIAS_FREE_LAYER.fullmatch, modules)):
        raise FileRefused(
            "it is StyleGAN3, whose feature maps have margins that no tested label recipe handles; "
            "generators of StyleGAN1, StyleGAN2 and StyleGAN2-ADA are supported"
        )
    for kind in ("_parameters", "_buffers"):
        for name, item in _items(state.get(kind), values).items():
            if item is not None:
                yield prefix + name, _tensor(values.value(item), prefix + name)
    for name, module in modules.items():
        if module is not None:
            yield from _tensors(module, f"{prefix}{name}.", depth + 1, values)


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


def _named(pairs: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
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
