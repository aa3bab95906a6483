"""The bench world's generator: cached scenes, training that resumes, and figures that are right."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from checkpoints import generator_from_file
from examples.bench_world import train_generator as training
from examples.bench_world.__main__ import renderer_sha256
from examples.bench_world.cache import (
    CYCLE,
    FORCED,
    RARE_COORDINATES,
    CacheCard,
    cached_latents,
    conditioned_on_part,
    grow_cache,
    open_cache,
)
from examples.bench_world.judge_generator import (
    MIN_AREA,
    Scenes,
    appearances,
    colors,
    drawn_images,
    judge,
    main,
    rendered_scenes,
)
from examples.bench_world.numbers import kept_table, numbers_of_scene, table_of_numbers
from examples.bench_world.render import RESOLUTION, render
from examples.bench_world.scene import (
    CLASS_NAMES,
    EARRING,
    GLASSES,
    RARE_SHARES,
    Z_DIM,
    Scene,
    scene_from_latents,
    scene_of_sample,
    uniforms_from_latent,
)
from examples.bench_world.shares import classes_of_scene
from examples.imitation import WARMUP_STEPS, fitted_probe
from labelmint.latents import Purpose, latents
from nets.ops import resample_kernel, upsample_2x
from nets.stylegan2 import Generator, GeneratorConfig

CARD = CacheCard(seed=3, resolution=16, piece=4, renderer_sha256="0" * 64)
CHANNELS = (8, 8, 8, 8, 8, 4)


def tiny_generator(resolution: int = RESOLUTION, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    channels = CHANNELS[: resolution.bit_length() - 2]
    config = GeneratorConfig(resolution, channels, z_dim=Z_DIM, w_dim=16, mapping_layers=2)
    return Generator(config).requires_grad_(False)


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    card = replace(CARD, resolution=RESOLUTION, renderer_sha256=renderer_sha256())
    grow_cache(folder, card, count=8, workers=1)
    return folder


def tiny_options(cache: Path, folder: Path) -> training.Options:
    return training.Options(
        cache=cache,
        out=folder / "generator.safetensors",
        start=None,
        checkpoint=folder / "generator.checkpoint",
        minutes=1e-6,  # spent after one step
        resolution=32,
        batch=4,
        lr=3e-3,
        fall=0.3,
        mapping_steps=3,
        mapping_scenes=40,
        channels=CHANNELS,
        bf16=False,
        seed=1,
        save_every_s=60.0,
    )


def test_an_interrupted_cache_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    grow_cache(whole, CARD, count=8, workers=1)
    grow_cache(parted, CARD, count=4, workers=1)
    # As an interruption leaves it: images without masks, and a file half written.
    (parted / "images-00001.npy").write_bytes(b"\x93NUMPY")
    (parted / "masks-00001.partial").write_bytes(b"")
    assert len(open_cache(parted)) == 4
    grow_cache(parted, CARD, count=7, workers=1)  # rounded up to whole pieces
    names = ["images-00000.npy", "images-00001.npy", "masks-00000.npy", "masks-00001.npy"]
    for name in names:
        assert (parted / name).read_bytes() == (whole / name).read_bytes()
    z, images, masks = open_cache(parted).batch([6, 1])
    for row, index in enumerate([6, 1]):
        assert np.array_equal(z[row], cached_latents(3, [index])[0])
        truth = render(scene_from_latents(z[row], z[row]), 16)
        assert np.array_equal(images[row], truth.image)
        assert np.array_equal(masks[row], truth.mask)


def test_a_folder_of_another_cache_is_refused(tmp_path: Path) -> None:
    grow_cache(tmp_path, CARD, count=1, workers=1)
    with pytest.raises(ValueError, match=r"seed=3.*not of.*seed=4.*choose another folder"):
        grow_cache(tmp_path, replace(CARD, seed=4), count=1, workers=1)
    (tmp_path / "masks-00000.npy").unlink()
    with pytest.raises(FileNotFoundError, match="no whole piece of 4 scenes"):
        open_cache(tmp_path)


def test_forced_scenes_have_their_rare_part_and_others_are_natural() -> None:
    z = cached_latents(5, range(2 * CYCLE))
    natural = latents(5, Purpose.OBJECT, range(2 * CYCLE), Z_DIM)
    for index, (row, plain) in enumerate(zip(z, natural, strict=True)):
        part = FORCED.get(index % CYCLE)
        if part is None:
            assert np.array_equal(row, plain)
        else:
            assert part in classes_of_scene(scene_from_latents(row, row))


def test_conditioning_scales_one_uniform_number_and_keeps_the_ratios_of_the_others() -> None:
    plain = latents(6, Purpose.OBJECT, [0], Z_DIM)[0]
    for part, share in RARE_SHARES.items():
        k = RARE_COORDINATES[part]
        moved = conditioned_on_part(plain, part)
        expected = uniforms_from_latent(plain)[k] * share
        assert uniforms_from_latent(moved)[k] == pytest.approx(expected, rel=1e-4)
        others = np.delete(np.arange(Z_DIM), k)
        ratio = moved[others] / plain[others]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
        assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(plain), rel=1e-5)


def test_every_parameter_of_a_scene_is_among_its_numbers() -> None:
    scene = scene_of_sample(0, 0)
    numbers = numbers_of_scene(scene)
    others = [scene_of_sample(0, i) for i in range(1, 25)]
    changes: dict[str, object] = {"earrings": not scene.earrings, "eyepatch": 1, "plaster": -1}
    for name in {f.name for f in fields(Scene)} - changes.keys():
        here = getattr(scene, name)
        values = (getattr(found, name) for found in others)
        changes[name] = next(value for value in values if np.any(np.asarray(value != here)))
    for name, value in changes.items():
        changed = numbers_of_scene(replace(scene, **{name: value}))  # type: ignore[arg-type]
        assert changed.shape == numbers.shape
        assert not np.array_equal(changed, numbers), name


def test_the_table_of_numbers_is_standardized() -> None:
    z, numbers = table_of_numbers(2, 60)
    assert z.shape == (60, Z_DIM) and np.isfinite(numbers).all()
    np.testing.assert_allclose(numbers.mean(axis=0), 0, atol=1e-5)
    spread = numbers.std(axis=0)
    assert np.all((np.abs(spread - 1) < 1e-4) | (spread == 0))


def test_a_kept_table_is_read_again(tmp_path: Path) -> None:
    first = kept_table(tmp_path, 2, 3)
    changed = tmp_path / "numbers-2-3.npz"
    np.savez(changed, z=first[0] + 1, numbers=first[1])
    assert np.array_equal(kept_table(tmp_path, 2, 3)[0], first[0] + 1)
    z, numbers = table_of_numbers(2, 3)
    assert np.array_equal(first[0], z) and np.array_equal(first[1], numbers)


def test_the_first_probe_is_the_least_squares_fit() -> None:
    mapping, z = tiny_generator().mapping, torch.randn(400, Z_DIM)
    numbers = torch.cat([z[:, :2], z[:, 2:3].square()], dim=1)
    probe = fitted_probe(mapping, z, numbers).requires_grad_(False)
    w = torch.cat([mapping(z), torch.ones(len(z), 1)], dim=1)
    best = w @ torch.linalg.lstsq(w, numbers).solution
    expected = float((best - numbers).square().mean())
    assert float((probe(mapping(z)) - numbers).square().mean()) == pytest.approx(expected, rel=0.01)


def test_each_unit_of_the_first_layer_reads_one_coordinate(tmp_path: Path) -> None:
    options = replace(tiny_options(tmp_path, tmp_path), mapping_steps=0)
    run, _ = training.start(options)
    read = run.generator.mapping.state_dict()["fc0.weight"] != 0
    assert (read.sum(dim=1) == 1).all()
    assert read.sum(dim=0).min() == training.W_DIM // Z_DIM  # every coordinate is read


def test_a_new_generators_larger_images_are_its_image_of_32_px_enlarged(tmp_path: Path) -> None:
    options = replace(tiny_options(tmp_path, tmp_path), mapping_steps=0)
    generator = training.new_generator(options).requires_grad_(False)
    w = generator.mapping(torch.randn(2, Z_DIM))
    enlarged = training.drawn(generator, w, 32)
    assert enlarged.std() > 0
    for _ in range(2):
        enlarged = upsample_2x(enlarged, resample_kernel())
    torch.testing.assert_close(training.drawn(generator, w, RESOLUTION), enlarged)


def test_the_quick_path_draws_what_the_network_draws() -> None:
    generator, z = tiny_generator(), torch.randn(2, Z_DIM)
    torch.manual_seed(4)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(torch.randn_like(parameter))
    w = generator.mapping(z)
    torch.testing.assert_close(
        training.drawn(generator, w, RESOLUTION), generator(z), atol=1e-5, rtol=1e-5
    )
    smaller = tiny_generator(32)
    smaller.load_state_dict({name: generator.state_dict()[name] for name in smaller.state_dict()})
    torch.testing.assert_close(training.drawn(generator, w, 32), smaller(z), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="resolution is 48"):
        training.drawn(generator, w, 48)


def test_a_batch_is_the_cache_averaged_and_weighted(cache_folder: Path, tmp_path: Path) -> None:
    cache, options = open_cache(cache_folder), tiny_options(cache_folder, tmp_path)
    by_class = torch.arange(1.0, 1 + len(CLASS_NAMES))
    z, truth, weights = training.batch_of_step(cache, 5, options, by_class)
    again = training.batch_of_step(cache, 5, options, by_class)
    assert all(torch.equal(a, b) for a, b in zip((z, truth, weights), again, strict=True))
    chosen = np.random.default_rng((1, 5)).integers(8, size=4).tolist()
    _, images, masks = cache.batch(chosen)
    block = images[2, 4:8, 8:12].astype(float).mean(axis=(0, 1)) / 127.5 - 1
    np.testing.assert_allclose(truth[2, :, 1, 2], block, atol=1e-5)
    total = (masks.astype(float) + 1).mean()
    expected = (masks[2, 4:8, 8:12].astype(float) + 1).mean() / total
    assert float(weights[2, 0, 1, 2]) == pytest.approx(expected, rel=1e-4)


def test_rare_classes_weigh_more_within_limits() -> None:
    masks = np.zeros((1, 100, 100), np.uint8)
    masks[0, 0, :100], masks[0, 1, 0] = 1, 2
    weights = training.class_weights(masks)
    assert float(weights[0]) == pytest.approx(training.LEAST_WEIGHT)
    assert float(weights[1]) == pytest.approx((0.01 * 30) ** training.RARENESS, rel=1e-5)
    assert float(weights[2]) == float(weights[3]) == training.MOST_WEIGHT


def test_steps_on_cached_scenes_lower_the_loss(cache_folder: Path, tmp_path: Path) -> None:
    options = tiny_options(cache_folder, tmp_path)
    run, _ = training.start(options)
    batch = training.batch_of_step(
        open_cache(cache_folder), 0, options, torch.ones(len(CLASS_NAMES))
    )
    losses = [training.train_step(run, options, batch, progress=0.0) for _ in range(25)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_rate_stays_and_falls_only_in_the_last_part() -> None:
    late = WARMUP_STEPS
    assert training.scheduled(2.0, 0, 0.0, 0.25) == pytest.approx(2.0 / WARMUP_STEPS)
    assert training.scheduled(2.0, late, 0.75, 0.25) == pytest.approx(2.0)
    assert training.scheduled(2.0, late, 1.2, 0.25) == pytest.approx(2.0 * training.FALL_TO)
    halfway = training.scheduled(2.0, late, 0.875, 0.25)
    assert halfway == pytest.approx(2.0 * (training.FALL_TO + (1 - training.FALL_TO) / 2))


@pytest.mark.long
def test_a_run_goes_on_from_its_checkpoint_and_without_one_from_the_weights(
    cache_folder: Path, tmp_path: Path
) -> None:
    options = tiny_options(cache_folder, tmp_path)
    first = training.train(options)
    assert (first.steps, first.images, first.mapping_steps) == (1, 4, 3)
    options = replace(options, mapping_steps=0)
    second = training.train(options)
    assert (second.steps, second.images) == (2, 8) and second.minutes >= first.minutes
    weights, card = generator_from_file(options.out)
    assert training.history_from_card(card) == second
    with_checkpoint, _ = training.start(options)
    assert with_checkpoint.step == 2 and with_checkpoint.optimizer.state_dict()["state"]

    away = tiny_options(cache_folder, tmp_path / "away")
    away = replace(away, start=options.out, mapping_steps=0)
    run, history = training.start(away)
    assert run.step == 0 and history == second
    assert not run.optimizer.state_dict()["state"]
    for name, value in run.generator.state_dict().items():
        torch.testing.assert_close(value, weights.state_dict()[name], atol=0, rtol=0)
    assert training.train(away).steps == 3
    further = training.train(replace(away, mapping_steps=2))
    assert (further.steps, further.mapping_steps) == (4, 5)


def test_weights_of_another_size_are_refused(cache_folder: Path, tmp_path: Path) -> None:
    demo = Path("examples/demo/generator.safetensors")
    options = replace(tiny_options(cache_folder, tmp_path), start=demo)
    with pytest.raises(
        ValueError, match="stylegan2 of 64 px; they must be of a stylegan2 of 128 px"
    ):
        training.start(options)


def test_scenes_of_another_renderer_are_refused(tmp_path: Path) -> None:
    grow_cache(tmp_path / "cache", CARD, count=1, workers=1)
    with pytest.raises(ValueError, match="another version of the renderer; render a new cache"):
        training.train(tiny_options(tmp_path / "cache", tmp_path))


def test_the_judge_refuses_weights_of_another_size() -> None:
    result = CliRunner().invoke(main, ["examples/demo/generator.safetensors"])
    assert result.exit_code == 1
    assert "makes images of 64 px from z of 32; the world has 128 px and z of 96" in result.output


def literal_db(errors: list[float]) -> float:
    return float(-10 * np.log10(np.mean(errors)))


def test_the_judges_figures_are_those_of_a_literal_count() -> None:
    z = latents(8, Purpose.OBJECT, range(3), Z_DIM)
    with_glasses = next(
        row
        for row in latents(8, Purpose.OBJECT, range(3, 60), Z_DIM)
        if scene_from_latents(row, row).glasses
    )
    natural = rendered_scenes(np.stack([*z, with_glasses]), [GLASSES])
    earrings = np.stack(
        [conditioned_on_part(row, EARRING) for row in latents(9, Purpose.OBJECT, range(3), Z_DIM)]
    )
    rare = rendered_scenes(earrings, [EARRING])
    generator = tiny_generator(seed=2)
    score = judge(generator, natural, {EARRING: rare})

    def errors(scenes: Scenes) -> np.ndarray:
        image = generator(torch.from_numpy(scenes.z)).clamp(-1, 1).permute(0, 2, 3, 1).numpy()
        return np.asarray(((image / 2 + 0.5 - scenes.images / 255) ** 2).mean(axis=3))

    error, rare_error = errors(natural), errors(rare)
    assert score.psnr_db == pytest.approx(literal_db([error.mean()]), abs=1e-3)
    assert score.psnr_by_side_db["128"] == pytest.approx(score.psnr_db, abs=1e-3)
    assert score.psnr_by_side_db["64"] > score.psnr_db
    for k, name in enumerate(CLASS_NAMES):
        source, masks = (rare_error, rare.masks) if k == EARRING else (error, natural.masks)
        pixels = [e for e, m in zip(source.ravel(), masks.ravel(), strict=True) if m == k]
        if pixels:
            assert score.psnr_by_class_db[name] == pytest.approx(literal_db(pixels), abs=1e-3)
        else:
            assert name not in score.psnr_by_class_db
    shown = [i for i in range(4) if (natural.masks[i] == GLASSES).sum() >= MIN_AREA]
    assert sorted(natural.without[GLASSES]) == shown and shown
    scene = scene_from_latents(with_glasses, with_glasses)
    assert np.array_equal(natural.without[GLASSES][3], render(replace(scene, glasses=0.0)).image)
    assert score.appear_of["glasses"] == len(shown)


def test_a_part_appears_where_the_image_is_nearer_to_the_truth_than_without_it() -> None:
    rows = latents(9, Purpose.OBJECT, range(4), Z_DIM)
    scenes = rendered_scenes(np.stack([conditioned_on_part(z, EARRING) for z in rows]), [EARRING])
    assert scenes.without[EARRING]
    truth = colors(scenes.images)
    gone = truth.copy()
    for i, image in scenes.without[EARRING].items():
        gone[i] = colors(image)
    assert all(appearances(truth, scenes, EARRING))
    assert not any(appearances(gone, scenes, EARRING))


def test_drawn_images_are_colors_of_the_generator() -> None:
    generator, z = tiny_generator(), latents(1, Purpose.OBJECT, range(3), Z_DIM)
    image = drawn_images(generator, z)
    assert image.shape == (3, RESOLUTION, RESOLUTION, 3)
    assert image.min() >= 0 and image.max() <= 1
