"""Pickled networks of NVIDIA's code to plain data, from their records; their source is not read.

- StyleGAN2-ADA (PyTorch): {"G": .., "D": .., "G_ema": network, ..}, each module pickled with its
  source and the fields of the object, the modules below it among them
- StyleGAN2 (TensorFlow): (G, D, Gs), each with its keyword arguments, its own variables and the
  networks it is composed of
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from checkpoints.allowance import Refused, shown
from checkpoints.names import PERSISTENT_OBJECT, TENSORFLOW_NETWORK, TORCH_MODULE
from checkpoints.pickles import Call, Key
from checkpoints.values import Values

MAX_NAME = 256  # characters of a tensor's name, with the modules it lies in
# In the order of the constructor, for networks made with positional arguments.
GENERATOR_ARGUMENTS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
ALIAS_FREE_CLASS = "SynthesisInput"  # only StyleGAN3 begins with one
ALIAS_FREE_LAYER = re.compile(r"L\d+_\d+_\d+")  # index, extent, channels


@dataclass(frozen=True)
class PickledNetwork:
    """A PyTorch network out of a StyleGAN2-ADA pickle."""

    class_name: str  # of the outermost object
    kwargs: dict[str, object]  # init keyword arguments, plain data, nested mappings as dicts
    tensors: dict[str, Tensor]  # parameters and buffers by dotted name, as stored


@dataclass(frozen=True)
class TensorFlowNetwork:
    """A TensorFlow network out of a StyleGAN2 pickle."""

    kwargs: dict[str, object]  # static keyword arguments, plain data
    variables: dict[str, Tensor]  # by name; those of components as G_mapping/Dense0/weight


def pickled_network_from_record(record: object, values: Values) -> PickledNetwork:
    """The generator's moving average of a StyleGAN2-ADA pickle. Raises Refused."""
    network = record["G_ema"] if isinstance(record, dict) and "G_ema" in record else record
    class_name, state = _module(network)
    kwargs = _text_keys(values.mapping(state.get("_init_kwargs", {})))
    positional = values.value(state.get("_init_args", ()))
    if not isinstance(positional, tuple) or len(positional) > len(GENERATOR_ARGUMENTS):
        raise Refused(f"its {shown(class_name)} was made with arguments that have no known name")
    kwargs.update(zip(GENERATOR_ARGUMENTS, positional, strict=False))
    return PickledNetwork(class_name, kwargs, _named(_tensors(network, "", 0, values)))


def is_tensorflow(record: object) -> bool:
    """Whether the content of a pickle is networks of TensorFlow."""
    first = record[0] if isinstance(record, tuple | list) and record else record
    return isinstance(first, Call) and first.name == TENSORFLOW_NETWORK


def tensorflow_network_from_record(record: object, values: Values) -> TensorFlowNetwork:
    """The generator's moving average, Gs, of a TensorFlow pickle. Raises Refused."""
    if isinstance(record, tuple | list):
        if len(record) != 3:
            raise Refused(f"it holds {len(record)} TensorFlow networks, not the three G, D, Gs")
        record = record[2]
    kwargs = _text_keys(values.mapping(_tensorflow_state(record).get("static_kwargs")))
    return TensorFlowNetwork(kwargs, _named(_variables(record, "", 0, values)))


def _module(record: object) -> tuple[str, dict[Key, object]]:
    """Class name and fields of a pickled module."""
    if isinstance(record, Call) and record.name == PERSISTENT_OBJECT:
        meta = record.args[0] if record.args else None
        if isinstance(meta, dict) and meta.get("type") == "class":
            name, state = meta.get("class_name"), meta.get("state")
            if isinstance(state, dict):
                return _name(name), state
    elif isinstance(record, Call) and TORCH_MODULE.fullmatch(record.name):
        name, state = record.name, record.state
        if isinstance(state, dict):
            return name, state
    raise Refused("it has no network of StyleGAN2-ADA's kind under G_ema, or a broken one")


def _tensors(
    record: object, prefix: str, depth: int, values: Values
) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of those below it."""
    values.allowance.spend_value(depth)
    class_name, state = _module(record)
    modules = _items(state.get("_modules"), values)
    if class_name == ALIAS_FREE_CLASS or any(map(ALIAS_FREE_LAYER.fullmatch, modules)):
        raise Refused(
            "it is StyleGAN3, whose feature maps carry margins that no tested label recipe knows; "
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
    if isinstance(record, Call) and record.name == TENSORFLOW_NETWORK:
        state = record.state
        if isinstance(state, dict):
            return state
    raise Refused("it has something else where a TensorFlow network belongs")


def _variables(
    record: object, prefix: str, depth: int, values: Values
) -> Iterator[tuple[str, Tensor]]:
    """A network's own variables, then those of its components under their names."""
    values.allowance.spend_value(depth)
    state = _tensorflow_state(record)
    variables = values.value(state.get("variables"))
    if not isinstance(variables, list):
        raise Refused("it has a TensorFlow network without variables")
    for pair in variables:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise Refused("it has a TensorFlow variable without name and value")
        name = prefix + _name(pair[0])
        yield name, _tensor(pair[1], name)
    for component in _items(state.get("components", {}), values).values():
        name = _name(_tensorflow_state(component).get("name"))
        yield from _variables(component, f"{prefix}{name}/", depth + 1, values)


def _tensor(value: object, name: str) -> Tensor:
    """A tensor; numpy's scalars, which is how TensorFlow's are stored, become one."""
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float32)
    if not isinstance(value, Tensor):
        raise Refused(f"its {shown(name)} is no tensor")
    return value


def _named(pairs: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in pairs:
        if name in tensors:
            raise Refused(f"it has two tensors named {shown(name)}")
        tensors[_name(name)] = tensor
    return tensors


def _items(record: object, values: Values) -> dict[str, object]:
    """The records of a module's dict or OrderedDict by name."""
    if isinstance(record, Call) and record.name == "collections.OrderedDict" and not record.args:
        record = record.items
    if not isinstance(record, dict):
        raise Refused("it has a network without its parts")
    values.allowance.spend_value(0, len(record))
    return {_name(name): item for name, item in record.items()}


def _name(record: object) -> str:
    if not isinstance(record, str) or len(record) > MAX_NAME:
        raise Refused(f"its network has a name that is no text, or too long (over {MAX_NAME})")
    return record


def _text_keys(mapping: dict[Key, object]) -> dict[str, object]:
    if not all(isinstance(key, str) for key in mapping):
        raise Refused("it has keyword arguments without names")
    return {str(key): value for key, value in mapping.items()}
