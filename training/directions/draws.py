"""Raw indices of a bundle -> generated samples for a fit: their w, and the content of their labels.

Content is saved beside the bundle as it is computed. A command that is interrupted and given again
draws the same indices, and finds most of them there.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedRandom
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bundle.files import name_file, opened_to_append
from bundle.open import Bundle
from bundle.proposals import Proposal
from checkpoints import signals_held
from engines.content import ContentPredicate, content_columns
from engines.masks import MaskEngine
from engines.open import EngineOptions, open_engine, open_mapping
from engines.proposal import screened
from engines.sampling import (
    LatentOptions,
    check_options,
    default_options,
    w_from_indices,
    ws_from_indices,
)
from training.errors import TrainingError

BLOCK = 1024  # indices whose coins are drawn at once
MAX_SAVED_BYTES = 256 << 20  # that are read of saved samples; the file may be another's
Floats = NDArray[np.float32]


class DrawSettings(Protocol):
    """Settings that decide it; None: the bundle's default."""

    @property
    def seed(self) -> int: ...

    @property
    def psi(self) -> float | None: ...

    @property
    def cutoff(self) -> int | None: ...

    @property
    def class_index(self) -> int | None: ...


def options_of_fit(bundle: Bundle, settings: DrawSettings) -> LatentOptions:
    """Options of the samples. Raises SamplingError."""
    defaults = default_options(bundle.manifest.generator, settings.seed)
    options = replace(
        defaults,
        truncation_psi=defaults.truncation_psi if settings.psi is None else settings.psi,
        truncation_cutoff=(
            defaults.truncation_cutoff if settings.cutoff is None else settings.cutoff
        ),
        class_index=settings.class_index,
    )
    check_options(bundle.manifest.generator, options, bundle.views)
    return options


@dataclass(frozen=True, eq=False)
class Draw:
    """Generated samples: all of a range of raw indices, or those that a proposal chose there."""

    proposal: Proposal | None  # None: all of them
    examined: int  # number of raw indices
    w: Floats  # [n, w_dim], untruncated
    content: Floats  # [n, S], see engines.content
    met: NDArray[np.bool_]  # [n], whether each meets the predicate


class Sampler:
    """Draws samples of one bundle with one set of options, each raw index once."""

    def __init__(
        self,
        bundle: Bundle,
        options: LatentOptions,
        predicate: ContentPredicate,
        engine: EngineOptions,
        saved: "SavedContent",
    ) -> None:
        """Opens engine and mapping network. Raises EngineError, BundleError."""
        self._bundle, self._options, self._predicate = bundle, options, predicate
        self._generator = bundle.manifest.generator
        self._mapping = open_mapping(bundle, engine)
        self._measured, self._batch = _opened_measure(bundle, predicate, engine)
        self._saved, self._next = saved, 0

    def draw(self, count: int, proposal: Proposal | None, progress: "tqdm[Any]") -> Draw:
        """The next `count` generated samples. Raises EngineError, OSError, Interrupted."""
        if proposal is None:
            indices = np.arange(self._next, self._next + count, dtype=np.uint64)
            examined = count
        else:
            indices, examined = self._chosen(count, proposal)
        self._next += examined
        w = w_from_indices(self._mapping, self._generator, self._options, indices)
        content = self._content(indices, progress)
        return Draw(proposal, examined, w, content, self._predicate.met(content))

    def _chosen(self, count: int, proposal: Proposal) -> tuple[NDArray[np.uint64], int]:
        """The next `count` indices that the proposal chooses, and how many were examined."""
        parts, found, start = list[NDArray[np.uint64]](), 0, self._next
        while found < count:
            block = np.arange(start, start + BLOCK, dtype=np.uint64)
            result = screened(self._mapping, self._generator, self._options, proposal, block)
            parts.append(block[result.chosen])
            found, start = found + len(parts[-1]), start + BLOCK
        indices = np.concatenate(parts)[:count]
        return indices, int(indices[-1]) + 1 - self._next

    def _content(self, indices: NDArray[np.uint64], progress: "tqdm[Any]") -> Floats:
        """Content of samples [n, S], computed or saved before."""
        content = np.empty((len(indices), self._saved.columns), np.float32)
        new = [row for row, i in enumerate(indices.tolist()) if i not in self._saved.rows]
        batch = self._batch
        progress.update(len(indices) - len(new))
        with signals_held() as held:
            for start in range(0, len(new), batch):
                rows = indices[new[start : start + batch]]
                ws = ws_from_indices(
                    self._mapping, self._generator, self._options, rows, None, self._bundle.views
                )
                self._saved.append(rows, self._measured(ws))
                progress.update(len(ws))
                held.end(self._saved.text())
        for row, index in enumerate(indices.tolist()):
            content[row] = self._saved.rows[index]
        return content


def compares_shares_alone(predicate: ContentPredicate) -> bool:
    """Whether masks are all that the predicate needs of a sample."""
    return all(statistic.kind == "share" for statistic in predicate.columns)


def _opened_measure(
    bundle: Bundle, predicate: ContentPredicate, options: EngineOptions
) -> tuple[Callable[[Floats], Floats], int]:
    """A function from rows of w+ to content [n, S], and its batch size. For shares it runs the part
    of the graph that makes masks, and all other statistics are 0. Raises EngineError, BundleError.
    """
    columns = content_columns(bundle.manifest)
    if compares_shares_alone(predicate):
        masks = MaskEngine(bundle, options)
        shares = [n for n, statistic in enumerate(columns) if statistic.kind == "share"]

        def of_masks(ws: Floats) -> Floats:
            content = np.zeros((len(ws), len(columns)), np.float32)
            for row, mask in zip(content, masks.run(ws), strict=True):
                row[shares] = np.bincount(mask.ravel(), minlength=len(shares))
            return content

        return of_masks, masks.batch_sizes[-1]
    engine = open_engine(bundle, options)

    def of_all(ws: Floats) -> Floats:
        result = engine.run(ws, np.full(len(ws), np.inf, np.float32), ())
        assert result.content is not None  # the predicate needs it
        return result.content

    return of_all, engine.batch_sizes[-1]


class SavedContent:
    """Content by raw index, in a file that further samples are appended to."""

    def __init__(self, file: BufferedRandom, columns: int) -> None:
        self.columns, self._file = columns, file
        self._record = np.dtype([("index", "<u8"), ("content", "<f4", (columns,))])
        known = os.fstat(file.fileno()).st_size
        data = file.read(min(known, MAX_SAVED_BYTES))
        size = len(data) - len(data) % self._record.itemsize  # a kill may have cut the last one
        records = np.frombuffer(data[:size], self._record)
        self.rows = dict(zip(records["index"].tolist(), records["content"], strict=True))
        file.truncate(size)
        file.seek(size)

    def append(self, indices: NDArray[np.uint64], content: Floats) -> None:
        """Adds samples, on the disk too. Raises OSError."""
        records = np.empty(len(indices), self._record)
        records["index"], records["content"] = indices, content
        self._file.write(records.tobytes())
        self._file.flush()
        self.rows |= dict(zip(indices.tolist(), content, strict=True))

    def text(self) -> str:
        """What an interrupted fit says."""
        return (
            f"{len(self.rows)} samples are saved in {self._file.name}; the same command goes on "
            "from there"
        )


@contextmanager
def opened_saved_content(bundle: Bundle, identity: str, columns: int) -> Iterator[SavedContent]:
    """Locks and reads the file of saved content beside the bundle.

    It is removed if the block succeeds, or is refused, and stays after an interruption.

    identity: names what the samples depend on besides the bundle. columns: numbers of a sample.
    Raises TrainingError if another process has the lock, OSError.
    """
    digest = hashlib.sha256(f"{bundle.manifest.bundle_id} {identity}".encode()).hexdigest()[:16]
    folder = bundle.path.resolve()
    path = folder.with_name(f".{folder.name}.{digest}.content")
    try:
        with opened_to_append(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainingError(
                    f"{bundle.path} is sampled for such a fit by another process; wait for it"
                ) from None
            file.seek(0)
            useful = False
            try:
                yield SavedContent(file, columns)
            except BaseException as error:
                refused = isinstance(error, Exception) and not isinstance(error, OSError)
                useful = not refused and os.fstat(file.fileno()).st_size > 0
                raise
            finally:
                if not useful:
                    path.unlink(missing_ok=True)
    except OSError as error:  # a full disk, or a folder that cannot be written to
        name_file(error, path)
        raise
