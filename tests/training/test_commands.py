"""From a weights file to an evaluated interpreter, as a user types it."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from checkpoints import (
    GeneratorCard,
    card_from_config,
    generator_from_path,
    interpreter_from_file,
    member_paths,
    write_generator,
)
from export.__main__ import main as export
from labelmint.latents import Purpose, latents
from tests.training.sets import CLASSES, tiny_generator
from training.__main__ import SUBCOMMANDS, main, run
from training.errors import TrainingError
from training.images.image_set import image_set_from_folder
from training.interpreter.config import USUAL_MEASURE
from training.labels.labelled_set import LabelledSet
from training.labels.write import write_labels
from training.options import MAX_COUNT


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "g.safetensors"
    generator = tiny_generator()
    generator.mapping.w_avg.fill_(0.25)
    card = GeneratorCard(
        format=1,
        kind="generator",
        family="stylegan2",
        config=card_from_config(generator.config),
        view_layers=0,
        truncation_psi=0.5,
        truncation_cutoff=4,
        licences=["CC0-1.0"],
        provenance="by a test",
    )
    write_generator(path, generator, card)
    return path


def subcommands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        subcommand = group.get_command(context, name)
        assert subcommand is not None
        yield name, subcommand


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def labelled(weights: Path, folder: Path, count: int = 4, seed: int = 3) -> Path:
    """A drawn set whose labels are functions of its images."""
    drawing = ("--count", count, "--seed", seed)
    result = command("sample", "--generator", weights, "--out", folder, *drawing)
    assert result.exit_code == 0, result.output
    images = image_set_from_folder(folder)
    grey = np.stack([images.image(row)[..., 0] for row in range(count)])
    masks = (grey > grey.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
    masks[:, :2, :2] = 2
    labels = LabelledSet(
        images.crop,
        tuple(images.stems),
        images.ws,
        classes=CLASSES,
        masks=masks,
        depth=(grey / 50 + 1).astype(np.float32),
        depth_unit="m",
    )
    write_labels(folder, labels)
    return folder


@pytest.mark.parametrize("name", ["interpreter", "evaluate"])
def test_labels_are_counted_and_a_class_without_a_pixel_stops_before_training(
    weights: Path, tmp_path: Path, name: str
) -> None:
    folder, out = labelled(weights, tmp_path / "set"), tmp_path / "i.safetensors"
    start = ("--generator", weights, "--labels", folder)
    trained: tuple[object, ...] = (
        "interpreter",
        *start,
        "--out",
        out,
        "--members",
        1,
        "--steps",
        1,
    )
    if name == "evaluate":
        assert command(*trained).exit_code == 0
        trained = ("evaluate", *start, "--interpreter", out, "--out", tmp_path / "report")
    for path in (folder / "masks").iterdir():
        Image.fromarray(np.minimum(np.array(Image.open(path)), 1)).save(path)
    result = command(*trained)
    assert result.exit_code == 1 and "4 of 4 images have labels: 4 with masks" in result.output
    assert "corner             0    0.0%               4" in result.output
    assert "--allow-empty-classes" in str(result.exception)
    assert command(*trained, "--allow-empty-classes").exit_code == 0


def test_drawn_images_are_the_streams_samples_of_those_indices(
    weights: Path, tmp_path: Path
) -> None:
    folder = labelled(weights, tmp_path / "set")
    images = image_set_from_folder(folder)
    generator, card = generator_from_path(weights)
    chosen = [int(str(e.source).split()[1]) for e in images.index.images]
    assert len(set(chosen)) == 4 and max(chosen) < 64
    w = generator.mapping(torch.from_numpy(latents(3, Purpose.OBJECT, chosen, 8))).detach()
    expected = w[:, None].repeat(1, 6, 1)
    mean = generator.mapping.w_avg
    expected[:, :4] = mean + 0.5 * (expected[:, :4] - mean)
    np.testing.assert_allclose(images.ws, expected, atol=1e-6)
    assert (card.truncation_psi, card.truncation_cutoff) == (0.5, 4)


def test_chosen_images_lie_farther_apart_than_the_first_ones(weights: Path, tmp_path: Path) -> None:
    def nearest(folder: Path, *more: object) -> float:
        command("sample", "--generator", weights, "--out", folder, "--count", 8, "--psi", 1, *more)
        ws = image_set_from_folder(folder).ws[:, 0]
        apart = np.linalg.norm(ws[:, None] - ws[None], axis=2)
        return float(apart[~np.eye(8, dtype=bool)].min())

    first = nearest(tmp_path / "first", "--candidates", 8)
    assert nearest(tmp_path / "spread", "--choose", "farthest") > 1.5 * first


def test_a_labelled_folder_becomes_weights_members_and_a_report(
    weights: Path, tmp_path: Path
) -> None:
    folder, held_out = (
        labelled(weights, tmp_path / "set"),
        labelled(weights, tmp_path / "test", 10, 4),
    )
    out, members, report = (tmp_path / name for name in ("i.safetensors", "members", "report"))
    start = ("--generator", weights, "--labels")
    result = command(
        "interpreter", *start, folder, "--out", out, "--members", 3, "--steps", 150,
        "--head-members", "depth", 2, "--class-weights", "1,2,0", "--hidden", "16,8",
        "--members-out", members,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["i.safetensors", "i.toml"]
    interpreter, card = interpreter_from_file(out)
    assert {head.kind: head.members for head in card.heads} == {"segmentation": 3, "depth": 2}
    head = interpreter.head("segmentation")
    for k, path in enumerate(member_paths(members)):
        content = torch.load(path, weights_only=True)["model_state_dict"]
        torch.testing.assert_close(content["module.layers.3.weight"], head.weight2[k].t())
        assert set(content) > {"module.layers.2.running_var", "module.layers.6.bias"}
    result = command(
        "evaluate", *start, held_out, "--interpreter", out, "--out", tmp_path / "report"
    )
    assert result.exit_code == 0, result.output
    numbers = json.loads((report / "evaluation.json").read_text())
    assert numbers["all"]["images"] == 10 and numbers["kept"]["images"] == 9
    assert numbers["all"]["miou"] > 0.5 and f"{numbers['all']['miou']:.3f}" in result.output
    for name, width in {"evaluation": 1000, "worst": 4 * 192}.items():
        with Image.open(report / f"{name}.png") as picture:
            assert picture.width > width
    assert numbers["trained_on"] == [] and "warning" not in result.output
    result = command(
        "evaluate", *start, folder, "--interpreter", out, "--out", tmp_path / "flattering"
    )
    assert "was trained on 4 of these 4 images (000, 001, 002, 003)" in result.output


@pytest.mark.slow
def test_a_fit_that_was_killed_is_taken_up_and_ends_with_the_same_file(
    weights: Path, tmp_path: Path
) -> None:
    folder = labelled(weights, tmp_path / "set")
    out, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    arguments = [
        "interpreter",
        "--generator",
        str(weights),
        "--labels",
        str(folder),
        "--members",
        "2",
        "--steps",
        "1200",
        "--pixels",
        "32",
        "--hidden",
        "8,8",
        "--out",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *arguments, str(out)],
        stderr=subprocess.DEVNULL,
    )
    partial = tmp_path / "killed.state.safetensors"
    while not partial.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    result = command(*arguments, out, "--seed", 1)
    assert result.exit_code == 1 and "was made with seed 0, this command has 1" in str(
        result.exception
    )
    assert command(*arguments, out).exit_code == 0
    assert command(*arguments, whole).exit_code == 0
    assert out.read_bytes() == whole.read_bytes() and not partial.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--class-weights", "1,x"), 2, "'1,x' is no list of numbers"),
        (("--hidden", "16"), 1, "it takes two widths"),
        (("--class-weights", "0,0,0"), 1, "not all 0"),
        (("--class-weights", "inf,1,1"), 2, "has a number that is not finite"),
        (("--class-weights", "1,nan,1"), 2, "has a number that is not finite"),
        (("--members", "0"), 2, "0 is not in the range"),
        (("--head-members", "depth", "0"), 2, "0 is not in the range"),
        (("--head-members", "pose", "2"), 2, "'pose' is not one of"),
        (("--head-members", "depth", "2") * 2, 1, "it takes each head once"),
        (("--head-members", "keypoints", "2"), 1, "leave --head-members keypoints out"),
        (
            ("--head-members", "depth", "2", "--schedule", "published"),
            1,
            "so all heads need the same --members",
        ),
        (("--labels", "nowhere"), 1, "index.json cannot be read"),
        (("--masks", "nowhere"), 1, "nowhere cannot be read"),
        (("--device", "abacus"), 2, "torch cannot use 'abacus' here"),
        (("--device", "meta"), 2, "torch cannot use 'meta' here"),  # it has no data
        (("--hidden", "8," + "9" * 400), 2, "has a number that is not finite"),
        (("--hidden", "8,99999999999"), 1, "takes two widths of up to 65536, such as 256,32"),
        (("--out", "x.pth"), 1, "weights are written as .safetensors"),
        (("--mean-latent", "mean.npy"), 1, "brings its own; leave it out"),
        (("--learning-rate", "nan"), 2, "nan is not a number"),
        (("--sigma", "NaN"), 2, "nan is not a number"),
        (("--sigma", "inf"), 2, "inf is not finite"),
        (
            ("--schedule", "published", "--learning-rate", "0.01"),
            2,
            "--learning-rate has no effect with --schedule published",
        ),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    weights: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    folder, out = labelled(weights, tmp_path / "set"), tmp_path / "i.safetensors"
    start = ("interpreter", "--generator", weights, "--labels", folder, "--out", out)
    result = command(*start, *arguments)
    assert result.exit_code == code
    error = result.output if code == 2 else str(result.exception)
    assert message in " ".join(error.split())
    if code == 1:
        assert isinstance(result.exception, TrainingError) and "\n" not in error


@pytest.mark.parametrize(
    ("arguments", "measure"),
    [
        (("--steps", 1), USUAL_MEASURE),
        (("--steps", 1, "--score-measure", "entropy"), "entropy"),
        (("--schedule", "published"), "jensen_shannon"),
        (("--schedule", "published", "--score-measure", "least_confidence"), "least_confidence"),
    ],
)
def test_the_score_is_by_the_measure_of_the_flag_else_of_the_schedule(
    weights: Path, tmp_path: Path, arguments: tuple[object, ...], measure: str
) -> None:
    """The published schedule has the papers' divergence, whatever is usual."""
    folder, out = labelled(weights, tmp_path / "set", count=1), tmp_path / "i.safetensors"
    start = ("interpreter", "--generator", weights, "--labels", folder, "--out", out)
    result = command(*start, "--members", 1, *arguments)
    assert result.exit_code == 0, result.output
    assert interpreter_from_file(out)[1].score_measure == measure


def test_evaluate_tests_the_cards_measure_or_another(weights: Path, tmp_path: Path) -> None:
    folder, out = labelled(weights, tmp_path / "set", count=3), tmp_path / "i.safetensors"
    start = ("--generator", weights, "--labels", folder)
    trained = command("interpreter", *start, "--out", out, "--members", 2, "--steps", 3,
                      "--score-measure", "entropy")  # fmt: skip
    assert trained.exit_code == 0, trained.output
    for other in (None, "least_confidence"):
        more = () if other is None else ("--score-measure", other)
        result = command(
            "evaluate", *start, "--interpreter", out, "--out", tmp_path / "report", *more
        )
        measure = other or "entropy"
        assert result.exit_code == 0, result.output
        assert f"uncertainty of segmentation ({measure}) against" in result.output
        numbers = json.loads((tmp_path / "report" / "evaluation.json").read_text())
        assert numbers["calibration"]["score_measure"] == measure


def test_a_measure_of_classes_needs_masks(weights: Path, tmp_path: Path) -> None:
    folder, out = labelled(weights, tmp_path / "set"), tmp_path / "i.safetensors"
    shutil.rmtree(folder / "masks")
    (folder / "classes.toml").unlink()
    start = ("interpreter", "--generator", weights, "--labels", folder, "--out", out)
    result = command(*start, "--score-measure", "entropy")
    assert result.exit_code == 1 and "has no masks; leave it out" in str(result.exception)
    assert command(*start, "--steps", 1, "--members", 1).exit_code == 0
    card = interpreter_from_file(out)[1]
    assert (card.score_source, card.score_measure) == ("depth", "jensen_shannon")
    start = ("evaluate", "--generator", weights, "--labels", folder, "--interpreter", out)
    result = command(*start, "--out", tmp_path / "r", "--score-measure", "entropy")
    assert result.exit_code == 1 and "is of depth; leave it out" in str(result.exception)


def test_the_list_of_subcommands_has_the_first_line_of_the_help_of_each() -> None:
    """Without an import of any: together they take seconds."""
    found = {name: (command.help or "").splitlines()[0] for name, command in subcommands(main)}
    assert found == SUBCOMMANDS
    said = " ".join(command("--help").output.split())
    assert all(f"{name} {line}" in said for name, line in SUBCOMMANDS.items())


def test_help_has_the_default_of_every_option() -> None:
    for group in (main, export):
        for name, subcommand in subcommands(group):
            context = click.Context(subcommand, info_name=name, show_default=True)
            for option in subcommand.params:
                if isinstance(option, click.Option) and not (option.required or option.is_flag):
                    record = option.get_help_record(context)
                    assert record is not None and "default: " in record[1], (name, option.opts)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (click.types.FloatParamType, "nan", "nan is not a number"),
        (click.types.FloatParamType, "inf", "inf is not"),
        (click.types.IntParamType, "9" * 20, "9" * 20),  # numpy and torch end with tracebacks
    ],
)
def test_no_subcommand_takes_a_number_that_nothing_can_have(
    kind: type, value: str, message: str
) -> None:
    numbers = 0
    for name, subcommand in subcommands(main):
        for parameter in subcommand.params:
            if isinstance(parameter.type, kind):
                numbers += 1
                if (value, parameter.opts) == ("inf", ["--gradient-norm"]):
                    continue  # gradients are not clipped
                result = command(name, parameter.opts[0], value)
                assert result.exit_code == 2, parameter.opts
                assert message in result.output
    assert numbers > 30


def test_what_was_made_before_is_replaced_only_by_force(weights: Path, tmp_path: Path) -> None:
    folder, kept = labelled(weights, tmp_path / "set"), tmp_path / "kept.safetensors"
    kept.write_text("hours of work")
    lines: dict[str, tuple[object, ...]] = {
        "interpreter": ("--labels", folder),
        "encoder": (),
        "views": ("--view-layers", 1, "--candidates", 4, "--count", 2),
    }
    for verb, options in lines.items():
        result = command(verb, "--generator", weights, "--out", kept, *options)
        assert result.exit_code == 1 and "exists; give --force" in str(result.exception), verb
        assert kept.read_text() == "hours of work"
    line = ("--generator", weights, "--out", kept, *lines["views"], "--force")
    assert command("views", *line).exit_code == 0
    assert kept.read_bytes() != b"hours of work"


def test_the_folder_of_the_weights_is_made(weights: Path, tmp_path: Path) -> None:
    folder = labelled(weights, tmp_path / "set")
    out, bank = tmp_path / "a/b/i.safetensors", tmp_path / "c/v.safetensors"
    trained = ("interpreter", "--labels", folder, "--out", out, "--members", 1, "--steps", 2)
    views = ("views", "--out", bank, "--count", 2, "--view-layers", 1)
    for name, *options in (trained, views):
        result = command(name, "--generator", weights, *options)
        assert result.exit_code == 0, result.output
    assert out.exists() and bank.exists()


def test_an_error_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "training", "sample", "--generator", "no.pkl", "--out", tmp_path],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: no.pkl") and len(result.stderr.splitlines()) == 1


Fails = Callable[..., str]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Fails]:
    """Runs the command line within this process, and gives what it says as it ends with code 1."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run_words(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 1
        return capsys.readouterr().err

    yield run_words
    for number, handler in handlers.items():  # which the command replaces
        signal.signal(number, handler)


def test_an_error_of_the_system_cannot_steer_a_terminal(
    weights: Path, tmp_path: Path, fails: Fails
) -> None:
    out = tmp_path / "a\x1b[2J\n" / "set"
    out.parent.touch()
    last = fails("sample", "--generator", weights, "--out", out).splitlines()[-1]
    assert last.startswith("error: ")  # behind the progress
    assert "a\\x1b[2J\\n" in last and last.isprintable()


def test_more_than_memory_holds_is_one_line(weights: Path, tmp_path: Path, fails: Fails) -> None:
    said = fails("sample", "--generator", weights, "--out", tmp_path, "--count", MAX_COUNT)
    assert said.startswith("error: not enough memory: Unable to allocate")
    assert len(said.splitlines()) == 1


@pytest.mark.long
def test_a_network_that_no_memory_holds_is_one_line(weights: Path, tmp_path: Path) -> None:
    """PyTorch raises RuntimeError for it."""
    labels, most = labelled(weights, tmp_path / "set"), 12 << 30
    out = str(tmp_path / "i.safetensors")
    words = ["--generator", str(weights), "--labels", str(labels), "--out", out]
    result = subprocess.run(
        [sys.executable, "-m", "training", "interpreter", *words, "--hidden", "65536,65536"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert last.startswith("error: not enough memory: ") and "can't allocate memory" in last
