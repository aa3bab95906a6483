"""Works in forks of a process that has imported what they need: torch alone takes seconds."""

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack


def forked(works: Iterable[Callable[[], object]]) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each work. All run at once.

    A fork ends as a process of its own would, so this process must not have used grpc.
    """
    gc.freeze()  # the forks neither search nor copy what was imported
    with ExitStack() as open_files:
        running = []
        for work in works:
            files = [open_files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
            child = os.fork()
            if child == 0:
                for file, number in zip(files, (1, 2), strict=True):
                    os.dup2(file.fileno(), number)
                work()
                sys.exit()
            running.append((child, files))
        ended = []
        for child, files in running:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            for file in files:
                file.seek(0)
            out, err = (file.read() for file in files)
            ended.append((code, out, err))
        return ended
