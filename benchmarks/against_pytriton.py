"""Samples per second of labelmint and of PyTriton, serving the same ONNX files, alternating.

1 and 4 clients request 1, 8 and 32 samples at a time (image, mask and uncertainty), each as soon as
the last answer has arrived. PyTriton batches dynamically up to 32; labelmint streams. Both use ONNX
Runtime on all cores. Without --bundle, the network has random weights and is small for its 256 px,
so that the engine does not dominate. PyTriton needs a separate Python with `nvidia-pytriton`,
`numpy<2` and `onnxruntime`: python3.11 -m venv V; V/bin/pip install ...

    python -m benchmarks.against_pytriton --python V/bin/python [--bundle demo/bundle] [--seconds 8]
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import machine_name
from benchmarks.random_weights import write_weights
from benchmarks.sizes import Size
from bundle import open_bundle
from examples.demo.serving import server
from labelmint import Client

OUTPUTS = ("image", "mask", "uncertainty")
START_S = 120.0
LIGHT = Size(256, 256, grid=16, hidden=(16, 8), classes=4, members=1)
Ask = Callable[[], int]  # returns the number of samples of one answer


@click.command()
@click.option("--python", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle that both serve.")
@click.option("--seconds", default=8.0, help="Seconds of each run.")
@click.option("--rounds", default=3, help="Number of pairs of runs for each setting.")
def main(python: Path, bundle: Path | None, seconds: float, rounds: int) -> None:
    print(f"machine: {machine_name()}")
    with tempfile.TemporaryDirectory() as temporary:
        compare(python, bundle or light_bundle(Path(temporary)), seconds, rounds)


def light_bundle(folder: Path) -> Path:
    """Writes a bundle whose network needs little time for its pixels."""
    generator, interpreter = write_weights(folder, LIGHT)
    subprocess.run(
        [
            sys.executable, "-m", "export", "bundle", "--generator", str(generator),
            "--interpreter", str(interpreter), "--out", str(folder / "bundle"),
            "--calibrate", "0", "--no-half",
        ],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return folder / "bundle"


def compare(python: Path, folder: Path, seconds: float, rounds: int) -> None:
    """Measures every setting and prints a line for each."""
    z_dim = open_bundle(folder).manifest.generator.z_dim
    with behind_pytriton(python, folder) as theirs, server(folder) as ours:
        print("clients  batch  PyTriton  labelmint  ratio")
        for clients in (1, 4):
            for batch in (1, 8, 32):
                pairs = []
                for _ in range(rounds):
                    pairs.append(
                        (
                            rate([triton_client(theirs, z_dim, batch)] * clients, seconds),
                            rate([labelmint_client(ours, batch)] * clients, seconds),
                        )
                    )
                ratio = statistics.median(b / a for a, b in pairs)
                medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
                print(
                    f"{clients:7d} {batch:6d} {medians[0]:9.1f} {medians[1]:10.1f} {ratio:6.2f}",
                    flush=True,
                )


@contextmanager
def behind_pytriton(python: Path, folder: Path) -> Iterator[str]:
    """Serves the bundle; yields HOST:PORT. Ends the script, with the reason, if that fails."""
    ports = [_free_port() for _ in range(3)]
    script = Path(__file__).with_name("against_pytriton_server.py")
    found = sorted(python.resolve().parent.parent.glob("lib/python*/site-packages")) or sorted(
        python.parent.parent.glob("lib/python*/site-packages")
    )
    libraries = [str(site / "nvidia_pytriton.libs") for site in found]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
    command = [str(python), str(script), str(folder), *map(str, ports)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        lines: list[str] = []
        assert process.stderr is not None
        reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        reader.start()
        try:
            if not _answers(ports[0], process):
                print("skipped: PyTriton cannot start here: " + (lines[-1] if lines else "silent"))
                sys.exit(0)
            yield f"127.0.0.1:{ports[0]}"
        finally:
            process.terminate()
            process.wait()
            reader.join()


def triton_client(address: str, z_dim: int, batch: int) -> Callable[[int], Ask]:
    """Factory of clients: a client number -> a function that sends one request."""

    def start(number: int) -> Ask:
        import tritonclient.grpc as triton

        client = triton.InferenceServerClient(address)
        source = np.random.default_rng(number)
        wanted = [triton.InferRequestedOutput(name) for name in OUTPUTS]

        def ask() -> int:
            z = triton.InferInput("z", [batch, z_dim], "FP32")
            z.set_data_from_numpy(source.standard_normal((batch, z_dim)).astype(np.float32))
            answer = client.infer("demo", [z], outputs=wanted)
            image = answer.as_numpy("image")
            assert image is not None
            return len(image)

        return ask

    return start


def labelmint_client(address: str, batch: int) -> Callable[[int], Ask]:
    def start(number: int) -> Ask:
        batches = Client(address).stream(batch_size=batch, seed=number, outputs=OUTPUTS)
        return lambda: len(next(batches).indices)

    return start


def rate(starts: list[Callable[[int], Ask]], seconds: float) -> float:
    """Samples per second of all clients together, one thread each, after one answer as warm-up."""
    ready = threading.Barrier(len(starts) + 1)
    counts = [0] * len(starts)
    until = 0.0

    def work(number: int) -> None:
        ask = starts[number](number)
        ask()
        ready.wait()
        while time.monotonic() < until:
            counts[number] += ask()

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(len(starts))]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 3600
    ready.wait()
    began = time.monotonic()
    until = began + seconds
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _answers(port: int, process: "subprocess.Popen[str]") -> bool:
    import tritonclient.grpc as triton

    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if triton.InferenceServerClient(f"127.0.0.1:{port}").is_model_ready("demo"):
                return True
        except triton.InferenceServerException:
            time.sleep(0.5)
    return False


if __name__ == "__main__":
    main()
