"""Plain values from the records of a pickle: a tree of builtins and tensors.

Calls that make data (OrderedDict, tensors, numpy arrays) are replaced by the functions in CALLS;
calls that make networks belong to checkpoints.networks. A value that the pickle shares is copied
for each use, within the budget.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from checkpoints.pickle_names import GlobalName
from checkpoints.pickles import Key, PersistentId, RecordedCall, key_from_record
from checkpoints.read_budget import FileRefused, ReadBudget, shown
from checkpoints.tensors import MAX_AXES, Storage, tensor_from_array, tensor_from_storage
from checkpoints.torch_files import archive_from_legacy

T = TypeVar("T")


class Values:
    """Converts the records of one file to values."""

    def __init__(
        self, budget: ReadBudget, storage_of: Callable[[PersistentId], Storage] | None = None
    ) -> None:
        self.budget = budget
        self.storage_of = storage_of  # None: a file without persistent ids

    def value(self, record: object, depth: int = 0) -> object:
        """The value of a record inside `depth` containers. Raises FileRefused."""
        self.budget.spend_value(depth)
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
            self.budget.spend_value(depth, len(record))
            return set(record)
        if isinstance(record, memoryview):
            self.budget.spend_bytes(len(record))
            return bytes(record)
        if isinstance(record, GlobalName):
            return record.dotted
        if isinstance(record, RecordedCall) and record.name in CALLS:
            return CALLS[record.name](self, record, below)
        what = shown(record.name) if isinstance(record, RecordedCall) else "a storage"
        raise FileRefused(f"its pickle has {what} where plain data belongs; nothing was run")

    def records(self, call: RecordedCall) -> dict[Key, object]:
        """Records by key of a call of MAPPINGS, unconverted."""
        if call.name == NAMESPACE:
            return _checked({} if call.state is None else call.state, dict)
        mapping: dict[Key, object] = {}
        for pair in _checked(call.args[0], list) if call.args else []:
            key, value = _fields(pair, 2)
            mapping[key_from_record(key)] = value
        return mapping | call.items

    def mapping(self, record: object, depth: int = 0) -> dict[Key, object]:
        """As `value`, for a record that must be a mapping."""
        return _checked(self.value(record, depth), dict)

    def tensor(self, call: RecordedCall) -> Tensor:
        """_rebuild_tensor(storage, offset, shape, strides) and _rebuild_tensor_v2(same, ...)."""
        if len(call.args) < 4:
            raise FileRefused("its pickle has a tensor without storage, offset, shape and strides")
        storage, offset, shape, strides = call.args[:4]
        return tensor_from_storage(
            self.storage(storage),
            _integers((offset,))[0],
            _integers(shape),
            _integers(strides),
            self.budget,
        )

    def storage(self, record: object) -> Storage:
        """A storage of this file, or of a legacy torch file inside the pickle (NVIDIA's code)."""
        if isinstance(record, PersistentId) and self.storage_of is not None:
            return self.storage_of(record)
        if isinstance(record, RecordedCall) and record.name == "torch.storage._load_from_bytes":
            data = _checked(record.args[0] if record.args else None, memoryview)
            self.budget.spend_bytes(len(data))
            archive = archive_from_legacy(data, self.budget)
            if isinstance(archive.record, PersistentId):
                return archive.storage(archive.record)
        raise FileRefused("its pickle has a tensor on something that is not a storage")

    def array(self, data: object, dtype: object, shape: object, fortran: bool) -> Tensor:
        """A numpy array; `data` may be a call of _codecs.encode, as protocol 2 writes bytes."""
        if isinstance(data, RecordedCall):
            data = memoryview(_checked(self.value(data), bytes))
        spelled = self.numpy_dtype(dtype)
        return tensor_from_array(
            _checked(data, memoryview), spelled, _integers(shape), fortran, self.budget
        )

    def numpy_dtype(self, record: object) -> str:
        """numpy's text of a dtype: "<f4" of dtype("f4", False, True), state (3, "<", None, ...)."""
        if not isinstance(record, RecordedCall) or record.name != "numpy.dtype" or not record.args:
            raise FileRefused("its pickle has an array without a dtype")
        state = record.state
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        return _checked(order, str) + _checked(record.args[0], str)


def _mapping(values: Values, call: RecordedCall, depth: int) -> object:
    """OrderedDict, EasyDict and Namespace."""
    return values.mapping(values.records(call), depth)


def _set(values: Values, call: RecordedCall, depth: int) -> object:
    items = _checked(call.args[0], list) if call.args else []
    values.budget.spend_value(depth, len(items))
    return {key_from_record(item) for item in items}


def _size(values: Values, call: RecordedCall, depth: int) -> object:
    return _integers(_fields(call.args, 1)[0])


def _device(values: Values, call: RecordedCall, depth: int) -> object:
    return values.value(call.args, depth)


def _encoded(values: Values, call: RecordedCall, depth: int) -> object:
    """encode(text, coding): bytes in protocol 2."""
    text, coding = _fields(call.args, 2)
    values.budget.spend_bytes(len(_checked(text, str)))
    try:
        return _checked(text, str).encode("latin1" if coding == "latin1" else "ascii")
    except UnicodeEncodeError as error:
        raise FileRefused("its pickle has bytes as text that cannot be encoded") from error


def _parameter(values: Values, call: RecordedCall, depth: int) -> Tensor:
    """_rebuild_parameter(tensor, requires_grad, hooks)."""
    return _checked(values.value(call.args[0] if call.args else None, depth), Tensor)


def _tensor(values: Values, call: RecordedCall, depth: int) -> Tensor:
    return values.tensor(call)


def _array(values: Values, call: RecordedCall, depth: int) -> Tensor:
    """_reconstruct(ndarray, (0,), b"b") with state (1, shape, dtype, fortran, data)."""
    _, shape, dtype, fortran, data = _fields(call.state, 5)
    return values.array(data, dtype, shape, bool(_checked(fortran, int)))


def _array_of_buffer(values: Values, call: RecordedCall, depth: int) -> Tensor:
    """_frombuffer(data, dtype, shape, "C" or "F"), an array in protocol 5."""
    data, dtype, shape, order = _fields(call.args, 4)
    return values.array(data, dtype, shape, order == "F")


def _scalar(values: Values, call: RecordedCall, depth: int) -> object:
    """scalar(dtype, data): a Python number."""
    dtype, data = _fields(call.args, 2)
    number: object = values.array(data, dtype, (), False).item()
    return number


def _checked(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        name = type(value).__name__
        raise FileRefused(f"its pickle has {name} where {kind.__name__} belongs")
    return value


def _fields(record: object, count: int) -> tuple[object, ...]:
    fields = _checked(record, tuple)
    if len(fields) != count:
        raise FileRefused(f"its pickle has {len(fields)} fields where {count} belong")
    return fields


def _integers(record: object) -> tuple[int, ...]:
    """A tuple of integers such as a shape, or a torch.Size."""
    if isinstance(record, RecordedCall) and record.name == "torch.Size" and len(record.args) == 1:
        record = record.args[0]
    numbers = _checked(record, tuple)
    if len(numbers) > MAX_AXES:
        raise FileRefused(f"its pickle has a shape of {len(numbers)} axes")
    return tuple(_checked(number, int) for number in numbers)


NAMESPACE = "argparse.Namespace"  # its items are its state
# The others have pairs in an argument, or items set one by one.
MAPPINGS = {NAMESPACE, "collections.OrderedDict", "dnnlib.util.EasyDict"}
CALLS: dict[str, Callable[[Values, RecordedCall, int], object]] = {
    **dict.fromkeys(MAPPINGS, _mapping),
    "_codecs.encode": _encoded,
    "builtins.frozenset": _set,
    "builtins.set": _set,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _array_of_buffer,
    "torch.Size": _size,
    "torch.device": _device,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
