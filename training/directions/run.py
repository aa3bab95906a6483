"""Settings of `training directions` -> a proposal in the bundle: draws, fits in rounds, figures."""

from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from bundle.check import proposal_name_problem
from bundle.manifest import Estimate, FileEntry, ProposalFacts
from bundle.open import Bundle, open_bundle
from bundle.proposals import Proposal, Score, bytes_from_score
from bundle.write import add_proposal, refuse_known_proposal
from engines.content import ContentPredicate, predicate_of_bundle
from engines.open import EngineOptions
from engines.sampling import LatentOptions, check_options, default_options, key_from_options
from labelmint.predicate import PredicateError
from training.directions.draws import Draw, Sampler, opened_saved_content
from training.directions.figures import figures_of_proposal
from training.directions.fit import FLOOR, Choice, choice_from_draws, score_from_draws
from training.errors import TrainingError

ROUNDS = 4  # fits between the first draw and the last one
MIN_MET = 10  # samples that meet the predicate, for figures


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
    if problem := proposal_name_problem(settings.name):
        raise TrainingError(f"--name is {problem}")
    bundle = open_bundle(settings.bundle)
    refuse_known_proposal(bundle, settings.name, settings.replace_known)
    options = _options(bundle, settings)
    try:
        predicate = predicate_of_bundle(settings.where, bundle.manifest)
    except PredicateError as error:
        raise TrainingError(f"--for: {error}") from error
    engine = EngineOptions(batch_sizes=() if settings.batch is None else (settings.batch,))
    with opened_saved_content(bundle, f"{options} {engine.batch_sizes}") as saved:
        sampler = Sampler(bundle, options, predicate, engine, saved)
        with tqdm(total=settings.samples, desc="directions", unit="sample") as progress:
            proposal, facts = _fitted(sampler, predicate, settings, options, progress)
        data = bytes_from_score(proposal.score, proposal.direction)
        add_proposal(bundle, settings.name, data, facts, settings.replace_known)
    return facts


def _options(bundle: Bundle, settings: Settings) -> LatentOptions:
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
