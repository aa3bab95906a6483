"""Settings of `training directions` -> a proposal in the bundle: draws, fits in rounds, figures."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tqdm import tqdm

from bundle.check_learned import learned_name_problem
from bundle.manifest import Estimate, FileEntry, ProposalFacts
from bundle.open import open_bundle
from bundle.proposals import Proposal, bytes_from_score
from bundle.write import add_proposal, refuse_known
from engines.content import ContentPredicate, content_columns, predicate_of_bundle
from engines.open import EngineOptions
from engines.sampling import LatentOptions, key_from_options
from labelmint.predicate import PredicateError
from training.directions.draws import (
    Draw,
    Sampler,
    compares_shares_alone,
    opened_saved_content,
    options_of_fit,
)
from training.directions.figures import figures_of_proposal
from training.directions.fit import score_from_draws
from training.errors import TrainingError

ROUNDS = 4  # fits between the first draw and the last one
MIN_MET = 10  # samples that meet the predicate, for figures
# For effective samples by generated ones, 1/2 would be best if the estimated probabilities were the
# true ones. They are flatter, and 3/4 was better with each of three predicates of the demo.
EXPONENT = 0.75
FLOOR = 1 / 512  # smallest keep probability: what the score takes for impossible still comes


@dataclass(frozen=True)
class Settings:
    """What the command was given."""

    bundle: Path
    where: str
    name: str
    samples: int
    seed: int
    psi: float | None
    cutoff: int | None
    class_index: int | None
    replace_known: bool
    batch: int | None


def add_fitted_proposal(settings: Settings) -> ProposalFacts:
    """Fits a proposal and adds it to the bundle; returns what was measured.

    Raises TrainingError, BundleError, EngineError, OSError, Interrupted.
    """
    if problem := learned_name_problem(settings.name):
        raise TrainingError(f"--name is {problem}")
    bundle = open_bundle(settings.bundle)
    refuse_known(bundle, "proposals", settings.name, settings.replace_known)
    options = options_of_fit(bundle, settings)
    try:
        predicate = predicate_of_bundle(settings.where, bundle.manifest)
    except PredicateError as error:
        raise TrainingError(f"--for: {error}") from error
    engine = EngineOptions(batch_sizes=() if settings.batch is None else (settings.batch,))
    columns = len(content_columns(bundle.manifest))
    measure = "shares" if compares_shares_alone(predicate) else "content"
    identity = f"{measure} {options} {engine.batch_sizes}"
    with opened_saved_content(bundle, identity, columns) as saved:
        sampler = Sampler(bundle, options, predicate, engine, saved)
        with tqdm(total=settings.samples, desc="directions", unit="sample") as progress:
            proposal, facts = _fitted(sampler, predicate, settings, options, progress)
        data = bytes_from_score(proposal.score)
        add_proposal(bundle, settings.name, data, facts, settings.replace_known)
    return facts


def _fitted(
    sampler: Sampler,
    predicate: ContentPredicate,
    settings: Settings,
    options: LatentOptions,
    progress: "tqdm[Any]",
) -> tuple[Proposal, ProposalFacts]:
    """Draws a first quarter of the samples as they come, then rounds by the fit so far, and a
    last quarter to measure the last fit."""
    quarter = settings.samples // 4
    draws = [sampler.draw(quarter, None, progress)]
    for number in range(ROUNDS):
        proposal = proposal_from_draws(draws, predicate, settings, options, number)
        progress.set_postfix_str(f"{sum(int(draw.met.sum()) for draw in draws)} meet it")
        draws.append(sampler.draw(2 * quarter // ROUNDS, proposal, progress))
    proposal = proposal_from_draws(draws, predicate, settings, options, ROUNDS)
    test = sampler.draw(quarter, proposal, progress)
    found = int(test.met.sum())
    if found < MIN_MET:
        content = np.concatenate([draw.content for draw in (*draws, test)])
        seen = predicate.ranges(content.min(axis=0), content.max(axis=0))
        raise TrainingError(
            f"{found} of the last {quarter} samples met --for, which are too few to say what the "
            f"proposal is worth: {seen}; loosen it, or raise --samples, which is {settings.samples}"
        )
    figures = figures_of_proposal([*draws, test], test)
    facts = msgspec.structs.replace(proposal.facts, **figures)
    return Proposal(proposal.name, facts, proposal.score), facts


def proposal_from_draws(
    draws: Sequence[Draw],
    predicate: ContentPredicate,
    settings: Settings,
    options: LatentOptions,
    seed: int,
) -> Proposal:
    """The proposal of all samples so far, without figures."""
    score, bounds = score_from_draws(draws, predicate, seed)
    data, unknown = bytes_from_score(score), Estimate(value=1.0, low=1.0, high=1.0)
    facts = ProposalFacts(
        file=FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)),
        where=settings.where,
        options=key_from_options(options),
        seed=settings.seed,
        samples=settings.samples,
        hidden=score.hidden,
        outputs=score.outputs,
        bounds=bounds,
        exponent=EXPONENT,
        floor=FLOOR,
        share=unknown,
        generated_share=unknown,
        gain=unknown,
        effective=unknown,
        examined=unknown,
    )
    return Proposal(settings.name, facts, score)
