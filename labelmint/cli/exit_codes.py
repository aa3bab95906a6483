"""Exit codes of the command `labelmint`: 0 done, 1 failure, 2 usage, 3 unreachable, 4 refused."""

from labelmint.errors import Refused, TimedOut, Unreachable

FAILURE, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130


def code_from_error(error: Exception) -> int:
    """The exit code for what ended a command."""
    if isinstance(error, (Unreachable, TimedOut)):
        return UNREACHABLE
    return REFUSED if isinstance(error, Refused) else FAILURE
