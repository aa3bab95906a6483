"""The command `labelmint`: runs a verb of `commands` and turns its end into an exit code.

0 done, 1 failure, 2 usage, 3 the server is unreachable, 4 the server refused, 130 interrupted.
Whatever is expected to go wrong is one line on stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# As grpc's manual says it is; without, grpc writes lines of its own for each failed TLS handshake.
# It looks at this once, while it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from labelmint.cli.exit_codes import INTERRUPTED, code_from_error
from labelmint.errors import LabelmintError, MissingExtra


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line, by default the process's own, and returns its exit code."""
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
            f"the command line needs {error.name}; pip install 'labelmint[cli]'"
        ) from error
    try:
        code = labelmint.main(arguments, prog_name="labelmint", standalone_mode=False)
    except click.Abort:
        return _fail("interrupted", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return int(code or 0)  # what a verb has exited with


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())  # gRPC details may have line breaks
    print(f"labelmint: {line}", file=sys.stderr)
    return code
