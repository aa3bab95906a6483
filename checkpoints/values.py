"""Records of a pickle to plain values: a tree of builtins and tensors, and nothing else.

The calls that data is written with are carried out here, by our own functions; those that stand
for networks belong to checkpoints.networks. What a pickle shares is copied, within the allowance.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from checkpoints.allowance import Allowance, Refused, shown
from checkpoints.names import Name
from checkpoints.pickles import Call, Key, Persistent, key_from_record
from checkpoints.tensors import MAX_AXES, Storage, tensor_from_array, tensor_from_storage
from checkpoints.torch_files import archive_from_legacy

T = TypeVar("T")


class Values:
    """Hands out the values of one file."""

    def __init__(
        self, allowance: Allowance, storage_of: Callable[[Persistent], Storage] | None = None
    ) -> None:
        self.allowance = allowance
        self.storage_of = storage_of  # what the pickle's references mean; None: it may have none

    def value(self, record: object, depth: int = 0) -> object:
        """The value of a record that stands `depth` containers down. Raises Refused."""
        self.allowance.spend_value(depth)
        below = depth + 1
        if record is None or isinstance(record, bool | int | float | str):
            return record
        if isinstance(record, dict):
            return {key: self.value(item, below) for key, item in record.items()}
        if isinstance(record, list):
            return [self.value(item, below) for item in record]
        if isinstance(record, tuple):
            return tuple(self.value(item, below) for item in record)
        if isinstance(record, set | frozenset):
            self.allowance.spend_value(depth, len(record))
            return set(record)
        if isinstance(record, memoryview):
            self.allowance.spend_bytes(len(record))
            return bytes(record)
        if isinstance(record, Name):
            return record.dotted
        if isinstance(record, Call) and record.name in CALLS:
            return CALLS[record.name](self, record, below)
        what = shown(record.name) if isinstance(record, Call) else "a storage"
        raise Refused(f"its pickle has {what} where plain data belongs")

    def mapping(self, record: object, depth: int = 0) -> dict[Key, object]:
        """As `value`, of what must be a mapping."""
        return _checked(self.value(record, depth), dict)

    def tensor(self, call: Call) -> Tensor:
        """_rebuild_tensor_v2(storage, offset, shape, strides, ...), and the older one."""
        if len(call.args) < 4:
            raise Refused("its pickle has a tensor without storage, offset, shape and strides")
        storage, offset, shape, strides = call.args[:4]
        return tensor_from_storage(
            self.storage(storage),
            _integers((offset,))[0],
            _integers(shape),
            _integers(strides),
            self.allowance,
        )

    def storage(self, record: object) -> Storage:
        """A storage of this file, or one that lies in the pickle as a file of its own."""
        if isinstance(record, Persistent) and self.storage_of is not None:
            return self.storage_of(record)
        if isinstance(record, Call) and record.name == "torch.storage._load_from_bytes":
            data = _checked(record.args[0] if record.args else None, memoryview)
            self.allowance.spend_bytes(len(data))
            archive = archive_from_legacy(data, self.allowance)
            if isinstance(archive.record, Persistent):
                return archive.storage(archive.record)
        raise Refused("its pickle has a tensor on something that is no storage")

    def array(self, data: object, dtype: object, shape: object, fortran: bool) -> Tensor:
        """An array of numpy's; `data` may be written as text."""
        if isinstance(data, Call):
            data = memoryview(_checked(self.value(data), bytes))
        spelled = self.numpy_dtype(dtype)
        return tensor_from_array(
            _checked(data, memoryview), spelled, _integers(shape), fortran, self.allowance
        )

    def numpy_dtype(self, record: object) -> str:
        """A dtype as in "<f4": dtype("f4", False, True) with state (3, "<", None, ...)."""
        if not isinstance(record, Call) or record.name != "numpy.dtype" or not record.args:
            raise Refused("its pickle has an array without a dtype")
        state = record.state
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        return _checked(order, str) + _checked(record.args[0], str)


def _mapping(values: Values, call: Call, depth: int) -> object:
    """OrderedDict and EasyDict: pairs as an argument, or items set one by one."""
    made: dict[Key, object] = {}
    for pair in _checked(call.args[0], list) if call.args else []:
        key, value = _fields(pair, 2)
        made[key_from_record(key)] = values.value(value, depth)
    return made | values.mapping(call.items, depth)


def _namespace(values: Values, call: Call, depth: int) -> object:
    return values.mapping({} if call.state is None else call.state, depth)


def _set(values: Values, call: Call, depth: int) -> object:
    items = _checked(call.args[0], list) if call.args else []
    values.allowance.spend_value(depth, len(items))
    return {key_from_record(item) for item in items}


def _size(values: Values, call: Call, depth: int) -> object:
    return _integers(_fields(call.args, 1)[0])


def _device(values: Values, call: Call, depth: int) -> object:
    return values.value(call.args, depth)


def _encoded(values: Values, call: Call, depth: int) -> object:
    """Bytes, as protocol 2 writes them."""
    text, coding = _fields(call.args, 2)
    values.allowance.spend_bytes(len(_checked(text, str)))
    try:
        return _checked(text, str).encode("latin1" if coding == "latin1" else "ascii")
    except UnicodeEncodeError as error:
        raise Refused("its pickle writes bytes as text that has none") from error


def _parameter(values: Values, call: Call, depth: int) -> Tensor:
    """_rebuild_parameter(tensor, requires_grad, hooks)."""
    return _checked(values.value(call.args[0] if call.args else None, depth), Tensor)


def _tensor(values: Values, call: Call, depth: int) -> Tensor:
    return values.tensor(call)


def _array(values: Values, call: Call, depth: int) -> Tensor:
    """_reconstruct(ndarray, (0,), b"b") with state (1, shape, dtype, fortran, data)."""
    _, shape, dtype, fortran, data = _fields(call.state, 5)
    return values.array(data, dtype, shape, bool(_checked(fortran, int)))


def _array_of_buffer(values: Values, call: Call, depth: int) -> Tensor:
    """_frombuffer(data, dtype, shape, "C" or "F"), as protocol 5 writes arrays."""
    data, dtype, shape, order = _fields(call.args, 4)
    return values.array(data, dtype, shape, order == "F")


def _scalar(values: Values, call: Call, depth: int) -> object:
    """scalar(dtype, data): a number."""
    dtype, data = _fields(call.args, 2)
    number: object = values.array(data, dtype, (), False).item()
    return number


def _checked(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        name = type(value).__name__
        raise Refused(f"its pickle has {name} where {kind.__name__} belongs")
    return value


def _fields(record: object, count: int) -> tuple[object, ...]:
    fields = _checked(record, tuple)
    if len(fields) != count:
        raise Refused(f"its pickle has {len(fields)} fields where {count} belong")
    return fields


def _integers(record: object) -> tuple[int, ...]:
    """A shape, or the like; a torch.Size may stand for it."""
    if isinstance(record, Call) and record.name == "torch.Size" and len(record.args) == 1:
        record = record.args[0]
    numbers = _checked(record, tuple)
    if len(numbers) > MAX_AXES:
        raise Refused(f"its pickle has a shape of {len(numbers)} axes")
    return tuple(_checked(number, int) for number in numbers)


CALLS: dict[str, Callable[[Values, Call, int], object]] = {
    "_codecs.encode": _encoded,
    "argparse.Namespace": _namespace,
    "builtins.frozenset": _set,
    "builtins.set": _set,
    "collections.OrderedDict": _mapping,
    "dnnlib.util.EasyDict": _mapping,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _array_of_buffer,
    "torch.Size": _size,
    "torch.device": _device,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
