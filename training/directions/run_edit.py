"""Settings of `training directions --edit` -> a direction in the bundle: learned, chosen, measured.

A linear fit says which way w has to move. Which rows of w+ are moved, and how much other classes
count in the fit, is chosen by measuring: of all candidates that change the class at least half as
much as the most effective one, that which moves the fewest other pixels for it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bundle.check_learned import learned_name_problem
from bundle.directions import bytes_from_rows
from bundle.manifest import DirectionFacts, FileEntry, GeneratorFacts, Manifest
from bundle.open import Bundle, open_bundle
from bundle.write import add_direction, refuse_known
from engines.masks import Masks
from engines.open import EngineOptions
from engines.sampling import LatentOptions, key_from_options
from labelmint.predicate import near_hint
from training.directions.draws import Floats, opened_saved_content, options_of_fit
from training.directions.learn import move_from_slopes, slopes_of_class
from training.directions.masks import MaskSampler, cells_of_classes
from training.directions.measure import Change, change_of_masks, measured_edit
from training.errors import TrainingError

WEIGHTS = (0.0, 1.0, 10.0, 100.0)  # of other classes in the fit, tried
PART = 16  # of --samples: a sixteenth is what candidates are compared on, and another measured
MOST_CHOOSING, LEAST_MEASURED = 64, 64
STEPS = 3  # measured strengths to either side
EFFECTIVE = 0.5  # of the most effective candidate's change, that the chosen one has at least
LEAST_MOVED = 1e-3  # share of other pixels under which less is no better
MIN_CHANGE = 1e-3  # share of the pixels that the strongest edit has to change the class by


@dataclass(frozen=True)
class EditSettings:
    """What the command was given."""

    bundle: Path
    changes: str
    name: str
    samples: int
    strength: float
    seed: int
    psi: float | None
    cutoff: int | None
    class_index: int | None
    replace_known: bool
    batch: int | None


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A move in some rows of w+."""

    move: NDArray[np.float64]  # [w_dim], untruncated
    first_row: int
    end_row: int

    def rows(self, options: LatentOptions) -> Floats:
        """Strength 1 in each row, [end_row - first_row, w_dim]; truncated rows move less, as they
        vary less."""
        numbers = np.arange(self.first_row, self.end_row)
        scale = np.where(numbers < options.truncation_cutoff, options.truncation_psi, 1.0)
        return (scale[:, None] * self.move).astype(np.float32)


def add_learned_direction(settings: EditSettings) -> DirectionFacts:
    """Learns a direction and adds it to the bundle; returns what was measured.

    Raises TrainingError, BundleError, EngineError, OSError, Interrupted.
    """
    if problem := learned_name_problem(settings.name):
        raise TrainingError(f"--name is {problem}")
    bundle = open_bundle(settings.bundle)
    refuse_known(bundle, "directions", settings.name, settings.replace_known)
    names = _class_names(bundle.manifest)
    if names.count(settings.changes) != 1:
        raise TrainingError(
            f"--edit is {settings.changes!r:.100}, which is {names.count(settings.changes)} "
            f"classes of this bundle; {near_hint(settings.changes, names)}"
        )
    options = options_of_fit(bundle, settings)
    engine = EngineOptions(batch_sizes=() if settings.batch is None else (settings.batch,))
    columns = cells_of_classes(len(names)) ** 2 * len(names)
    identity = f"edit {options} {engine.batch_sizes}"
    with opened_saved_content(bundle, identity, columns) as saved:
        learning = _Learning(
            MaskSampler(bundle, options, engine, saved),
            bundle,
            options,
            names.index(settings.changes),
            settings,
        )
        rows, facts = learning.direction()
        add_direction(bundle, settings.name, bytes_from_rows(rows), facts, settings.replace_known)
    return facts


def _class_names(manifest: Manifest) -> list[str]:
    head = None if manifest.heads is None else manifest.heads.segmentation
    if head is None:
        raise TrainingError("this bundle has no masks, so no direction can be learned from them")
    return [label.name for label in head.classes]


class _Learning:
    """One run of the command; samples are those of the raw indices from 0 on, each for one use."""

    def __init__(
        self,
        sampler: MaskSampler,
        bundle: Bundle,
        options: LatentOptions,
        number: int,
        settings: EditSettings,
    ) -> None:
        self._sampler, self._options, self._number = sampler, options, number
        self._generator, self._settings = bundle.manifest.generator, settings
        self._choosing = min(MOST_CHOOSING, settings.samples // PART)
        self._measured = max(LEAST_MEASURED, settings.samples // PART)
        self._plain: dict[int, Masks] = {}  # without an edit, by first index

    def direction(self) -> tuple[Floats, DirectionFacts]:
        """Rows of strength 1, and the facts. Raises TrainingError."""
        settings, candidates = self._settings, 2 * (len(WEIGHTS) + len(list(self._ranges())))
        work = (
            settings.samples + self._choosing * (1 + candidates) + self._measured * (1 + 2 * STEPS)
        )
        with tqdm(total=work, desc="directions", unit="sample") as progress:
            w, occupancy = self._sampler.occupancies(settings.samples, progress)
            slopes = slopes_of_class(w, occupancy, self._number)
            chosen = self._chosen(
                [move_from_slopes(slopes, weight) for weight in WEIGHTS], progress
            )
            rows = chosen.rows(self._options)
            first = settings.samples + self._choosing
            strengths = np.linspace(-settings.strength, settings.strength, 2 * STEPS + 1)
            changes = self._changes(first, self._measured, chosen, strengths.tolist(), progress)
        measured = [
            measured_edit(round(strength, 6), change)
            for strength, change in zip(strengths.tolist(), changes, strict=True)
        ]
        if changes[-1].share - changes[0].share < MIN_CHANGE:
            raise TrainingError(
                f"--edit {settings.changes}: from strength {-settings.strength:g} to "
                f"{settings.strength:g} its share of the pixels goes from {changes[0].share:.2%} "
                f"to {changes[-1].share:.2%} only, so w has no such direction, or --samples "
                f"{settings.samples} are too few to find it"
            )
        data = bytes_from_rows(rows)
        return rows, DirectionFacts(
            file=FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)),
            changes=settings.changes,
            options=key_from_options(self._options),
            seed=settings.seed,
            samples=settings.samples,
            measured=self._measured,
            first_row=chosen.first_row,
            end_row=chosen.end_row,
            strengths=measured,
        )

    def _chosen(self, moves: list[NDArray[np.float64]], progress: "tqdm[Any]") -> _Candidate:
        """First how much other classes count, with all rows of w+, then the rows."""
        every = [_Candidate(move, 0, self._generator.num_ws) for move in moves]
        best = self._best(every, progress)
        return self._best([_Candidate(best.move, *rows) for rows in self._ranges()], progress)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        return ranges_of_rows(self._generator)

    def _best(self, candidates: list[_Candidate], progress: "tqdm[Any]") -> _Candidate:
        half = self._settings.strength / 2
        effects, moved = [], []
        for candidate in candidates:
            less, more = self._changes(
                self._settings.samples, self._choosing, candidate, [-half, half], progress
            )
            effects.append(more.share - less.share)
            moved.append(max(LEAST_MOVED, (less.moved + more.moved) / 2))
        return candidates[best_of_candidates(effects, moved)]

    def _changes(
        self,
        first: int,
        count: int,
        candidate: _Candidate,
        strengths: list[float],
        progress: "tqdm[Any]",
    ) -> list[Change]:
        """What a candidate changes in `count` samples from index `first` on."""
        ws = self._sampler.ws(np.arange(first, first + count, dtype=np.uint64))
        if first not in self._plain:
            self._plain[first] = self._sampler.masks(ws, None, progress)
        before = self._plain[first]
        changes = []
        for strength in strengths:
            shift = np.zeros(ws.shape[1:], np.float32)
            rows = candidate.rows(self._options).astype(np.float64)
            shift[candidate.first_row : candidate.end_row] = strength * rows
            after = before if strength == 0 else self._sampler.masks(ws, shift, progress)
            changes.append(change_of_masks(before, after, self._number, self._sampler.classes))
        return changes


def ranges_of_rows(generator: GeneratorFacts) -> Iterator[tuple[int, int]]:
    """Ranges of rows of w+ that are tried: between any two of the quarters and the end of the rows
    that carry the viewpoint."""
    rows = generator.num_ws
    ends = sorted({0, rows // 4, rows // 2, 3 * rows // 4, rows, generator.view_layers})
    return ((a, b) for i, a in enumerate(ends) for b in ends[i + 1 :])


def best_of_candidates(effects: list[float], moved: list[float]) -> int:
    """The candidate with the most effect for what it moves, among the effective ones."""
    least = EFFECTIVE * max(effects)
    scores = [
        effect / other if effect >= least else -np.inf
        for effect, other in zip(effects, moved, strict=True)
    ]
    return int(np.argmax(scores))
