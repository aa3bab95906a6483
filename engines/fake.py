"""An engine without a model: synthetic arrays computed from ws alone, for client development and
tests."""

import hashlib
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle.content import rank_of_share
from bundle.directions import Direction, bytes_from_rows
from bundle.manifest import (
    LABELLER,
    MAPPING,
    VIEWS,
    Bound,
    CameraFacts,
    ContentTable,
    DepthHead,
    DirectionFacts,
    Estimate,
    FileEntry,
    GeneratorFacts,
    Heads,
    KeypointHead,
    Labels,
    Manifest,
    MeasuredEdit,
    ProposalFacts,
    SamplingKey,
    ScoreCalibration,
    SegmentationClass,
    SegmentationHead,
    ViewBankFacts,
)
from bundle.open import Bundle
from bundle.proposals import Proposal, Score, bytes_from_score
from bundle.read import bundle_id_from_content
from bundle.views import ViewBank, cameras_from_views
from engines.content import BOXES, content_columns, passes
from engines.errors import DeviceLost, EngineRunError, NotFiniteError
from engines.protocol import EngineResult
from engines.request import RunContract
from engines.sampling import default_options, ws_from_indices
from engines.signature import UNCERTAINTY, ArraySpec, ArraySpecs, labeller_outputs
from labelmint.predicate import Statistic

DEFAULT_BATCH_SIZES = (8,)
_PHASES = 251  # number of different masks


@dataclass(frozen=True)
class FakeOptions:
    """How the fake engine behaves; with the defaults a run returns at once."""

    seconds_per_run: float = 0.0
    seconds_per_sample: float = 0.0  # added for every row, padding included, as on a device
    fail_after_runs: int | None = None  # runs before every run raises EngineRunError
    lost_after_runs: int | None = None  # runs before every run raises DeviceLost
    not_finite_share: float = 0.0  # share of samples whose run raises NotFiniteError
    not_finite_output: str = UNCERTAINTY  # of which it says so


class FakeEngine:
    """Engine protocol; a sample's arrays are a pure function of its row of ws.

    The uncertainty is uniform in [0, 1), so a max_uncertainty of t keeps a share of about t.
    """

    def __init__(
        self,
        manifest: Manifest,
        options: FakeOptions | None = None,
        batch_sizes: tuple[int, ...] = (),
    ) -> None:
        """Raises EngineOpenError for batch sizes that are not positive and ascending."""
        self.name = "fake"
        self._contract = RunContract(manifest, batch_sizes or DEFAULT_BATCH_SIZES)
        self.batch_sizes, self.outputs = self._contract.batch_sizes, self._contract.outputs
        self._options = options or FakeOptions()
        self._specs = labeller_outputs(manifest)
        self._columns = content_columns(manifest)
        self._runs = 0

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
        boxes: NDArray[np.float32] | None = None,
    ) -> EngineResult:
        """See Engine.run. Raises EngineRunError, DeviceLost, NotFiniteError."""
        feed = self._contract.feed(ws, max_uncertainty, outputs, boxes)
        rows = len(feed["ws"])
        if self._runs == self._options.lost_after_runs:
            raise DeviceLost(f"the fake device is lost after {self._runs} runs, as configured")
        if self._runs == self._options.fail_after_runs:
            raise EngineRunError(f"the fake engine fails after {self._runs} runs, as configured")
        self._runs += 1
        time.sleep(self._options.seconds_per_run + self._options.seconds_per_sample * rows)

        hashes = np.array([_hash_of_row(row) for row in ws], np.uint64)  # [n]
        scores = (hashes >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
        not_finite = hashes % 65536 < 65536 * self._options.not_finite_share
        if not_finite.any():
            bad = tuple(np.flatnonzero(not_finite).tolist())
            output = self._options.not_finite_output
            raise NotFiniteError(f"{output} of rows {list(bad)} is not finite", bad, output)
        passed = np.ones(len(ws), np.bool_)
        if UNCERTAINTY in self._specs:
            passed &= scores <= max_uncertainty
        content = None
        if self._columns:
            content = _content(self._columns, self._specs, hashes, scores)
            passed &= passes(content, feed[BOXES][: len(ws)])
        kept = np.flatnonzero(passed)
        arrays = {
            name: _output(name, self._specs[name], hashes[kept], scores[kept]) for name in outputs
        }
        return EngineResult(kept.astype(np.int32), arrays, content)

    def stop(self) -> None:
        """Does nothing: a fake run ends by itself."""

    def close(self) -> None:
        self._contract.closed = True


class FakeMapping:
    """Mapping protocol; w is z repeated to w_dim values, plus the class index."""

    def __init__(self, generator: GeneratorFacts) -> None:
        self._generator, self.closed = generator, False

    def run(self, z: NDArray[np.float32], c: NDArray[np.float32] | None) -> NDArray[np.float32]:
        w = np.resize(z.T, (self._generator.w_dim, len(z))).T.astype(np.float32)
        return w if c is None else w + c.argmax(axis=1, keepdims=True).astype(np.float32)

    def stop(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        self.closed = True


def fake_bundle(
    resolution: int = 64,
    num_classes: int = 0,
    heads: bool = True,
    view_layers: int = 4,
    view_codes: int = 0,
    start: tuple[int, int] | None = None,
    boxes: int = 16,
    proposals: bool = False,
    directions: bool = False,
) -> Bundle:
    """A bundle in memory, without files, for FakeEngine.

    Args:
        resolution: nominal extent of the images, a power of two; the side of square ones, pixels.
        num_classes: classes of a conditional generator; 0 for an unconditional one.
        heads: whether there are labels; False gives images only.
        view_layers: rows of w+ that carry the viewpoint.
        view_codes: codes in the view bank; 0 for no bank.
        start: rows and columns of images of resolution 4; None for square ones.
        boxes: alternatives of a predicate; 0 for a bundle of an older version.
        proposals: whether there are "rare", which generates 12 percent of the samples, and "all".
        directions: whether there are "more", of all rows of w+, and "late", of the last two.
    """
    num_ws = 2 * (resolution.bit_length() - 2)
    generator = GeneratorFacts(
        family="fake",
        resolution=resolution,
        channels=[8] * (num_ws // 2),
        mapping_layers=2,
        z_dim=16,
        w_dim=16,
        num_ws=num_ws,
        num_classes=num_classes,
        view_layers=view_layers,
        w_avg=[0.0] * 16,
        truncation_psi=1.0,
        truncation_cutoff=num_ws,
        noise="none",
        conv_clamp=None,
        start=start,
    )
    labels = _fake_labels(generator) if heads else None
    fake_heads = _fake_heads(boxes) if heads else None
    files = {
        name: FileEntry(sha256=hashlib.sha256(b"").hexdigest(), size=0)
        for name in (MAPPING, LABELLER["float32"])
    }
    bank = _fake_bank(view_codes, view_layers, generator.w_dim) if view_codes else None
    views = _fake_views(view_codes) if view_codes else None
    if bank is not None:
        data = bank.codes.tobytes()
        files[VIEWS] = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    given = _fake_proposals(generator) if proposals else {}
    learned = _fake_directions(generator) if directions else {}
    manifest = Manifest(
        format=1,
        bundle_id=bundle_id_from_content(generator, labels, fake_heads, files, views=views),
        generator=generator,
        labels=labels,
        heads=fake_heads,
        views=views,
        licences=["CC0-1.0"],
        files=files,
        parity=[],
        calibrations=[_fake_calibration(views) for views in (1, 4)] if heads else [],
        tools={},
        proposals={name: proposal.facts for name, proposal in given.items()},
        directions={name: direction.facts for name, direction in learned.items()},
    )
    return Bundle(Path("fake"), manifest, bank, given, learned)


def _fake_directions(generator: GeneratorFacts) -> dict[str, Direction]:
    """By name; measured from -2 to 2."""
    learned = {}
    for name, first_row in (("more", 0), ("late", generator.num_ws - 2)):
        extents = (generator.num_ws - first_row, generator.w_dim)
        rows = (np.indices(extents).sum(axis=0) / 7 + 0.1).astype(np.float32)
        data = bytes_from_rows(rows)
        facts = DirectionFacts(
            file=FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)),
            changes="part 1",
            options=_fake_calibration(1).options,
            seed=0,
            samples=64,
            measured=16,
            first_row=first_row,
            end_row=generator.num_ws,
            strengths=[
                MeasuredEdit(
                    strength=strength,
                    share=Estimate(value=0.25, low=0.2, high=0.3),
                    shown=Estimate(value=1.0, low=1.0, high=1.0),
                    unchanged=Estimate(value=0.9, low=0.8, high=1.0),
                    miou=Estimate(value=0.9, low=0.8, high=1.0),
                )
                for strength in (-2.0, 0.0, 2.0)
            ],
        )
        learned[name] = Direction(name, facts, rows)
    return learned


def _fake_proposals(generator: GeneratorFacts) -> dict[str, Proposal]:
    """By name: rare ones are those with a large first value of w, all chooses every sample."""
    w_dim = generator.w_dim
    first = np.eye(w_dim, dtype=np.float32)[0]
    ones, zeros = np.ones(w_dim, np.float32), np.zeros(w_dim, np.float32)
    given = {}
    for name, slope, bias, floor in (("rare", 3.0, -4.0, 1 / 64), ("all", 0.0, 0.0, 1.0)):
        layer = (slope * first[:, None]).astype(np.float32), np.array([bias], np.float32)
        score = Score(zeros, ones, (layer,))
        data = bytes_from_score(score)
        facts = ProposalFacts(
            file=FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)),
            where="share('part 0') >= 0.25",
            options=_fake_calibration(1).options,
            seed=0,
            samples=64,
            hidden=[],
            outputs=1,
            bounds=[[Bound(output=0, low=0.0, high=None)]],
            exponent=1.0,
            floor=floor,
            share=Estimate(value=0.5, low=0.4, high=0.6),
            generated_share=Estimate(value=0.5, low=0.4, high=0.6),
            gain=Estimate(value=1.0, low=0.9, high=1.1),
            effective=Estimate(value=0.5, low=0.4, high=0.6),
            examined=Estimate(value=8.0, low=7.0, high=9.0),
        )
        given[name] = Proposal(name, facts, score)
    return given


def with_content(bundle: Bundle, samples: int = 2048) -> Bundle:
    """A fake bundle whose calibrations have the content of their first samples, in memory."""
    manifest, tables, calibrations = bundle.manifest, {}, []
    mapping, engine = FakeMapping(manifest.generator), FakeEngine(manifest, batch_sizes=(samples,))
    for calibration in manifest.calibrations:
        views = calibration.options.views_per_object
        options = replace(default_options(manifest.generator), views_per_object=views)
        indices = np.arange(samples, dtype=np.uint64)
        ws = ws_from_indices(mapping, manifest.generator, options, indices)
        content = engine.run(ws, np.full(samples, np.inf, np.float32), ()).content
        assert content is not None
        digest = hashlib.sha256(content.tobytes()).hexdigest()
        table = ContentTable(
            name=f"content.{digest[:16]}.zlib",
            file=FileEntry(sha256=digest, size=0),
            columns=content.shape[1],
            samples=samples,
        )
        tables[table.name] = content
        calibrations.append(msgspec.structs.replace(calibration, content=table))
    manifest = msgspec.structs.replace(manifest, calibrations=calibrations)
    return replace(bundle, manifest=manifest, tables=tables)


def _fake_bank(codes: int, view_layers: int, w_dim: int) -> ViewBank:
    """All w_dim values of row r of code k are k + 1 + r / 16."""
    values = np.arange(1, codes + 1)[:, None] + np.arange(view_layers) / 16
    rows = np.repeat(values[..., None], w_dim, axis=2).astype(np.float32)
    return ViewBank(rows, cameras_from_views(_fake_views(codes)))


def _fake_views(codes: int) -> ViewBankFacts:
    """Cameras 10 degrees apart; the last one is unknown."""
    known = [
        CameraFacts(azimuth_deg=10.0 * i, elevation_deg=-5.0, distance=6.0, focal=None)
        for i in range(codes - 1)
    ]
    unknown = CameraFacts(azimuth_deg=None, elevation_deg=None, distance=None, focal=None)
    return ViewBankFacts(codes=codes, cameras=[*known, unknown])


def _fake_labels(generator: GeneratorFacts) -> Labels:
    height, width = generator.size_at(generator.resolution)
    return Labels(
        tap_recipe="fake",
        feature_dim=1,
        grid=generator.resolution,
        crop_top=0,
        height=height,
        width=width,
        resize="bilinear",
    )


def _fake_heads(boxes: int) -> Heads:
    colors = (0x000000, 0xE6194B, 0x3CB44B, 0x4363D8)
    return Heads(
        segmentation=SegmentationHead(
            members=1,
            hidden=[1, 1],
            classes=[SegmentationClass(name=f"part {i}", color=c) for i, c in enumerate(colors)],
            ignore_id=None,
        ),
        keypoints=KeypointHead(
            members=1,
            hidden=[1, 1],
            names=["left", "right", "top"],
            skeleton=[(0, 2), (1, 2)],
            sigma_px=1.5,
            window_px=2,
        ),
        depth=DepthHead(members=1, hidden=[1, 1], unit="object units"),
        score_source="segmentation",
        score_fraction=0.1,
        boxes=boxes,
        depth_quantiles=[0.1, 0.5, 0.9] if boxes else [],
    )


def _fake_calibration(views: int) -> ScoreCalibration:
    """Exact quantiles, since the fake score is uniform in [0, 1)."""
    return ScoreCalibration(
        options=SamplingKey(
            latent_source="philox",
            truncation_psi=1.0,
            truncation_cutoff=0,
            class_index=None,
            views_per_object=views,
        ),
        seed=0,
        samples=4096,
        quantiles=[i / 64 for i in range(65)],
    )


def _hash_of_row(row: NDArray[np.float32]) -> int:
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little")


def _content(
    columns: tuple[Statistic, ...],
    specs: ArraySpecs,
    hashes: NDArray[np.uint64],
    scores: NDArray[np.float32],
) -> NDArray[np.float32]:
    """What the arrays of `_output` hold, [n, len(columns)]; every class is as uncertain as the
    sample."""
    counts = np.empty((len(hashes), 0))
    if "mask" in specs:
        classes, extents = sum(s.kind == "share" for s in columns), specs["mask"].extents
        counts = np.stack([_class_pixels(int(h % _PHASES), extents, classes) for h in hashes])
    points = np.empty((len(hashes), 0))
    if "keypoints" in specs:
        points = np.asarray(_output("keypoints", specs["keypoints"], hashes, scores))[..., 2]
    shares = tuple(float(s.name) for s in columns if s.kind == "depth")
    depths = np.empty((len(hashes), 0))
    if shares:
        extents = specs["depth"].extents
        depths = np.stack([_depth_quantiles(int(h % _PHASES), extents, shares) for h in hashes])
    score = [scores[:, None]] if UNCERTAINTY in specs else []
    of_classes = [np.where(counts > 0, scores[:, None], 0)] if score else []
    return np.concatenate([*score, counts, *of_classes, points, depths], axis=1).astype(np.float32)


@lru_cache(4 * _PHASES)
def _depth_quantiles(
    phase: int, extents: tuple[int, ...], shares: tuple[float, ...]
) -> NDArray[np.float64]:
    spec = ArraySpec(np.dtype(np.float16), extents)
    depth = _output("depth", spec, np.array([phase], np.uint64), np.zeros(1, np.float32))
    values = np.sort(depth.ravel())
    return np.array([values[rank_of_share(share, len(values)) - 1] for share in shares])


@lru_cache(4 * _PHASES)
def _class_pixels(phase: int, extents: tuple[int, ...], classes: int) -> NDArray[np.intp]:
    """Number of pixels of each class in the mask of this phase, [classes]."""
    spec = ArraySpec(np.dtype(np.uint8), extents)
    mask = _output("mask", spec, np.array([phase], np.uint64), np.zeros(1, np.float32))
    return np.bincount(mask.ravel(), minlength=classes)


def _output(
    name: str, spec: ArraySpec, hashes: NDArray[np.uint64], scores: NDArray[np.float32]
) -> NDArray[np.generic]:
    """One output, [n, *spec.extents]: a periodic ramp whose phase comes from the sample's hash."""
    if name == UNCERTAINTY:
        return scores
    phase = (hashes % _PHASES).reshape(-1, *(1,) * len(spec.extents))
    if name == "keypoints":
        points = (phase + 37 * np.arange(spec.extents[0])[:, None] + 101 * np.arange(3)) % 256
        return np.asarray(points / np.array([8, 8, 256]), spec.dtype)
    ramp = phase + np.indices(spec.extents, np.uint64).sum(axis=0, dtype=np.uint64)
    periods = {"mask": (16, 4), "image": (1, 256)}
    divisor, modulus = periods.get(name, (64, 4))
    return np.asarray(ramp / divisor % modulus, spec.dtype)
