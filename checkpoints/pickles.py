"""Records from pickles: a stack machine that writes down the calls in a pickle and runs none.

In: the bytes of a pickle. Out: builtins, with a `RecordedCall` in place of the result of each call.
No name is ever looked up. Calls of names that checkpoints.pickle_names does not know are recorded
likewise; what they set in their results is dropped where it is no mapping. The
opcodes are those of protocols 2 to 5. The pickle of OrderedDict(a=1), step by step:

    opcode                            stack after it
    GLOBAL "collections OrderedDict"  GlobalName
    EMPTY_TUPLE                       GlobalName, ()
    REDUCE                            RecordedCall(name, args=(), items={})
    BINUNICODE "a"                    RecordedCall, "a"
    BININT1 1                         RecordedCall, "a", 1
    SETITEM                           RecordedCall(name, args=(), items={"a": 1})
    STOP                              the record is the last value
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from checkpoints.opcodes import opcodes_from_bytes
from checkpoints.pickle_names import GlobalName, is_known, name_from_parts
from checkpoints.read_budget import FileRefused, ReadBudget

MAX_INTEGER_BYTES = 64
CALLED_RESULT = "the result of a call"  # stands for the name of a function that a call returns
MAX_KEY = 1 << 60  # integer keys; beyond the modulus 2**61 - 1 of int hashes, many share a hash

Key = str | int | None


@dataclass(eq=False, slots=True)
class RecordedCall:
    """A call that the pickle asks for, and the values that it sets in the result."""

    name: str  # dotted name of the function or class
    args: tuple[object, ...]
    state: object = None  # argument of BUILD: for most classes a dict of fields
    items: dict[Key, object] = field(default_factory=dict)  # set one by one, as in a dict


@dataclass(frozen=True, eq=False, slots=True)
class PersistentId:
    """A persistent id: reference to data outside the pickle. In torch's files, a storage."""

    parts: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Pickle:
    """A pickle that was read."""

    record: object
    references: list[PersistentId]  # in order of appearance
    end: int  # position of the first byte after the pickle


def pickle_from_bytes(data: memoryview, start: int, budget: ReadBudget) -> Pickle:
    """Reads the pickle that starts at byte `start`. Raises FileRefused."""
    machine = PickleMachine()
    for name, arguments, end in opcodes_from_bytes(data, start):
        budget.spend_operation()
        if name == "STOP":
            return Pickle(machine.pop(), machine.references, end)
        machine.obey(name, arguments)
    raise AssertionError("opcodes end with STOP")


class PickleMachine:
    """The stack and the memo of one pickle.

    MARK starts a new stack; the opcodes that take "all values since the last mark" take all of it
    and return to the stack before.
    """

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.outer: list[list[object]] = []  # stacks before each open mark
        self.memo: dict[int, object] = {}
        self.references: list[PersistentId] = []

    def obey(self, opcode: str, arguments: list[memoryview]) -> None:
        """Executes one opcode."""
        if opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode])
        elif opcode in CONTAINERS:
            self.stack.append(CONTAINERS[opcode]())
        elif opcode in DECODERS:
            self.stack.append(DECODERS[opcode](arguments[0]))
        elif opcode in STEPS:
            STEPS[opcode](self)
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[int.from_bytes(arguments[0], "little")] = self.top()
        elif opcode in ("BINGET", "LONG_BINGET"):
            self.recall(int.from_bytes(arguments[0], "little"))
        elif opcode == "GLOBAL":
            self.stack.append(name_from_parts(_text(arguments[0]), _text(arguments[1])))
        elif opcode not in ("PROTO", "FRAME"):
            raise FileRefused(f"its pickle uses opcode {opcode}, which no checkpoint needs")

    def top(self) -> object:
        """The last value, which stays on the stack."""
        if not self.stack:
            raise FileRefused("its pickle takes a value from an empty stack")
        return self.stack[-1]

    def pop(self) -> object:
        """Removes the last value."""
        value = self.top()
        del self.stack[-1]
        return value

    def pop_tuple(self) -> tuple[object, ...]:
        """Removes the last value, which must be a tuple."""
        value = self.pop()
        if not isinstance(value, tuple):
            raise FileRefused("its pickle calls something without a tuple of arguments")
        return value

    def pop_marked(self) -> list[object]:
        """Removes all values since the last mark."""
        if not self.outer:
            raise FileRefused("its pickle returns to a mark it has not set")
        values, self.stack = self.stack, self.outer.pop()
        return values

    def mark(self) -> None:
        """Starts a new stack."""
        self.outer.append(self.stack)
        self.stack = []

    def memoize(self) -> None:
        """Stores the last value in the memo under the next number."""
        self.memo[len(self.memo)] = self.top()

    def recall(self, number: int) -> None:
        """Pushes the value that the memo has under a number."""
        if number not in self.memo:
            raise FileRefused(f"its pickle recalls value {number}, which it has not stored")
        self.stack.append(self.memo[number])

    def collect_marked(self) -> None:
        """Replaces all values since the last mark by a tuple."""
        values = self.pop_marked()
        self.stack.append(tuple(values))

    def collect(self, count: int) -> None:
        """Replaces the last `count` values by a tuple."""
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def extend(self, values: list[object]) -> None:
        """Appends values to the list that is now last on the stack."""
        target = self.top()
        if _is_inert(target):
            return
        if not isinstance(target, list):
            raise FileRefused("its pickle appends to something that is not a list")
        target.extend(values)

    def put(self, values: list[object]) -> None:
        """Sets items, keys and values alternating, of the mapping that is now last on the stack."""
        target = self.top()
        items = target.items if isinstance(target, RecordedCall) else target
        if not isinstance(items, dict) or len(values) % 2:
            raise FileRefused("its pickle sets items of something that is not a mapping")
        for key, value in zip(values[::2], values[1::2], strict=True):
            items[key_from_record(key)] = value

    def add(self, values: list[object]) -> None:
        """Adds values to the set that is now last on the stack."""
        target = self.top()
        if _is_inert(target):
            return
        if not isinstance(target, set):
            raise FileRefused("its pickle adds to something that is not a set")
        target.update(key_from_record(value) for value in values)

    def freeze(self) -> None:
        """Replaces all values since the last mark by a frozenset."""
        values = self.pop_marked()
        self.stack.append(frozenset(key_from_record(value) for value in values))

    def name_global(self) -> None:
        """Replaces two strings, module and name, by a GlobalName."""
        name, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise FileRefused("its pickle has a global name that is not text")
        self.stack.append(name_from_parts(module, name))

    def call(self) -> None:
        """Replaces a name and its arguments by a RecordedCall."""
        args, function = self.pop_tuple(), self.pop()
        if isinstance(function, PersistentId) and function.parts[:1] == ("module",):
            function = function.parts[1] if len(function.parts) > 1 else None  # old torch files
        if isinstance(function, RecordedCall):  # such as getattr, for a class within a class
            function = GlobalName(CALLED_RESULT)
        if not isinstance(function, GlobalName):
            raise FileRefused("its pickle calls something that is not a global name")
        self.stack.append(RecordedCall(function.dotted, args))

    def call_with_keywords(self) -> None:
        """As `call`, with a dict of keyword arguments, which only an inert call may have."""
        keywords = self.pop()
        self.call()
        if keywords != {} and not _is_inert(self.top()):
            raise FileRefused("its pickle passes keyword arguments, which no checkpoint needs")

    def build(self) -> None:
        """Sets the state of the RecordedCall before it on the stack."""
        state, target = self.pop(), self.top()
        if not isinstance(target, RecordedCall) or target.state is not None:
            raise FileRefused("its pickle sets the state of something that is not a new object")
        target.state = state

    def refer(self) -> None:
        """Replaces a tuple by a PersistentId."""
        self.references.append(PersistentId(self.pop_tuple()))
        self.stack.append(self.references[-1])


def _is_inert(value: object) -> bool:
    """Whether a value is the result of a call that is not of data or networks."""
    return isinstance(value, RecordedCall) and not is_known(value.name)


def key_from_record(value: object) -> Key:
    """The record as a key of a mapping: text, a small integer or None.

    Raises FileRefused for other keys: hashing a nested tuple can take exponential time.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and -MAX_KEY < value < MAX_KEY:
        return value
    raise FileRefused("its pickle has a key that is neither text nor a small integer")


def _text(argument: memoryview) -> str:
    try:
        return str(argument, "utf-8")
    except UnicodeDecodeError as error:
        raise FileRefused("its pickle has text that is not UTF-8") from error


def _integer(argument: memoryview) -> int:
    if len(argument) > MAX_INTEGER_BYTES:
        raise FileRefused(f"its pickle has an integer of {len(argument)} bytes")
    return int.from_bytes(argument, "little", signed=True)


def _count(argument: memoryview) -> int:
    return int.from_bytes(argument, "little")


def _float(argument: memoryview) -> float:
    return float(struct.unpack(">d", argument)[0])


def _bytes(argument: memoryview) -> memoryview:
    return argument


CONSTANTS: dict[str, object] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
CONTAINERS: dict[str, Callable[[], object]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
DECODERS: dict[str, Callable[[memoryview], object]] = {
    "BININT": _integer,
    "BININT1": _count,
    "BININT2": _count,
    "LONG1": _integer,
    "LONG4": _integer,
    "BINFLOAT": _float,
    "SHORT_BINUNICODE": _text,
    "BINUNICODE": _text,
    "BINUNICODE8": _text,
    "SHORT_BINBYTES": _bytes,
    "BINBYTES": _bytes,
    "BINBYTES8": _bytes,
    "BYTEARRAY8": _bytes,
}
STEPS: dict[str, Callable[[PickleMachine], None]] = {
    "MARK": PickleMachine.mark,
    "MEMOIZE": PickleMachine.memoize,
    "TUPLE": PickleMachine.collect_marked,
    "TUPLE1": lambda m: m.collect(1),
    "TUPLE2": lambda m: m.collect(2),
    "TUPLE3": lambda m: m.collect(3),
    "APPEND": lambda m: m.extend([m.pop()]),
    "APPENDS": lambda m: m.extend(m.pop_marked()),
    "SETITEM": lambda m: m.put([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m: m.put(m.pop_marked()),
    "ADDITEMS": lambda m: m.add(m.pop_marked()),
    "FROZENSET": PickleMachine.freeze,
    "STACK_GLOBAL": PickleMachine.name_global,
    "REDUCE": PickleMachine.call,
    "NEWOBJ": PickleMachine.call,
    "NEWOBJ_EX": PickleMachine.call_with_keywords,
    "BUILD": PickleMachine.build,
    "BINPERSID": PickleMachine.refer,
}
