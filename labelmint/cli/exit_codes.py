"""Exit codes of the command `labelmint`, and which error ends it with which code.

0 success, 1 failure, 2 wrong usage, 3 server unreachable, 4 request refused,
5 a data set's folder is another download's or damaged, 130 interrupted.
"""

from labelmint.errors import Refused, TimedOut, Unreachable, WrongFolder

FAILURE, USAGE, UNREACHABLE, REFUSED, WRONG_FOLDER, INTERRUPTED = 1, 2, 3, 4, 5, 130


def code_from_error(error: Exception) -> int:
    """Exit code of a command that ended with this error."""
    if isinstance(error, (Unreachable, TimedOut)):
        return UNREACHABLE
    if isinstance(error, Refused):
        return REFUSED
    return WRONG_FOLDER if isinstance(error, WrongFolder) else FAILURE
