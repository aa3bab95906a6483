"""Pickles to records, with a machine of our own: what a pickle asks for is written down, not done.

In: the bytes of a pickle. Out: builtins, and a `Call` wherever the pickle names something to be
called. No name is ever looked up; one that checkpoints have no use for ends the reading, even
where its result would not matter. The opcodes are those that protocols 2 to 5 write.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from checkpoints.allowance import Allowance, Refused
from checkpoints.names import Name, name_from_parts
from checkpoints.opcodes import opcodes_from_bytes

MAX_INTEGER_BYTES = 64
MAX_KEY = 1 << 60  # integers as keys: over it, thousands can be given one hash

Key = str | int | None


@dataclass(eq=False, slots=True)
class Call:
    """Something the pickle asks to have called, and what it asks to have put into the result."""

    name: str
    args: tuple[object, ...]
    state: object = None
    items: dict[Key, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Persistent:
    """A reference to something outside the pickle: in torch's files, a storage."""

    parts: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Pickle:
    """One pickle, read."""

    record: object
    references: list[Persistent]
    end: int  # first byte after it


def pickle_from_bytes(data: memoryview, start: int, allowance: Allowance) -> Pickle:
    """Reads the pickle that starts at byte `start`. Raises Refused."""
    machine = Machine()
    for name, arguments, end in opcodes_from_bytes(data, start):
        allowance.spend_operation()
        if name == "STOP":
            return Pickle(machine.pop(), machine.references, end)
        machine.obey(name, arguments)
    raise AssertionError("opcodes end with STOP")


class Machine:
    """The stack and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.below: list[list[object]] = []  # stacks under the marks
        self.memo: dict[int, object] = {}
        self.references: list[Persistent] = []

    def obey(self, opcode: str, arguments: list[memoryview]) -> None:
        """One step."""
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
            raise Refused(f"its pickle uses opcode {opcode}, which no checkpoint needs")

    def top(self) -> object:
        """The last value, left in place."""
        if not self.stack:
            raise Refused("its pickle takes a value from an empty stack")
        return self.stack[-1]

    def pop(self) -> object:
        """The last value."""
        value = self.top()
        del self.stack[-1]
        return value

    def pop_tuple(self) -> tuple[object, ...]:
        """The last value, which must be a tuple."""
        value = self.pop()
        if not isinstance(value, tuple):
            raise Refused("its pickle calls something without a tuple of arguments")
        return value

    def pop_marked(self) -> list[object]:
        """All values since the last mark."""
        if not self.below:
            raise Refused("its pickle goes back to a mark it has not set")
        values, self.stack = self.stack, self.below.pop()
        return values

    def mark(self) -> None:
        """What follows goes on a stack of its own."""
        self.below.append(self.stack)
        self.stack = []

    def memoize(self) -> None:
        """The last value gets the next number."""
        self.memo[len(self.memo)] = self.top()

    def recall(self, number: int) -> None:
        """A numbered value again."""
        if number not in self.memo:
            raise Refused(f"its pickle recalls value {number}, which it has not stored")
        self.stack.append(self.memo[number])

    def collect_marked(self) -> None:
        """All values since the last mark become a tuple."""
        values = self.pop_marked()
        self.stack.append(tuple(values))

    def collect(self, count: int) -> None:
        """The last `count` values become a tuple."""
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def extend(self, values: list[object]) -> None:
        """Values go into the list below them."""
        target = self.top()
        if not isinstance(target, list):
            raise Refused("its pickle appends to something that is no list")
        target.extend(values)

    def put(self, values: list[object]) -> None:
        """Keys and values, alternating, go into the mapping below them."""
        target = self.top()
        items = target.items if isinstance(target, Call) else target
        if not isinstance(items, dict) or len(values) % 2:
            raise Refused("its pickle sets items of something that is no mapping")
        for key, value in zip(values[::2], values[1::2], strict=True):
            items[key_from_record(key)] = value

    def add(self, values: list[object]) -> None:
        """Values go into the set below them."""
        target = self.top()
        if not isinstance(target, set):
            raise Refused("its pickle adds to something that is no set")
        target.update(key_from_record(value) for value in values)

    def freeze(self) -> None:
        """All values since the last mark become a frozen set."""
        values = self.pop_marked()
        self.stack.append(frozenset(key_from_record(value) for value in values))

    def name_global(self) -> None:
        """Two strings become a name."""
        name, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("its pickle names something by other than text")
        self.stack.append(name_from_parts(module, name))

    def call(self) -> None:
        """A name and its arguments become a record."""
        args, function = self.pop_tuple(), self.pop()
        if not isinstance(function, Name):
            raise Refused("its pickle calls something that is no name")
        self.stack.append(Call(function.dotted, args))

    def call_with_keywords(self) -> None:
        """As `call`, where nothing may be passed by keyword."""
        if self.pop() != {}:
            raise Refused("its pickle passes arguments by keyword, which no checkpoint needs")
        self.call()

    def build(self) -> None:
        """A state goes into the record below it."""
        state, target = self.pop(), self.top()
        if not isinstance(target, Call) or target.state is not None:
            raise Refused("its pickle sets a state where none belongs")
        target.state = state

    def refer(self) -> None:
        """A tuple becomes a reference to a storage."""
        self.references.append(Persistent(self.pop_tuple()))
        self.stack.append(self.references[-1])


def key_from_record(value: object) -> Key:
    """The record as a key of a mapping. Raises Refused: hashing a tuple could take for ever."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and -MAX_KEY < value < MAX_KEY:
        return value
    raise Refused("its pickle has a key that is neither text nor a small integer")


def _text(argument: memoryview) -> str:
    try:
        return str(argument, "utf-8")
    except UnicodeDecodeError as error:
        raise Refused("its pickle has text that is not UTF-8") from error


def _integer(argument: memoryview) -> int:
    if len(argument) > MAX_INTEGER_BYTES:
        raise Refused(f"its pickle has an integer of {len(argument)} bytes")
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
STEPS: dict[str, Callable[[Machine], None]] = {
    "MARK": Machine.mark,
    "MEMOIZE": Machine.memoize,
    "TUPLE": Machine.collect_marked,
    "TUPLE1": lambda m: m.collect(1),
    "TUPLE2": lambda m: m.collect(2),
    "TUPLE3": lambda m: m.collect(3),
    "APPEND": lambda m: m.extend([m.pop()]),
    "APPENDS": lambda m: m.extend(m.pop_marked()),
    "SETITEM": lambda m: m.put([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m: m.put(m.pop_marked()),
    "ADDITEMS": lambda m: m.add(m.pop_marked()),
    "FROZENSET": Machine.freeze,
    "STACK_GLOBAL": Machine.name_global,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.call,
    "NEWOBJ_EX": Machine.call_with_keywords,
    "BUILD": Machine.build,
    "BINPERSID": Machine.refer,
}
