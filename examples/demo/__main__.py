"""`make demo`: from the committed generator to a measured stream of filtered, labeled batches.

Reads examples/demo/generator.safetensors; writes everything to ./demo.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np

from checkpoints import generator_from_file, sha256_of_file
from examples.demo.inputs import record_inputs
from examples.demo.labels import write_examples
from examples.demo.report import StreamedSamples, compare_streams, print_report, samples_from_stream
from examples.demo.serving import server
from labelmint import Client
from labelmint.preview import sheet_from_batch

GENERATOR = Path(__file__).with_name("generator.safetensors")
OUT = Path("demo")
SEED = 7
SAMPLES = 256
KEEP_FRACTION = 0.9
FILTERED = 64  # first samples that are streamed again, through the filter
CALIBRATION_SAMPLES = 1024  # a quarter of what is usual: the longest step on a CPU
# Parts have ten members, which vote and are the uncertainty. Two are nearly as good elsewhere:
# depth's AbsRel on the head is 1.14% with two and 1.10% with ten, keypoints are 1.34 and 1.31 px
# off.
HEAD_MEMBERS = ("--head-members", "keypoints", "2", "--head-members", "depth", "2")
INTERRUPTED = 130  # exit code


def run(*command: str) -> None:
    """Runs one of the project's own commands, shown as a user would type it."""
    print(f"\n$ python -m {shlex.join(command)}", flush=True)
    with subprocess.Popen([sys.executable, "-m", *command]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the command has it too; a training saves its state now
            process.wait()
            raise SystemExit(INTERRUPTED) from None
    if code:  # the command has said why
        raise SystemExit(code)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, export, serve and measure the demo, on its committed generator; writes to ./demo.

    Replaces earlier outputs. Takes a few minutes. After Ctrl-C it begins again, but goes on with a
    training that was interrupted.
    """
    started = time.monotonic()
    labels, interpreter, bundle = OUT / "labels", OUT / "interpreter.safetensors", OUT / "bundle"
    generator, _ = generator_from_file(GENERATOR)
    print(f"labeling 16 generated images with the renderer's truth -> {labels}")
    write_examples(generator, labels, sha256_of_file(GENERATOR))
    run(
        "training", "interpreter", "--generator", str(GENERATOR), "--labels", str(labels),
        "--out", str(interpreter), *HEAD_MEMBERS, "--force",
    )  # fmt: skip
    run(
        "export", "bundle", "--generator", str(GENERATOR), "--interpreter", str(interpreter),
        "--out", str(bundle), "--calibrate", str(CALIBRATION_SAMPLES), "--force",
    )  # fmt: skip
    record_inputs(OUT)
    with server(bundle) as address, Client(address) as client:
        unfiltered, seconds = stream_timed(client)
        max_uncertainty = client.model(keep_fraction=KEEP_FRACTION).max_uncertainty
        assert max_uncertainty is not None  # set because keep_fraction is given
        filtered = samples_from_stream(
            client.stream(
                batch_size=16, seed=SEED, keep_fraction=KEEP_FRACTION, end_index=FILTERED
            ),
            FILTERED,
        )
        compare_streams(unfiltered, filtered, max_uncertainty, FILTERED)
        write_preview(client, unfiltered)
    print_report(unfiltered, max_uncertainty, SEED, seconds)
    print(f"\nlook at {OUT / 'preview.png'}; {time.monotonic() - started:.0f} s in all")


def stream_timed(client: Client) -> tuple[StreamedSamples, float]:
    """All samples of the unfiltered stream, and the seconds it took."""
    begin = time.perf_counter()
    batches = client.stream(batch_size=16, seed=SEED, count=SAMPLES)
    samples = samples_from_stream(batches, SAMPLES)
    return samples, time.perf_counter() - begin


def write_preview(client: Client, samples: StreamedSamples) -> None:
    """Contact sheet: the first five samples and the three most uncertain of the first 64."""
    doubtful = np.argsort(samples.uncertainty[5:64])[-3:] + 5
    chosen = [*range(5), *sorted(int(i) for i in doubtful)]
    outputs = ("image", "mask", "keypoints", "depth", "uncertainty", "uncertainty_map")
    batch = next(
        iter(client.stream(batch_size=len(chosen), seed=SEED, indices=chosen, outputs=outputs))
    )
    sheet_from_batch(batch, client.model()).save(OUT / "preview.png")


if __name__ == "__main__":
    main()
