"""What tests of several packages share: bundles, each built once, and a GPU."""

import fcntl
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from checkpoints import (
    ClassCard,
    GeneratorCard,
    InterpreterCard,
    KeypointsCard,
    SegmentationCard,
    card_from_config,
    generator_from_file,
    head_cards,
    sha256_of_file,
    write_generator,
    write_interpreter,
)
from engines.cuda import CudaDevice, open_device
from engines.errors import RuntimeMissing
from engines.ort import available_cores
from examples.demo.__main__ import CALIBRATION_SAMPLES, GENERATOR, HEAD_MEMBERS
from examples.demo.inputs import is_current
from examples.demo.labels import write_examples
from export.__main__ import main as export_command
from nets.config import stated_start
from nets.generator import generator_from_config
from nets.interpreter import HeadConfig, Interpreter
from nets.stylegan2 import GeneratorConfig, SynthesisLayer
from training.__main__ import main as training_command

# Kernels run in Triton's interpreter here, which is chosen when it is imported.
os.environ["TRITON_INTERPRET"] = "1"
# In a fork of a worker, taking apart a session of ONNX Runtime waits for its threads, which the
# fork lacks; so garbage of the tests before stays.
os.register_at_fork(after_in_child=gc.disable)
CONFIG = GeneratorConfig(32, (16, 16, 12, 8), z_dim=8, w_dim=12, mapping_layers=2)
TESTS = Path(__file__).resolve().parent
CHECKOUT = TESTS.parent
LONG = "mark.long"
LONG_S = 60.0  # seconds; a test that runs longer is named on the terminal, again and again
# The longest first. Workers get files whole, in this order with --no-loadscope-reorder, else by the
# number of tests: a long one that comes last is waited for by all the other workers.
LONGEST = (
    "test_doc_blocks.py",
    "e2e/test_demo_quality.py",
    "deploy/test_image.py",
    "deploy/test_replicas_live.py",
    "service/test_real_engine.py",
    "studio/test_browser.py",
    "studio/test_browser_saving.py",
    "studio/test_browser_pages.py",
    "examples/test_first_day_notebook.py",
    "studio/test_browser_tabs.py",
    "studio/test_browser_tools.py",
    "client/test_frameworks.py",
    "export/test_rtx_build.py",
    "training/test_label_formats.py",
    "studio/test_browser_export.py",
    "studio/test_browser_orders.py",
    "studio/test_browser_lists.py",
    "training/test_interrupted.py",
    "studio/test_connections.py",
    "studio/test_names.py",
    "datasets/test_resume.py",
    "deploy/test_render.py",
    "export/test_labeller.py",
    "export/test_fused_engine.py",
    "service/test_process.py",
    "export/test_label_kernel.py",
    "service/test_any_inference_request.py",
    "training/test_commands.py",
    "service/test_flow.py",
    "client/test_torch.py",
    "client/test_bench.py",
    "checkpoints/test_hostile_files.py",
    "export/test_score_engine.py",
    "service/test_any_request.py",
    "training/test_fit_inverse.py",
    "training/test_killed_encoder.py",
    "training/test_killed_invert.py",
    "training/test_second_device.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as cores: tests wait for clocks and other processes half of the time."""
    return available_cores() * 3 // 2


def pytest_configure(config: pytest.Config) -> None:
    """Workers have one thread each for torch: its threads would fight for the workers' cores."""
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by workers, and what they start
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(LongTests(reporter))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Garbage is not searched among modules and tests: that took an eighth of the suite's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


class LongTests:
    """Names tests on the terminal that have been running for a minute or more, every minute."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter, self._started = reporter, dict[str, float]()
        self._over = threading.Event()

    def pytest_sessionstart(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def pytest_sessionfinish(self) -> None:
        self._over.set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._started[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._started.pop(nodeid, None)

    def _watch(self) -> None:
        while not self._over.wait(LONG_S):
            now = time.monotonic()
            for nodeid, started in list(self._started.items()):
                if now - started >= LONG_S:
                    self._reporter.ensure_newline()
                    self._reporter.write_line(f"running for {now - started:.0f} s: {nodeid}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; within a file nothing moves."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    missing = [str(path) for path in places if not path.is_file()]
    assert not missing, f"{__file__} orders files that are gone: {missing}"
    items.sort(key=lambda item: places.get(item.path, len(places)))
    for path in {item.path for item in items if item.get_closest_marker("long")}:
        assert LONG in path.read_text(), f"{path}: .ci/run finds files of long tests by {LONG!r}"


def random_interpreter(features: int) -> Interpreter:
    """Three members for four classes and two keypoints, with lively statistics."""
    interpreter = Interpreter(
        (
            HeadConfig("segmentation", features, (16, 8), 4, members=3),
            HeadConfig("keypoints", features, (16, 8), 2, members=3),
        )
    )
    for name, tensor in interpreter.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.3)
    return interpreter.eval()


def write_tiny_weights(
    folder: Path, seed: int = 0, config: GeneratorConfig = CONFIG
) -> tuple[Path, Path]:
    """Random generator and interpreter files with their cards."""
    torch.manual_seed(seed)
    generator = generator_from_config(config).eval()
    interpreter = random_interpreter(config.features)
    for layer in generator.synthesis.modules():
        if isinstance(layer, SynthesisLayer):
            layer.noise_strength.data.fill_(0.1)
    generator_path, interpreter_path = folder / "generator.safetensors", folder / "i.safetensors"
    card = GeneratorCard(
        format=1,
        kind="generator",
        family=config.family,
        config=card_from_config(config),
        view_layers=3,
        truncation_psi=0.7,
        truncation_cutoff=config.num_ws,
        licences=["CC0-1.0"],
        provenance="random",
    )
    write_generator(generator_path, generator, card)
    write_interpreter(
        interpreter_path,
        interpreter,
        InterpreterCard(
            format=1,
            kind="interpreter",
            generator_sha256=sha256_of_file(generator_path),
            tap_recipe=config.tap_recipe,
            features=config.features,
            grid=config.resolution,
            crop_top=0,
            height=config.image_size[0],
            width=config.image_size[1],
            resize="bilinear",
            score_source="segmentation",
            licences=["CC0-1.0"],
            provenance="random",
            heads=head_cards(interpreter),
            segmentation=SegmentationCard(
                classes=[ClassCard(name=f"class {i}", color=i * 0x3F2F1F) for i in range(4)]
            ),
            keypoints=KeypointsCard(names=["a", "b"], skeleton=[(0, 1)], sigma_px=1.5, window_px=3),
            start=stated_start(config.start),
        ),
    )
    return generator_path, interpreter_path


@pytest.fixture(scope="module")
def device() -> CudaDevice:
    """A real GPU; skips where there is none."""
    try:
        return open_device()
    except RuntimeMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights files of a generator of 32 px and an ensemble for it. Do not change them."""
    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker in need of it makes, and all others wait for."""
    common = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    folder = common / name
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = factory.mktemp(name)
            make(unfinished)
            unfinished.rename(folder)
    return folder


def export_bundle(generator: Path, interpreter: Path, out: Path, samples: int) -> None:
    weights = ["--generator", str(generator), "--interpreter", str(interpreter)]
    target = ["--out", str(out), "--calibrate", str(samples)]
    export_command(["bundle", *weights, *target], standalone_mode=False)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated bundle of those weights, exported by the command. Do not change it."""

    def make(folder: Path) -> None:
        export_bundle(*tiny_weights, folder / "tiny", samples=256)

    return made_once(tmp_path_factory, "bundles", make) / "tiny"


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's bundle: what `make demo` left, or made anew where other code has made that, which
    takes minutes. Do not change it."""
    found = CHECKOUT / "demo"
    if not is_current(found):
        found = made_once(tmp_path_factory, "demo", make_demo)
    return found / "bundle"


def make_demo(folder: Path) -> None:
    generator, _ = generator_from_file(GENERATOR)
    labels, interpreter = folder / "labels", folder / "interpreter.safetensors"
    write_examples(generator, labels, sha256_of_file(GENERATOR))
    weights = ["--generator", str(GENERATOR), "--labels", str(labels), "--out", str(interpreter)]
    training_command(["interpreter", *weights, *HEAD_MEMBERS], standalone_mode=False)
    export_bundle(GENERATOR, interpreter, folder / "bundle", CALIBRATION_SAMPLES)
