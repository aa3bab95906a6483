"""Limits on the cost of reading one foreign file, and the error for a file that is not read.

Lengths and counts in a file are claims. Everything that allocates memory spends from the budget
first, so that a hostile file of any form costs a bounded amount of time and memory.
"""

MAX_OPERATIONS = 1 << 18  # pickle opcodes; 1024 px G, D and G_ema of StyleGAN2 take 49,000
MAX_VALUES = 1 << 17  # values in the result; networks and optimizers have thousands
MAX_DEPTH = 64  # nesting of the result, and of modules
MAX_COPIES = 4  # bytes in the result per byte of file: several names may share one storage
MAX_SHOWN = 80  # characters of a file's own text in a message


class FileRefused(Exception):
    """The reason why a file is not read; the message continues "<path>: "."""


class ReadBudget:
    """The remaining budget of one file; all pickles in the file spend from the same one."""

    def __init__(self, file_bytes: int) -> None:
        self.operations = MAX_OPERATIONS
        self.values = MAX_VALUES
        self.bytes = MAX_COPIES * file_bytes

    def spend_operation(self) -> None:
        """Spends one pickle opcode. Raises FileRefused beyond MAX_OPERATIONS."""
        self.operations -= 1
        if self.operations < 0:
            raise FileRefused(f"its pickles have over {MAX_OPERATIONS} opcodes")

    def spend_value(self, depth: int, count: int = 1) -> None:
        """Spends `count` values inside `depth` containers. Raises FileRefused beyond a limit."""
        self.values -= count
        if self.values < 0:
            raise FileRefused(f"its content unfolds to over {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise FileRefused(f"its content is nested over {MAX_DEPTH} levels deep")

    def spend_bytes(self, count: int) -> None:
        """Spends `count` bytes that are copied or read again. Raises FileRefused beyond a limit."""
        self.bytes -= count
        if self.bytes < 0:
            raise FileRefused(f"its data unfolds to over {MAX_COPIES} times the file's size")


def shown(text: str) -> str:
    """A file's own text for a message: one line, printable, at most MAX_SHOWN characters."""
    return ascii(text) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]!a}..."
