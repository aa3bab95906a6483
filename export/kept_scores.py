"""Scores that a calibration has measured, kept beside the bundle until it ends.

At 1024 px a calibration takes hours on a CPU; one that was killed goes on where it stood.
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError

BYTES = 4  # of a score


class KeptScores:
    """Scores of indices 0 to `len(scores) - 1`, and where those that follow are put."""

    def __init__(self, file: BufferedRandom | None = None) -> None:
        """Without a file nothing is kept."""
        self._file = file
        data = b"" if file is None else file.read()
        whole = len(data) - len(data) % BYTES  # a killed writer may leave a part of one
        self.scores: NDArray[np.float32] = np.frombuffer(data[:whole], "<f4").astype(np.float32)
        if file is not None:
            file.truncate(whole)
            file.seek(whole)

    def append(self, scores: NDArray[np.float32]) -> None:
        """Puts the next ones on the disk."""
        if self._file is not None:
            self._file.write(scores.astype("<f4").tobytes())
            self._file.flush()
            os.fsync(self._file.fileno())


@contextmanager
def kept_scores(bundle: Path, identity: str) -> Iterator[KeptScores]:
    """Those of the same `identity`, which is all that decides them; removed when the block ends
    well. Raises ExportError while another process measures them."""
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = bundle.resolve().with_name(f".{bundle.resolve().name}.{digest}.scores")
    try:
        file = path.open("a+b")
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}); scores are not kept", file=sys.stderr)
        file = None
    if file is None:
        yield KeptScores()
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"{bundle} is being calibrated for these options already") from None
        file.seek(0)
        yield KeptScores(file)
        path.unlink(missing_ok=True)
