"""Cost of each sample that meets a rare predicate: a proposal against plain rejection.

    python -m training directions --bundle BUNDLE --for WHERE --name NAME
    python -m benchmarks.proposals --bundle BUNDLE --name NAME [--generated 1024] [--seed 7]

Both sides generate the same number of samples with the same engine, in turns of 128, from raw
indices that no fit has seen. Time is the process's CPU time, mapping and coins included. Where
rejection meets under 20, its share is the one that the fit measured.
"""

import time
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from benchmarks.machine import machine_name
from bundle.open import open_bundle
from bundle.proposals import Proposal
from engines.content import content_columns, predicate_of_bundle
from engines.open import EngineOptions
from engines.sampling import default_options
from training.directions.draws import Draw, Sampler, opened_saved_content
from training.directions.figures import figures_of_proposal

TURN = 128
FEW = 20  # samples that rejection should meet


@click.command()
@click.option("--bundle", "path", type=click.Path(path_type=Path), required=True)
@click.option("--name", required=True)
@click.option("--generated", default=1024, type=click.IntRange(TURN))
@click.option("--seed", default=7)
def main(path: Path, name: str, generated: int, seed: int) -> None:
    bundle = open_bundle(path)
    proposal = bundle.proposals[name]
    facts, options = proposal.facts, default_options(bundle.manifest.generator, seed)
    predicate = predicate_of_bundle(facts.where, bundle.manifest)
    print(f"machine: {machine_name()}; {path}, {facts.where}, seed {seed}")
    draws: dict[bool, list[Draw]] = {False: [], True: []}
    seconds = {False: 0.0, True: 0.0}
    columns = len(content_columns(bundle.manifest))
    with opened_saved_content(bundle, f"benchmark {options}", columns) as saved:
        sampler = Sampler(bundle, options, predicate, EngineOptions(threads=1), saved)
        with tqdm(total=2 * generated, unit="sample") as progress:
            for _ in range(generated // TURN):
                for chosen in (False, True):
                    began = time.process_time()
                    draws[chosen].append(sampler.draw(TURN, proposal if chosen else None, progress))
                    seconds[chosen] += time.process_time() - began
    plain, test = joined(draws[False], None), joined(draws[True], proposal)
    figures = figures_of_proposal([plain, test], test)
    met = int(plain.met.sum()), int(test.met.sum())
    share = plain.met.mean() if met[0] >= FEW else facts.share.value
    print(f"rejection: {met[0]} of {len(plain.met)} generated; share taken: {share:.5f}")
    print(f"proposal:  {met[1]} of {len(test.met)} generated, {test.examined} indices examined")
    ms = [1e3 * seconds[side] / generated for side in (False, True)]
    print(f"CPU ms by generated sample: {ms[0]:.2f} and {ms[1]:.2f}, ratio {ms[1] / ms[0]:.3f}")
    for each in ("generated_share", "effective"):
        estimate = figures[each]
        print(f"{each}: {estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})")
    low, gain, high = (
        end / share for end in
        (figures["generated_share"].low, test.met.mean(), figures["generated_share"].high)
    )  # fmt: skip
    print(f"times fewer generated samples for each kept one: {gain:.1f} ({low:.1f} to {high:.1f})")
    print(f"times less CPU time for each kept one: {gain * ms[0] / ms[1]:.1f}")


def joined(draws: list[Draw], proposal: Proposal | None) -> Draw:
    """One draw of several by the same proposal."""
    return Draw(
        proposal,
        sum(draw.examined for draw in draws),
        np.concatenate([draw.w for draw in draws]),
        np.concatenate([draw.content for draw in draws]),
        np.concatenate([draw.met for draw in draws]),
    )


if __name__ == "__main__":
    main()
