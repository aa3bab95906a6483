"""`training directions` learns which w are worth generating, and says what that is worth."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from bundle.manifest import Estimate
from bundle.open import Bundle, open_bundle
from bundle.proposals import Proposal
from engines.content import content_columns, predicate_of_bundle
from engines.fake import fake_bundle
from engines.proposal import WORDS, limits_from_w, probabilities_from_w
from engines.sampling import default_options
from labelmint.predicate import Statistic
from training.__main__ import main as training_command
from training.directions.draws import Draw, SavedContent, opened_saved_content
from training.directions.figures import figures_of_proposal, masses_of_draws
from training.directions.fit import score_from_draws
from training.directions.run import Settings, proposal_from_draws
from training.errors import TrainingError

BUNDLE = fake_bundle(16, proposals=True)
PIXELS = 16 * 16
WHERE = "share('part 1') >= 0.5 and share('part 2') < 0.3"
PREDICATE = predicate_of_bundle(WHERE, BUNDLE.manifest)
COLUMNS = content_columns(BUNDLE.manifest)


def content_of(w: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shares that grow with sums of w, bent, so that no line separates what the predicate says."""
    content = np.zeros((len(w), len(COLUMNS)), np.float32)
    first, second = w[:, 0] + 0.5 * w[:, 1], w[:, 2] + 0.3 * w[:, 3] ** 2
    for name, value in (("part 1", first - 2.5), ("part 2", second - 0.5)):
        share = 1 / (1 + np.exp(-value))
        content[:, COLUMNS.index(Statistic("share", name))] = np.round(PIXELS * share)
    return content


def drawn(count: int, seed: int, proposal: Proposal | None = None) -> Draw:
    """Samples of a world in which w is normal, as Sampler draws them from a bundle."""
    random = np.random.default_rng(seed)
    examined, parts = 0, list[NDArray[np.float32]]()
    while sum(map(len, parts)) < count:
        w = random.standard_normal((512, 16)).astype(np.float32)
        chosen = np.ones(len(w), np.bool_)
        if proposal is not None:
            chosen = random.random(len(w)) < limits_from_w(proposal, w) / WORDS
        parts.append(w[chosen])
        examined += len(w)
    w = np.concatenate(parts)
    content = content_of(w)
    return Draw(proposal, examined, w, content, PREDICATE.met(content))


SETTINGS = Settings(Path("b"), WHERE, "both", 4096, 0, None, None, None, False, None)


def fitted() -> Proposal:
    """The fit of draws as they come and of draws by the fit of those."""
    options = default_options(BUNDLE.manifest.generator)
    draws = [drawn(1024, 1)]
    draws.append(drawn(512, 2, proposal_from_draws(draws, PREDICATE, SETTINGS, options, 0)))
    return proposal_from_draws(draws, PREDICATE, SETTINGS, options, 1)


@pytest.mark.long
def test_a_proposal_generates_ten_times_fewer_for_each_that_is_met() -> None:
    """Of one in 300, by exact probabilities over samples that the fit has not seen."""
    proposal = fitted()
    w = np.random.default_rng(9).standard_normal((200_000, 16)).astype(np.float32)
    met = PREDICATE.met(content_of(w))
    kept = limits_from_w(proposal, w) / WORDS
    share, generated_share = met.mean(), (kept * met).sum() / kept.sum()
    effective = met.mean() ** 2 / ((kept * met).mean() * (met / kept).mean())
    assert 1 / 400 < share < 1 / 200
    assert generated_share > 10 * share
    assert effective > 1 / 3


GIVEN = BUNDLE.proposals["rare"]  # prefers a large first value of w, which part 1 grows with


def test_figures_hold_the_truth_in_their_intervals() -> None:
    proposal = GIVEN
    test = drawn(4096, 5, proposal)
    figures = figures_of_proposal([drawn(2048, 1), drawn(512, 2, proposal), test], test)
    w = np.random.default_rng(9).standard_normal((200_000, 16)).astype(np.float32)
    met = PREDICATE.met(content_of(w))
    kept = limits_from_w(proposal, w) / WORDS
    share, generated_share = met.mean(), (kept * met).sum() / kept.sum()
    truth = {
        "share": share,
        "generated_share": generated_share,
        "gain": generated_share / share,
        "effective": met.mean() ** 2 / ((kept * met).mean() * (met / kept).mean()),
        "examined": 1 / kept.mean(),
    }
    for name, value in truth.items():
        estimate: Estimate = figures[name]
        assert estimate.low <= estimate.value <= estimate.high
        spread = estimate.high - estimate.low  # of 95 percent: seeds are fixed, so this is sure
        assert estimate.low - spread / 2 < value < estimate.high + spread / 2, name


def test_masses_of_all_draws_add_up_to_one() -> None:
    """Whatever the draws were adapted to: they estimate the share of all samples."""
    draws = [drawn(1024, 1), drawn(512, 2, BUNDLE.proposals["all"]), drawn(1024, 6, GIVEN)]
    total = sum(float(mass.sum()) for mass in masses_of_draws(draws))
    assert total == pytest.approx(1, abs=0.1)


@pytest.mark.long
def test_a_predicate_of_alternatives_and_upper_bounds_is_estimated() -> None:
    """The estimated probabilities are those of the region, not of its parts."""
    where = "share('part 1') >= 0.3 or share('part 2') < 0.2 or not share('part 1') > 0.01"
    predicate = predicate_of_bundle(where, BUNDLE.manifest)
    draw = drawn(1536, 3)
    score, bounds = score_from_draws([draw], predicate, 0)
    facts = BUNDLE.proposals["rare"].facts
    facts = msgspec.structs.replace(facts, bounds=bounds, outputs=2, hidden=score.hidden)
    w = np.random.default_rng(8).standard_normal((4096, 16)).astype(np.float32)
    estimated = probabilities_from_w(Proposal("p", facts, score), w)
    met = predicate.met(content_of(w))
    assert 0.15 < met.mean() < 0.5
    assert ((estimated > 0.5) == met).mean() > 0.88


def test_saved_content_is_found_again_without_a_cut_record(tmp_path: Path) -> None:
    path = tmp_path / "content"
    rows = np.arange(50, dtype=np.float32).reshape(2, 25)
    with path.open("a+b") as file:
        SavedContent(file, 25).append(np.array([7, 2**63], np.uint64), rows)
    path.write_bytes(path.read_bytes() + b"cut")
    with path.open("a+b") as file:
        file.seek(0)
        saved = SavedContent(file, 25)
        assert np.array_equal(saved.rows[7], rows[0])
        assert np.array_equal(saved.rows[2**63], rows[1])
        saved.append(np.array([3], np.uint64), rows[:1])
    assert path.stat().st_size == 3 * 108


@pytest.mark.parametrize("error", [KeyboardInterrupt, TrainingError])
def test_saved_content_stays_after_an_interruption_alone(
    tmp_path: Path, error: type[BaseException]
) -> None:
    bundle = replace(BUNDLE, path=tmp_path / "b")
    with pytest.raises(error), opened_saved_content(bundle, "options", len(COLUMNS)) as saved:
        saved.append(np.array([1], np.uint64), np.zeros((1, len(COLUMNS)), np.float32))
        (file,) = tmp_path.iterdir()
        assert f"1 samples are saved in {file};" in saved.text()
        with (
            pytest.raises(TrainingError, match="by another process"),
            opened_saved_content(bundle, "options", len(COLUMNS)),
        ):
            pytest.fail("two processes sample for one fit")
        raise error
    left = [file.name for file in tmp_path.iterdir()]
    assert len(left) == (error is KeyboardInterrupt)
    with opened_saved_content(bundle, "options", len(COLUMNS)) as saved:
        assert len(saved.rows) == len(left)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["endless", "pipe", "link"])
def test_what_is_no_file_of_saved_content_is_neither_read_nor_followed(
    tmp_path: Path, kind: str
) -> None:
    bundle, other = replace(BUNDLE, path=tmp_path / "b"), tmp_path / "other"
    other.write_bytes(b"six by")
    with opened_saved_content(bundle, "options", len(COLUMNS)):
        (left,) = tmp_path.glob(".b.*")
    if kind == "pipe":
        os.mkfifo(left)
    else:
        left.symlink_to("/dev/zero" if kind == "endless" else other)
    reason = "not a regular file" if kind == "pipe" else "symbolic links"
    with pytest.raises(OSError) as refused, opened_saved_content(bundle, "options", len(COLUMNS)):
        pytest.fail("it was opened")
    assert refused.value.filename == str(left) and reason in str(refused.value.strerror)
    assert other.read_bytes() == b"six by"


Command = Callable[..., Any]


def command(*words: object) -> Any:
    return CliRunner().invoke(training_command, ["directions", *map(str, words)])


@pytest.mark.long
def test_the_command_adds_a_proposal_that_streams_use(tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = tmp_path / "b"
    shutil.copytree(tiny_bundle, bundle)
    line = ("--bundle", bundle, "--name", "much", "--samples", 512)
    ran = command(*line, "--for", "share('class 0') >= 0.3 or share('class 1') >= 0.3")
    assert ran.exit_code == 0, ran.output
    assert "effective sample size" in ran.output
    opened: Bundle = open_bundle(bundle)
    facts = opened.proposals["much"].facts
    assert opened.manifest.bundle_id == open_bundle(tiny_bundle).manifest.bundle_id
    assert 0 < facts.share.low <= facts.share.value and facts.gain.value > 0
    assert not [file for file in tmp_path.iterdir() if file != bundle]
    again = command(*line, "--for", "share('class 0') >= 0.3")
    assert again.exit_code == 1 and "--replace" in str(again.exception)
