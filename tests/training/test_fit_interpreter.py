"""Training is repeatable, resumes, learns, and can follow the published schedule."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from checkpoints import WeightsError
from nets.features import hypercolumn
from nets.interpreter import Interpreter, member_as_sequential
from nets.labels import majority
from tests.training.sets import partly_labelled, tiny_generator, tiny_labels
from training.errors import LabelError, TrainingError
from training.interpreter.command import cleaned
from training.interpreter.config import PUBLISHED, InterpreterTrainConfig
from training.interpreter.features import PixelFeatures, features_from_ws
from training.interpreter.losses import LabelLosses
from training.interpreter.pixel_sampler import PixelSampler
from training.interpreter.train import Step, TrainState, fit_interpreter, head_configs, train_step
from training.resume import StateFile, adam_with_moments, write_state


@dataclass
class Fit:
    """Everything `fit_interpreter` works with."""

    state: TrainState
    features: PixelFeatures
    losses: LabelLosses
    sampler: PixelSampler

    def run(self, first: int, last: int) -> None:
        for i in range(first, last):
            step = Step(self.sampler.draw(i, 256), 1e-2)
            losses = train_step(self.state, self.features, self.losses, step)
            self.state.update_stopped(losses["segmentation"], epoch=4)


FAST = InterpreterTrainConfig(members=2, steps=250, pixels=256, learning_rate=1e-2)
GENERATOR = tiny_generator()


def test_the_same_seed_gives_the_same_weights() -> None:
    labels, short = tiny_labels(), replace(FAST, steps=5)
    first, second = (fit_interpreter(GENERATOR, labels, short).state_dict() for _ in range(2))
    other = fit_interpreter(GENERATOR, labels, replace(short, seed=1)).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    name = "heads.segmentation.linear1.weight"
    assert not torch.equal(first[name], other[name])


def test_a_training_begins_with_given_weights_of_the_same_heads_and_reports_each_step() -> None:
    labels, short = replace(tiny_labels(), depth=None), replace(FAST, steps=3)
    reports: list[tuple[int, float]] = []
    before = fit_interpreter(
        GENERATOR,
        labels,
        short,
        report=lambda step, loss: reports.append((step, sum(loss.values()))),
    )
    assert [step for step, _ in reports] == [1, 2, 3]
    still = replace(short, learning_rate=1e-12, seed=5)
    name = "heads.segmentation.weight3"
    warm = fit_interpreter(GENERATOR, labels, still, start=before).state_dict()[name]
    assert torch.allclose(warm, before.state_dict()[name], atol=1e-6)
    # Other heads, or depth in units that were restored, begin anew.
    for others in (replace(labels, keypoints=None), tiny_labels()):
        fresh_ones = fit_interpreter(GENERATOR, others, still, start=before).state_dict()
        assert not torch.allclose(fresh_ones[name], before.state_dict()[name], atol=1e-4)


def test_a_smaller_head_leaves_the_others_bits_as_they_were() -> None:
    labels, short = tiny_labels(), replace(FAST, steps=5)
    same = fit_interpreter(GENERATOR, labels, short)
    fewer = fit_interpreter(GENERATOR, labels, replace(short, head_members=(("depth", 1),)))
    assert fewer.head("depth").config.members == 1
    for kind in ("segmentation", "keypoints"):
        others = fewer.head(kind).state_dict()
        for name, tensor in same.head(kind).state_dict().items():
            assert torch.equal(tensor, others[name]), (kind, name)


def fresh(config: InterpreterTrainConfig, dtype: torch.dtype = torch.float32) -> Fit:
    """A fit of the tiny set before its first step."""
    labels = tiny_labels()
    features = features_from_ws(GENERATOR, labels.ws, labels.crop, config.resize, dtype)
    torch.manual_seed(config.seed)
    interpreter = Interpreter(head_configs(labels, config, features.features)).to(dtype).train()
    optimizer = adam_with_moments(interpreter.parameters(), config.learning_rate)
    sampler = PixelSampler(labels, config.sigma(16), config.seed)
    return Fit(TrainState(interpreter, optimizer), features, LabelLosses(labels, config), sampler)


def test_a_state_taken_up_from_its_file_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, first, second = fresh(FAST), fresh(FAST), fresh(replace(FAST, seed=9))
    whole.run(0, 40)
    first.run(0, 20)
    write_state(tmp_path / "state", first.state.tensors(), {})
    StateFile(tmp_path / "state", {}, 1).resume(second.state.load)
    second.sampler = first.sampler
    second.run(second.state.step, 40)
    for name, tensor in whole.state.interpreter.state_dict().items():
        assert torch.equal(tensor, second.state.interpreter.state_dict()[name]), name
    assert torch.equal(whole.state.batches_waited, second.state.batches_waited)
    assert torch.equal(whole.state.lowest_loss, second.state.lowest_loss)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_state_has_the_members_that_stopped(tmp_path: Path, stopped: bool) -> None:
    first, second = fresh(FAST), fresh(FAST)
    first.run(0, 3)
    if stopped:
        losses = torch.tensor([1.0, 2.0])
        for loss in (losses, *[losses - torch.tensor([0.0, i]) for i in range(51)]):
            first.state.update_stopped(loss, PUBLISHED.first_epoch)
    assert first.state.stopped.tolist() == [stopped, False]
    write_state(tmp_path / "state", first.state.tensors(), {})
    StateFile(tmp_path / "state", {}, 1).resume(second.state.load)
    one, two = first.state.tensors(), second.state.tensors()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    for name in ("lowest_loss", "batches_waited", "stopped"):
        assert torch.equal(getattr(first.state, name), getattr(second.state, name)), name
    assert bool(second.state.weights_at_stop) == stopped


def test_a_state_of_other_labels_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    fit = fresh(FAST)
    fit.run(0, 1)
    path = tmp_path / "state"
    write_state(path, fit.state.tensors(), {"labels": "0" * 64})
    with pytest.raises(TrainingError, match="was made with other labels than this command has"):
        StateFile(path, {"labels": "1" * 64}, 1).resume(fit.state.load)
    other = fresh(replace(FAST, hidden=(4, 4)))
    with pytest.raises(TrainingError, match=r"is no state of this training \(model"):
        StateFile(path, {"labels": "0" * 64}, 1).resume(other.state.load)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match="is no intact safetensors file"):
        StateFile(path, {"labels": "0" * 64}, 1).resume(fit.state.load)


def test_members_learn_as_if_each_were_alone_by_the_published_recipe() -> None:
    """Same features, first weights, batches and order, in float64: losses and logits agree."""
    config = InterpreterTrainConfig(members=3, learning_rate=PUBLISHED.learning_rate)
    fit = fresh(config, torch.float64)
    labels = tiny_labels()
    assert labels.masks is not None
    every = torch.meshgrid(torch.arange(4), torch.arange(16), torch.arange(16), indexing="ij")
    features = fit.features.gather(*(axis.flatten() for axis in every))
    classes = torch.from_numpy(labels.masks).long().flatten()
    head = fit.state.interpreter.head("segmentation")
    alone = [copy.deepcopy(member_as_sequential(head, k)).train() for k in range(3)]
    for member in alone:
        member.requires_grad_(True)
    optimizers = [torch.optim.Adam(member.parameters(), lr=1e-3) for member in alone]
    order = fit.sampler.shuffled(0)
    for i in range(48):  # three times over all pixels
        start = i * 64 % 1024
        batch = order[start : start + 64]
        losses = train_step(
            fit.state, fit.features, fit.losses, Step(batch, PUBLISHED.learning_rate)
        )
        flat = (batch.images * 16 + batch.rows) * 16 + batch.columns
        for k, (member, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            loss = F.cross_entropy(member(features[flat]), classes[flat])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert abs(loss.item() - losses["segmentation"][k].item()) < 1e-6, (i, k)
    ours = fit.state.interpreter.eval()(features)["segmentation"]
    for k, member in enumerate(alone):
        assert (member.eval()(features) - ours[k]).abs().max() < 1e-6


def test_a_member_stops_by_the_published_rule_as_it_is_then() -> None:
    fit = fresh(FAST)
    state = fit.state
    script = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    stopped_at: dict[int, int] = {}
    best, waited = [float("inf")] * 2, [0, 0]
    weights: dict[int, Tensor] = {}
    for i, losses in enumerate(script):
        epoch = i // 40
        state.interpreter.head("segmentation").weight2.data.fill_(float(i))
        state.update_stopped(losses, epoch)
        for k in range(2):  # the release, one member after another
            if epoch > 3 and k not in stopped_at:
                better = losses[k].item() < best[k]
                best[k] = min(best[k], losses[k].item())
                waited[k] = 0 if better else waited[k] + 1
                if waited[k] > 50:
                    stopped_at[k] = i
                    weights[k] = torch.tensor(float(i))
        assert state.stopped.tolist() == [k in stopped_at for k in range(2)], i
    assert len(stopped_at) == 2 and stopped_at[0] != stopped_at[1]
    state.restore_stopped()
    for k in range(2):
        assert (state.interpreter.head("segmentation").weight2[k] == weights[k]).all()


def test_the_published_schedule_takes_regions_of_under_30_pixels_as_background(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = tiny_labels()
    assert labels.masks is not None and labels.classes is not None
    masks = np.zeros_like(labels.masks)
    masks[0, :5, :6], masks[0, 8, :15], masks[0, 9, :14] = 1, 2, 2  # 30 pixels, and 29
    masks[1, 2, 2], masks[1, 5] = 1, labels.ignore_id
    wanted = masks.copy()
    for mask in wanted:  # as the published code does
        for class_id in range(1, len(labels.classes.cards)):
            if (mask == class_id).sum() < 30:
                mask[mask == class_id] = 0
    given = replace(labels, masks=masks)
    found = cleaned(given)
    assert found.masks is not None and np.array_equal(found.masks, wanted)
    assert np.array_equal(masks[0, 8, :15], [2] * 15)  # the caller's are as they were
    names = [card.name for card in labels.classes.cards]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in said] == [
        f"{names[1]} counts as background in {labels.stems[1]}",
        f"{names[2]} counts as background in {labels.stems[0]}",
    ]


def test_the_published_schedule_ends_by_itself_and_learns() -> None:
    labels = tiny_labels()
    assert labels.masks is not None
    interpreter = fit_interpreter(GENERATOR, labels, replace(FAST, schedule="published"))
    taps = GENERATOR.synthesis(torch.from_numpy(labels.ws)).taps
    features = hypercolumn(taps, (16, 16)).permute(0, 2, 3, 1).flatten(0, 2)
    votes = majority(interpreter(features)["segmentation"])
    assert (votes.numpy() == labels.masks.ravel()).mean() > 0.9


def test_a_trained_ensemble_labels_its_own_images() -> None:
    labels = tiny_labels()
    assert labels.masks is not None and labels.keypoints is not None and labels.depth is not None
    interpreter = fit_interpreter(GENERATOR, labels, FAST)
    taps = GENERATOR.synthesis(torch.from_numpy(labels.ws)).taps
    features = hypercolumn(taps, (16, 16)).permute(0, 2, 3, 1).flatten(0, 2)
    predicted = interpreter(features)
    assert (majority(predicted["segmentation"]).numpy() == labels.masks.ravel()).mean() > 0.9
    heat = predicted["keypoints"].mean(dim=0).view(4, 256)
    found = torch.stack([heat.argmax(1) % 16, heat.argmax(1) // 16], dim=1).numpy() + 0.5
    assert np.abs(found - labels.keypoints[:, 0, :2]).max() <= 1.5
    depth = predicted["depth"].mean(dim=0).view(4, 16, 16).numpy()
    assert np.abs(depth - labels.depth).mean() < 0.3 * labels.depth.std()


def test_images_that_nobody_labelled_for_a_head_still_train_the_others() -> None:
    interpreter = fit_interpreter(GENERATOR, partly_labelled(), replace(FAST, steps=3))
    assert list(interpreter.heads) == ["segmentation", "keypoints", "depth"]
    assert all(torch.isfinite(t).all() for t in interpreter.state_dict().values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(FAST, class_weights=(1.0, 2.0)), "2 class weights are given for 3 classes"),
        (replace(FAST, learning_rate=1e30), r"the loss is (nan|inf) at step \d+; lower --learning"),
    ],
)
def test_settings_that_cannot_work_end_in_one_line(
    config: InterpreterTrainConfig, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        fit_interpreter(GENERATOR, tiny_labels(), config)


def test_latents_of_another_generator_are_refused() -> None:
    labels = tiny_labels()
    with pytest.raises(LabelError, match=r"\[5, 8\] per image; this generator reads \[6, 8\]"):
        fit_interpreter(GENERATOR, replace(labels, ws=labels.ws[:, :5]), FAST)
