"""Whatever a killed writer of weights and card has left, the next run goes on: there are no weights
yet, or a pair that belongs together.

A kill leaves what is on disk, so the folder is copied at each file operation of the writer.
"""

import errno
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from bundle.files import LEFT
from checkpoints import (
    WeightsError,
    encoder_from_file,
    generator_from_file,
    interpreter_from_file,
    inverse_graphics_from_file,
    refiner_from_file,
    views_from_file,
    write_encoder,
    write_generator,
    write_interpreter,
    write_inverse_graphics,
    write_refiner,
    write_views,
)
from checkpoints.weights import save_tensors, tensors_from_file
from tests.checkpoints import (
    test_encoder,
    test_inverse_graphics,
    test_refiner,
    test_views,
)
from training.errors import TrainingError
from training.options import can_resume, refuse_existing
from training.resume import StateFile, state_path

Pair = tuple[Any, Any]  # a module or codes, and the card
Kind = tuple[Callable[[Path], Pair], Callable[[Path, Any, Any], None], Callable[[Path], Pair]]
KINDS: dict[str, Kind] = {
    "generator": (generator_from_file, write_generator, lambda path: generator_from_file(path)),
    "interpreter": (interpreter_from_file, write_interpreter, interpreter_from_file),
    "encoder": (
        encoder_from_file, write_encoder, lambda _: (test_encoder.encoder(), test_encoder.CARD),
    ),
    "refiner": (
        refiner_from_file, write_refiner,
        lambda _: (test_refiner.refiner(), test_refiner.card(test_refiner.refiner())),
    ),
    "inverse graphics": (
        inverse_graphics_from_file, write_inverse_graphics,
        lambda _: (test_inverse_graphics.inverse_graphics(), test_inverse_graphics.CARD),
    ),
    "views": (views_from_file, write_views, lambda _: (test_views.CODES, test_views.CARD)),
}  # fmt: skip
_copied: Callable[[str, str], None] | None = None  # what is done at each file operation


def _audited(event: str, arguments: tuple[Any, ...]) -> None:
    global _copied
    if _copied is not None and event in ("open", "os.rename", "os.remove", "tempfile.mkstemp"):
        copy, _copied = _copied, None  # copying opens files, too
        copy(event, str(arguments[0]))
        _copied = copy


sys.addaudithook(_audited)


@contextmanager
def copied_at_each_operation(folder: Path, into: Path) -> Iterator[None]:
    """Copies the folder to `into`/0, 1 ... before each operation of the block on a file of it."""
    global _copied
    into.mkdir()

    def copy(_event: str, path: str) -> None:
        if path.startswith(str(folder)):
            shutil.copytree(folder, into / str(len(list(into.iterdir()))))

    _copied = copy
    try:
        yield
    finally:
        _copied = None


def numbers_of(found: Any) -> list[float]:
    """Sums of the tensors of a module, or of codes."""
    tensors = found.state_dict() if isinstance(found, nn.Module) else {"": torch.tensor(found)}
    return [float(tensor.double().sum()) for _, tensor in sorted(tensors.items())]


def changed(pair: Pair) -> Pair:
    """Other weights of the same shapes, and a card that says so."""
    found, card = pair
    if isinstance(found, nn.Module):
        state = {n: t + 1 if t.is_floating_point() else t for n, t in found.state_dict().items()}
        found.load_state_dict(state)
    else:
        found = found + 1
    return found, msgspec.structs.replace(card, licences=["another"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_leaves_no_weights_or_a_pair_that_belongs_together(
    kind: str, tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    read, write, make = KINDS[kind]
    source = tiny_weights[kind == "interpreter"]
    folder, out = tmp_path / "out", tmp_path / "out" / "w.safetensors"
    folder.mkdir()
    with copied_at_each_operation(folder, tmp_path / "first"):
        write(out, *make(source))
    old = numbers_of(read(out)[0]), read(out)[1]
    again = changed(make(source))
    with copied_at_each_operation(folder, tmp_path / "forced"):
        write(out, *again)
    new = numbers_of(read(out)[0]), read(out)[1]
    assert old[0] != new[0] and len(contents(folder)) == 2
    lefts = [*(tmp_path / "first").iterdir(), *(tmp_path / "forced").iterdir()]
    states = {frozenset(contents(left).items()): left for left in lefts}
    assert len(states) > 5 and not all((left / out.name).exists() for left in lefts)
    for left in {visible(left): left for left in states.values()}.values():
        path = left / out.name
        if path.exists():
            assert (numbers_of(read(path)[0]), read(path)[1]) in (old, new)
        else:
            refuse_existing(path, force=False)
    last = max(states.values(), key=lambda left: len(contents(left)))
    assert len(contents(last)) > 2
    write(last / out.name, *again)
    assert contents(last) == contents(folder)


def test_writers_of_one_pair_wait_for_each_other_and_leave_files_of_other_names(
    tmp_path: Path,
) -> None:
    out, errors = tmp_path / "w.safetensors", list[Exception]()
    others = {f".{name}.original": b"mine" for name in ("w.safetensors", "w.toml")}
    for name, text in others.items():
        (tmp_path / name).write_bytes(text)
    (tmp_path / ".w.toml.12345678.partial").mkdir()

    def write(number: int) -> None:
        try:
            for _ in range(10):
                write_views(out, test_views.CODES + number, test_views.CARD)
        except Exception as error:
            errors.append(error)

    writers = [Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not errors and views_from_file(out)[1] == test_views.CARD
    (tmp_path / ".w.toml.12345678.partial").rmdir()
    assert contents(tmp_path).keys() == {out.name, "w.toml", *others}


def test_tensors_are_written_into_the_given_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.touch()
    number = path.stat().st_ino
    save_tensors(path, {"x": torch.ones(2)})
    assert path.stat().st_ino == number and tensors_from_file(path)["x"].tolist() == [1, 1]


def test_a_pair_that_cannot_be_written_leaves_the_old_weights(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    write_views(out, test_views.CODES, test_views.CARD)
    (tmp_path / "w.toml").unlink()
    (tmp_path / "w.toml").mkdir()
    with pytest.raises(WeightsError, match=r"cannot be written.*directory.*w\.toml"):
        write_views(out, test_views.CODES + 1, test_views.CARD)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "w.toml"]
    with pytest.raises(WeightsError, match="name of a card"):
        write_views(tmp_path / "v.toml", test_views.CODES, test_views.CARD)


def test_a_disk_that_fails_while_a_pair_is_written_leaves_a_whole_one(tmp_path: Path) -> None:
    """Some report a full disk only when a file is synced."""
    global _copied
    out, failed, left = tmp_path / "w.safetensors", 0, 0
    opened = Counter[str]()

    def fail(event: str, path: str) -> None:
        nonlocal left
        if event == "open" and path.endswith(LEFT):
            left, opened[path] = left - 1, opened[path] + 1
            if left < 0 and opened[path] <= 3:  # made, written, synced; then it has its place
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for moment in range(100):
        write_views(out, test_views.CODES, test_views.CARD)
        left = moment
        _copied = fail
        try:
            write_views(out, test_views.CODES + 1, changed((test_views.CODES, test_views.CARD))[1])
        except WeightsError:
            failed += 1
        finally:
            _copied = None
        codes, card = views_from_file(out)
        assert (codes[0] == test_views.CODES[0]).all() == (card == test_views.CARD)
        assert contents(tmp_path).keys() == {out.name, "w.toml"}
        if left >= 0:
            break
    assert failed > 3


def test_a_state_that_is_not_needed_any_more_takes_only_unfinished_files_with_it(
    tmp_path: Path,
) -> None:
    state = StateFile(tmp_path / "w.state.safetensors", {}, 1)
    own = f".{state.path.name}.12345678.partial"
    for name in (state.path.name, own, f".{state.path.name}.original"):
        (tmp_path / name).touch()
    (tmp_path / f".{state.path.name}.d").mkdir()
    state.remove()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f".{state.path.name}.d", f".{state.path.name}.original"]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def visible(folder: Path) -> frozenset[tuple[str, bytes]]:
    return frozenset(each for each in contents(folder).items() if not each[0].startswith("."))


def test_weights_without_the_state_to_resume_from_are_refused_with_a_way_out(
    tmp_path: Path,
) -> None:
    out = tmp_path / "r.safetensors"
    assert not can_resume(out, resume=True)  # a job that is always started with --resume
    out.touch()
    with pytest.raises(TrainingError, match=r"r\.state\.safetensors.*delete it to train from"):
        can_resume(out, resume=True)
    state_path(out).touch()
    assert can_resume(out, resume=True) and not can_resume(out, resume=False)
