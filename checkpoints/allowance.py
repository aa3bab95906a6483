"""What reading one foreign file may cost, however the file is built; and how it is refused.

Lengths and counts in a file are claims. Everything that allocates asks here first.
"""

MAX_OPERATIONS = 1 << 18  # pickle opcodes; 1024 px G, D and G_ema of StyleGAN2 take 49,000
MAX_VALUES = 1 << 17  # in the tree that is handed out; networks and optimisers have thousands
MAX_DEPTH = 64  # of that tree, and of modules
MAX_COPIES = 4  # bytes handed out per byte of file: some names may share one storage
MAX_SHOWN = 80  # characters of a file's own text in a message


class Refused(Exception):
    """Why a file is not read, in words that follow its name."""


class Allowance:
    """What one file may still cost; every pickle within it draws on the same."""

    def __init__(self, file_bytes: int) -> None:
        self.operations = MAX_OPERATIONS
        self.values = MAX_VALUES
        self.bytes = MAX_COPIES * file_bytes

    def spend_operation(self) -> None:
        """One opcode is obeyed."""
        self.operations -= 1
        if self.operations < 0:
            raise Refused(f"its pickles have over {MAX_OPERATIONS} opcodes")

    def spend_value(self, depth: int, count: int = 1) -> None:
        """Values are handed out, `depth` containers down."""
        self.values -= count
        if self.values < 0:
            raise Refused(f"its content unfolds to over {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise Refused(f"its content is nested over {MAX_DEPTH} deep")

    def spend_bytes(self, count: int) -> None:
        """So many bytes are copied out of the file, or gone through a second time."""
        self.bytes -= count
        if self.bytes < 0:
            raise Refused(f"its data unfolds to over {MAX_COPIES} times the file's size")


def shown(text: str) -> str:
    """A file's own text for a message: one line, printable, not too long."""
    return ascii(text) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]!a}..."
