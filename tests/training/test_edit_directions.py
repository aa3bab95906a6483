"""`training directions --edit` finds the move that changes a class alone, and measures it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bundle.directions import direction_from_bytes
from bundle.open import Bundle
from engines.errors import EngineError
from engines.fake import FakeMapping, fake_bundle
from engines.sampling import default_options, w_from_indices
from training.__main__ import main as training_command
from training.directions import masks as masks_module
from training.directions import run_edit
from training.directions.learn import move_from_slopes, slopes_of_class
from training.directions.masks import cells_of_classes, occupancy_of_masks
from training.directions.measure import change_of_masks, measured_edit
from training.errors import TrainingError

CLASSES, SIZE = 3, 16


class Painter:
    """In place of a MaskEngine. Class 1 is a block that grows with the first values of the first
    rows of w+, class 2 one that moves with the second value of all rows."""

    batch_sizes = (8,)

    def __init__(self, *_: Any) -> None:
        self.runs = 0

    def run(self, ws: Any) -> NDArray[np.uint8]:
        self.runs += 1
        masks = np.zeros((len(ws), SIZE, SIZE), np.uint8)
        for row, w in zip(masks, ws, strict=True):
            grown = int(np.clip(6 + 2 * w[:2, 0].mean() + w[:2, 1].mean(), 0, SIZE))
            place = int(np.clip(6 + 3 * w[:, 1].mean(), 0, SIZE - 4))
            row[:8, :grown] = 1
            row[8:, place : place + 4] = 2
        return masks


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bundle:
    """A bundle in a folder, whose masks are a Painter's."""
    bundle = replace(fake_bundle(SIZE, boxes=0), path=tmp_path / "b")
    monkeypatch.setattr(masks_module, "MaskEngine", Painter)
    monkeypatch.setattr(
        masks_module, "open_mapping", lambda b, _: FakeMapping(b.manifest.generator)
    )
    monkeypatch.setattr(run_edit, "open_bundle", lambda _: bundle)
    return bundle


def learned(monkeypatch: pytest.MonkeyPatch, changes: str = "part 1", **fields: Any) -> Any:
    """Facts and rows of what the command would add."""
    added: dict[str, Any] = {}

    def add(bundle: Bundle, name: str, data: bytes, facts: Any, replace: bool) -> None:
        added.update(name=name, data=data, facts=facts)

    monkeypatch.setattr(run_edit, "add_direction", add)
    given = {
        "bundle": Path("b"), "changes": changes, "name": "d", "samples": 512, "strength": 2.0,
        "seed": 3, "psi": None, "cutoff": None, "class_index": None, "replace_known": False,
        "batch": None,
    }  # fmt: skip
    run_edit.add_learned_direction(run_edit.EditSettings(**{**given, **fields}))
    generator = fake_bundle(SIZE).manifest.generator
    direction = direction_from_bytes(added["data"], Path("d"), "d", added["facts"], generator)
    return direction.facts, direction.rows


def test_the_direction_changes_its_class_in_the_rows_that_matter(
    painted: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, rows = learned(monkeypatch)
    assert facts.first_row == 0 and facts.end_row < painted.manifest.generator.num_ws
    assert rows[0, 0] > 0.9 * np.linalg.norm(rows[0])  # 512 samples leave some noise
    assert abs(rows[0, 1]) < 0.05  # which grows the class as well, and moves another
    assert [row.strength for row in facts.strengths] == pytest.approx(
        [-2, -4 / 3, -2 / 3, 0, 2 / 3, 4 / 3, 2], abs=1e-5
    )
    shares = [row.share.value for row in facts.strengths]
    assert shares == sorted(shares) and shares[-1] > shares[0] + 0.15
    plain = facts.strengths[3]
    assert plain.unchanged.value == plain.miou.value == 1
    assert all(row.unchanged.value > 0.98 for row in facts.strengths)


def test_a_strength_is_a_standard_deviation_of_each_row(
    painted: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are truncated vary less, and are moved less."""
    facts, rows = learned(monkeypatch, psi=0.5, cutoff=1)
    generator = painted.manifest.generator
    w = w_from_indices(
        FakeMapping(generator),
        generator,
        default_options(generator, 3),
        np.arange(512, dtype=np.uint64),
    ).astype(np.float64)
    spread = np.cov(w.T, bias=True)
    along = np.linalg.pinv(spread, rcond=1e-6) @ rows[-1]
    assert rows[-1] @ along == pytest.approx(1, rel=0.02)  # one standard deviation, squared
    assert np.allclose(rows[0], rows[-1] * (0.5 if facts.end_row > 1 else 1), rtol=1e-5)
    assert facts.options.truncation_psi == 0.5


def test_other_classes_turn_the_move_away_from_what_moves_them() -> None:
    random = np.random.default_rng(0)
    w = random.standard_normal((4096, 6)).astype(np.float32)
    occupancy = np.zeros((len(w), 4, CLASSES), np.float32)
    occupancy[:, 0, 1] = 0.2 + 0.02 * w[:, 0] + 0.02 * w[:, 1]
    occupancy[:, 1, 2] = 0.2 + 0.05 * w[:, 1]
    slopes = slopes_of_class(w, occupancy, 1)
    plain, careful = move_from_slopes(slopes, 0.0), move_from_slopes(slopes, 100.0)
    assert plain[0] == pytest.approx(plain[1], rel=0.1)
    assert abs(careful[1]) < 0.05 * careful[0]
    for move in (plain, careful):
        assert (w @ move).std() == pytest.approx(np.linalg.norm(move) ** 2, rel=0.1)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
           elements=st.integers(0, CLASSES - 1)),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_an_occupancy_is_the_literal_share_of_each_cell(masks: NDArray[np.uint8]) -> None:
    n, height, width = masks.shape
    side = cells_of_classes(CLASSES)
    wanted = np.zeros((n, side * side, CLASSES))
    for sample in range(n):
        for y in range(height):
            for x in range(width):
                cell = (y * side // height) * side + x * side // width
                wanted[sample, cell, masks[sample, y, x]] += 1 / (height * width)
    assert np.allclose(occupancy_of_masks(masks, CLASSES), wanted, atol=1e-6)


PAIRS = arrays(
    np.uint8, st.tuples(st.just(2), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    elements=st.integers(0, CLASSES - 1),
)  # fmt: skip


@given(PAIRS)
@settings(max_examples=100, deadline=None)
def test_figures_are_the_literal_counts(pair: NDArray[np.uint8]) -> None:
    before, after = pair
    row = measured_edit(1.0, change_of_masks(before, after, 1, CLASSES))
    outside = unchanged = own = 0
    both, either = [0] * CLASSES, [0] * CLASSES
    for old, new in zip(before.ravel().tolist(), after.ravel().tolist(), strict=True):
        own += new == 1
        if 1 in (old, new):
            continue
        outside += 1
        unchanged += old == new
        for label in {old, new}:
            either[label] += 1
        both[old] += old == new
    ious = [a / b for a, b in zip(both, either, strict=True) if b]
    assert row.share.value == pytest.approx(own / before.size)
    assert row.unchanged.value == pytest.approx(unchanged / outside if outside else 1)
    assert row.miou.value == pytest.approx(sum(ious) / len(ious) if ious else 1)
    shown = [(mask == 1).mean() >= 0.001 for mask in after]
    assert row.shown.value == pytest.approx(np.mean(shown))
    for estimate in (row.share, row.shown, row.unchanged, row.miou):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_the_candidate_with_most_effect_for_what_it_moves_is_chosen() -> None:
    """Among those with half the effect of the most effective one."""
    assert run_edit.best_of_candidates([0.2, 0.11, 0.09], [0.1, 0.01, 0.001]) == 1
    assert run_edit.best_of_candidates([0.2, -0.3], [0.1, 0.001]) == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"changes": "prat 1"}, "write one of 'part"),
        ({"name": "a b"}, "--name is 'a b'"),
        ({"changes": "part 3"}, "no such direction"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_line(
    painted: Bundle, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises((TrainingError, EngineError)) as caught:
        learned(monkeypatch, **fields)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not list(painted.path.parent.iterdir())


def test_an_interrupted_fit_goes_on_with_its_samples(
    painted: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    class Interrupted(Painter):
        def run(self, ws: Any) -> NDArray[np.uint8]:
            if self.runs == 20:
                raise KeyboardInterrupt
            return super().run(ws)

    class Counted(Painter):
        def run(self, ws: Any) -> NDArray[np.uint8]:
            runs.append(1)
            return super().run(ws)

    monkeypatch.setattr(masks_module, "MaskEngine", Counted)
    whole = learned(monkeypatch)
    all_runs = len(runs)
    monkeypatch.setattr(masks_module, "MaskEngine", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        learned(monkeypatch)
    runs.clear()
    monkeypatch.setattr(masks_module, "MaskEngine", Counted)
    again = learned(monkeypatch)
    assert len(runs) == all_runs - 20
    assert again[0] == whole[0] and np.array_equal(again[1], whole[1])


def command(*words: object) -> Any:
    return CliRunner().invoke(training_command, ["directions", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "either --for"),
        (("--for", "uncertainty < 1", "--edit", "x", "--name", "n"), "either --for"),
        (("--for", "uncertainty < 1", "--name", "n", "--strength", 2), "--strength is for --edit"),
        (("--for", "uncertainty < 1"), "--name is missing"),
        (("--edit", "x", "--strength", 0), "--strength"),
    ],
)
def test_options_that_contradict_are_refused(
    tmp_path: Path, words: tuple[object, ...], problem: str
) -> None:
    ran = command("--bundle", tmp_path, *words)
    assert ran.exit_code != 0 and problem in ran.output + str(ran.exception)


@pytest.mark.long
def test_a_class_that_w_does_not_change_is_refused_and_nothing_left(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    """By the command as a whole: all pixels of this bundle are of its first class."""
    bundle = tmp_path / "b"
    shutil.copytree(tiny_bundle, bundle)
    before = sorted(file.name for file in bundle.iterdir())
    ran = command("--bundle", bundle, "--edit", "class 0", "--name", "more", "--samples", 512)
    assert ran.exit_code == 1
    assert "from 100.00% to 100.00% only, so w has no such direction" in str(ran.exception)
    assert sorted(file.name for file in bundle.iterdir()) == before
    assert [file.name for file in tmp_path.iterdir()] == ["b"]
