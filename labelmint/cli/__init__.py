"""The command `labelmint`: runs a subcommand of `commands` and returns its exit code.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 the server is unreachable, 4 the server refused
the request, 5 a folder cannot take this download, 130 interrupted. An expected error is one line on
stderr, without a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Without this, grpc writes lines of its own to stderr for each failed TLS handshake. grpc reads the
# variable once, while it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from labelmint.cli.exit_codes import INTERRUPTED, code_from_error
from labelmint.errors import LabelmintError, MissingExtra, printable_from_text
from labelmint.extras import install_from_extra


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        arguments: words after the program's name. None: those of this process.
    """
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except (LabelmintError, OSError) as error:
        return _fail(str(error), code_from_error(error))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        import click

        from labelmint.cli.commands import labelmint
    except ImportError as error:
        raise MissingExtra(
            f"the command line needs {error.name}: {install_from_extra('cli')}"
        ) from error
    try:
        code = labelmint.main(arguments, prog_name="labelmint", standalone_mode=False)
    except click.Abort as abort:  # click makes it of KeyboardInterrupt
        return _fail(": ".join(["interrupted", *getattr(abort.__cause__, "args", ())]), INTERRUPTED)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return int(code or 0)  # of context.exit in a subcommand


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"labelmint: {printable_from_text(line)}", file=sys.stderr)
    return code
