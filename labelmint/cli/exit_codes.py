"""Exit codes of the command `labelmint`, and which error ends it with which code.

0 success, 1 failure, 2 wrong usage, 3 server unreachable, 4 request refused, 130 interrupted.
"""

from labelmint.errors import Refused, TimedOut, Unreachable

FAILURE, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130


def code_from_error(error: Exception) -> int:
    """Exit code of a command that ended with this error."""
    if isinstance(error, (Unreachable, TimedOut)):
        return UNREACHABLE
    return REFUSED if isinstance(error, Refused) else FAILURE
