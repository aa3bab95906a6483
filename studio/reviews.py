"""Reviews of the wall's samples, and the certificate that follows from them.

    DIR/reviews/HASH.json               a row for each reviewed sample of the weights of that hash
    DIR/reviews/HASH/00000.png          masks that a person has corrected
    DIR/reviews/HASH.certificate.json   what the reviews prove

The work of a person is outside DIR/studio, which can be made again. A review counts for the
weights, the stream and the very mask that it was made of.
"""

import io
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.certificate import CONFIDENCE, KEEP, Losses, certified_thresholds, kept_losses
from bundle.files import read_regular_file, replace_file, sha256_of_file
from bundle.manifest import Certificate, WeightsFacts
from bundle.open import open_bundle
from bundle.records import Strict
from bundle.write import add_certificate
from checkpoints import write_text
from export.checks.certificate import (
    certificate_from_reviews,
    is_kept,
    more_reviews,
    refuse_misfit,
    thresholds_of_bundle,
)
from export.errors import ExportError
from studio.contact_sheet import MOST, contact_sheet
from studio.errors import Conflict, NotFound, Outdated, StudioError
from studio.export_run import BUNDLE
from studio.export_run import INTERPRETER as EXPORTED
from studio.learning import INTERPRETER as LEARNED
from studio.project import Project, tag_of_mask
from studio.received import mask_from_bytes
from studio.wall import (
    MAX_WALL_BYTES,
    Sample,
    Source,
    Wall,
    exported_manifest,
    sample_file,
    stored_wall,
)
from studio.wall_run import Publish, WallRun
from training.labels.png import gray_from_file, open_upright

REVIEWS = "reviews"
SHORT = 16  # digits of the hash in names
STEM = re.compile(rf"review-([0-9a-f]{{{SHORT}}})-([0-9]{{1,5}})")
Verdict = Literal["right", "wrong", "corrected"]


class Review(Strict, frozen=True):
    """What a person said of one sample."""

    verdict: Verdict
    loss: Annotated[
        float, msgspec.Meta(ge=0, le=1)
    ]  # share of wrong pixels: 0 if right, 1 if wrong and not corrected
    tag: str  # of the mask that was reviewed


class Reviewed(Strict, frozen=True):
    """Content of HASH.json."""

    weights: str
    generator: str
    seed: int
    psi: float
    cutoff: int
    samples: dict[Annotated[int, msgspec.Meta(ge=0)], Review]


class Reviews:
    """Draws the wall and keeps reviews. Methods are thread-safe."""

    def __init__(self, project: Project, command: list[str], publish: Publish) -> None:
        self.project, self._publish = project, publish
        self._lock = threading.RLock()
        self._run = WallRun(project, command, publish)
        self._known_hash: tuple[tuple[Path, int, int], str] | None = None

    def close(self) -> None:
        """Ends the process that draws."""
        self._run.close()

    def draw_more(self) -> None:
        """Draws a wall for the weights of now, or adds to it. Raises Conflict."""
        with self._lock:
            found, wall = self.weights(), self._wall()
        if found is None:
            raise Conflict("nothing is learned yet; train on a label first")
        self._run.start(found, 0 if wall is None else len(wall.samples))

    def weights(self) -> tuple[Path, Source, str] | None:
        """File, origin and SHA-256 of the ensemble that is reviewed: the one of the exported bundle
        if there is a bundle, else that of the last round of learning."""
        folder = self.project.folder
        path, source = self.project.work / LEARNED, "learn"
        if (folder / BUNDLE).exists() and (folder / EXPORTED).exists():
            path, source = folder / EXPORTED, "export"
        try:
            status = path.stat()
            key = (path, status.st_mtime_ns, status.st_size)
            with self._lock:
                if self._known_hash is None or self._known_hash[0] != key:
                    self._known_hash = key, sha256_of_file(path)
                sha = self._known_hash[1]
        except OSError:
            return None
        return path, "export" if source == "export" else "learn", sha

    def state(self, error: float) -> dict[str, object]:
        """What the page shows; `error` is the mean share of wrong pixels that is asked for."""
        with self._lock:
            found, wall = self.weights(), self._wall()
            reviews = {} if wall is None else self._reviews(wall)
            samples = [] if wall is None else [
                {
                    "stem": stem_of(wall, index),
                    "tag": sample.tag,
                    "uncertainty": sample.uncertainty,
                    "shares": sample.shares,
                    "depth": sample.depth,
                    "verdict": reviews[index].verdict if index in reviews else None,
                    "loss": reviews[index].loss if index in reviews else None,
                }
                for index, sample in enumerate(wall.samples)
            ]  # fmt: skip
            return {
                "source": None if found is None else found[1],
                **self._run.state(),
                "samples": samples,
                "classes": None if wall is None else wall.classes,
                "reviewed": len(reviews),
                "counted": counted(reviews),
                "statements": [] if wall is None else statements(wall, reviews, error),
                "bundle": self._bundle_state(wall, reviews),
            }

    def _bundle_state(self, wall: Wall | None, reviews: dict[int, Review]) -> dict[str, object]:
        """Whether the thresholds are the bundle's own, and whether a certificate of these reviews
        can go into it, and is there already."""
        manifest = None
        if wall is not None and wall.source == "export":
            manifest = exported_manifest(self.project.folder, wall.weights, wall.score_measure)
        known = None if manifest is None else manifest.certificate
        return {
            "calibrated": manifest is not None and wall is not None
            and wall.thresholds == thresholds_of_bundle(manifest),
            "fits": manifest is not None and counted(reviews) > 0,
            "reviewed": None if known is None else len(known.losses),
            "current": known is not None and wall is not None and counted(reviews) > 0
            and known == certificate_of(wall, reviews),
        }  # fmt: skip

    def say(self, stem: str, verdict: Literal["right", "wrong"] | None) -> None:
        """Notes or takes back what a person says of a sample. Raises NotFound."""
        with self._lock:
            wall, index, sample = self._row(stem)
            loss = 0.0 if verdict == "right" else 1.0
            self._write(wall, index, verdict and Review(verdict, loss, sample.tag))

    def picture(self, stem: str) -> Path:
        """PNG of a sample's image. Raises NotFound."""
        return sample_file(self.project.folder, self._row(stem)[1], "image")

    def depth_picture(self, stem: str) -> Path:
        """PNG of the depth that the ensemble's head gives a sample. Raises NotFound."""
        _, index, sample = self._row(stem)
        path = sample_file(self.project.folder, index, "depth")
        if sample.depth is None or not path.exists():
            raise NotFound("the ensemble has no depth head")
        return path

    def contact_sheet(self) -> bytes:
        """PNG of the first samples and their labels. Raises NotFound."""
        with self._lock:
            wall, folder = self._wall(), self.project.folder
            if wall is None or not wall.samples:
                raise NotFound("no samples are drawn yet; Review draws them")
            shown = range(min(MOST, len(wall.samples)))
            pictures = [_pixels(sample_file(folder, i, "image")) for i in shown]
            masks = [
                gray_from_file(sample_file(folder, i, "mask"), self.project.size) for i in shown
            ]
        return contact_sheet(pictures, masks, self.project.classes)

    def uncertainty_map(self, stem: str) -> bytes:
        """Uncertainty, H * W bytes as in a proposal's map. Raises NotFound."""
        index = self._row(stem)[1]
        path = sample_file(self.project.folder, index, "uncertainty")
        return gray_from_file(path, self.project.size).tobytes()

    def mask(self, stem: str) -> tuple[NDArray[np.uint8], str]:
        """Class ids [H, W] as corrected, or as labeled; and their tag. Raises NotFound."""
        with self._lock:
            wall, index, _ = self._row(stem)
            review = self._reviews(wall).get(index)
            path = sample_file(self.project.folder, index, "mask")
            if review is not None and review.verdict == "corrected":
                path = self._corrected(wall, index)
            mask = gray_from_file(path, self.project.size)
            return mask, tag_of_mask(mask)

    def correct(self, stem: str, pixels: bytes, base: str) -> str:
        """Takes a corrected mask, H * W class ids, and returns its tag.

        Its loss is the share of pixels that differ from the ensemble's label; an ignored pixel
        counts as wrong. `base` is as in Project.save_mask. Raises NotFound, Outdated, StudioError.
        """
        mask = mask_from_bytes(pixels, self.project.size)
        with self._lock:
            wall, index, sample = self._row(stem)
            if wall.classes is not None and not self.project.has_classes(wall.classes):
                raise Conflict(
                    f"these weights know the classes {', '.join(wall.classes)}, which have changed "
                    "since; learn again, and review samples of the new weights"
                )
            wrong = mask[(mask >= len(sample.shares)) & (mask != self.project.ignore_id)]
            if wrong.size:
                raise StudioError(
                    f"the mask has class id {wrong.max()}; these weights know {len(sample.shares)} "
                    "classes"
                )
            tag = self.mask(stem)[1]
            given = tag_of_mask(mask)
            if tag not in (base, given):
                raise Outdated(f"the mask of {stem} was changed in another tab")
            label = gray_from_file(sample_file(self.project.folder, index, "mask"), mask.shape)
            path = self._corrected(wall, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = io.BytesIO()
            Image.fromarray(mask).save(stream, "png")
            replace_file(path, stream.getvalue())
            loss = float((mask != label).mean())
            self._write(wall, index, Review("corrected" if loss else "right", loss, sample.tag))
            return given

    def certificate(self) -> Certificate:
        """What the reviews prove, and all that it follows from. Raises Conflict without reviews."""
        with self._lock:
            wall = self._wall()
            reviews = {} if wall is None else self._reviews(wall)
            if wall is None or not counted(reviews):
                raise Conflict("no sample is reviewed yet, from the first on")
            return certificate_of(wall, reviews)

    def certify(self) -> None:
        """Puts the certificate into the project's bundle, as `python -m export certify` does.

        Raises Conflict without reviews or for a bundle of other weights, BundleError, OSError.
        """
        with self._lock:
            certificate, path = self.certificate(), self.project.folder / BUNDLE
            bundle = open_bundle(path, verify=False)
            try:
                refuse_misfit(bundle.manifest, certificate, path, Path("the certificate"))
            except ExportError as error:
                raise Conflict(str(error)) from error
            add_certificate(bundle, certificate)
        self._publish("review", {})

    def _wall(self) -> Wall | None:
        """The wall of the weights of now."""
        wall, found = stored_wall(self.project.folder), self.weights()
        return None if wall is None or found is None or wall.weights != found[2] else wall

    def _row(self, stem: str) -> tuple[Wall, int, Sample]:
        with self._lock:
            match, wall = STEM.fullmatch(stem), self._wall()
            if match is None or wall is None or wall.weights[:SHORT] != match[1]:
                raise NotFound(f"{stem[:80]!r} is no sample of the weights of now; reload Review")
            index = int(match[2])
            if index >= len(wall.samples):
                raise NotFound(f"the wall has {len(wall.samples)} samples; there is no {index}")
            return wall, index, wall.samples[index]

    def _reviews(self, wall: Wall) -> dict[int, Review]:
        """The reviews of the wall's samples that were made of the masks as they are."""
        with suppress(OSError, msgspec.DecodeError, ValueError):
            data = read_regular_file(self._file(wall), MAX_WALL_BYTES)
            stored = msgspec.json.decode(data, type=Reviewed)
            if (stored.weights, stored.generator, stored.seed, stored.psi, stored.cutoff) == (
                wall.weights, wall.generator, wall.seed, wall.psi, wall.cutoff,
            ):  # fmt: skip
                return {
                    index: review
                    for index, review in stored.samples.items()
                    if index < len(wall.samples) and review.tag == wall.samples[index].tag
                }
        return {}

    def _write(self, wall: Wall, index: int, review: Review | None) -> None:
        reviews = self._reviews(wall)
        reviews.pop(index, None)
        if review is not None:
            reviews[index] = review
        path = self._file(wall)
        path.parent.mkdir(exist_ok=True)
        stored = Reviewed(
            wall.weights, wall.generator, wall.seed, wall.psi, wall.cutoff,
            dict(sorted(reviews.items())),
        )  # fmt: skip
        write_text(path, _text(stored))
        certificate = path.with_suffix(".certificate.json")
        if counted(reviews):
            write_text(certificate, _text(certificate_of(wall, reviews)))
        else:
            certificate.unlink(missing_ok=True)
        self._publish("review", {})

    def _file(self, wall: Wall) -> Path:
        return self.project.folder / REVIEWS / f"{wall.weights[:SHORT]}.json"

    def _corrected(self, wall: Wall, index: int) -> Path:
        return self._file(wall).with_suffix("") / f"{index:05d}.png"


def stem_of(wall: Wall, index: int) -> str:
    """The name of a sample in addresses."""
    return f"review-{wall.weights[:SHORT]}-{index}"


def counted(reviews: dict[int, Review]) -> int:
    """How many reviews count: those before the first sample without one, so that nobody's choice
    of samples decides."""
    n = 0
    while n in reviews:
        n += 1
    return n


def statements(
    wall: Wall, reviews: dict[int, Review], error: float | None = None
) -> list[dict[str, Any]]:
    """For each threshold: what the reviews prove, and how many more would prove `error`, if one is
    given."""
    losses, unsure = _counted_losses(wall, reviews)
    delta = (1 - CONFIDENCE) / len(KEEP)
    rows = []
    for row in certified_thresholds(losses, unsure, wall.thresholds, KEEP):
        kept = kept_losses(losses, unsure, row.threshold)
        rows.append(msgspec.structs.asdict(row) | {
            "kept": sum(is_kept(s.uncertainty, row.threshold) for s in wall.samples),
            "more": None if error is None else more_reviews(kept, len(losses), error, delta),
        })  # fmt: skip
    return rows


def certificate_of(wall: Wall, reviews: dict[int, Review]) -> Certificate:
    """What the reviews of a wall prove, of one at least."""
    losses, unsure = _counted_losses(wall, reviews)
    weights = WeightsFacts(generator_sha256=wall.generator, interpreter_sha256=wall.weights)
    return certificate_from_reviews(
        losses, unsure, wall.thresholds, weights, wall.psi, wall.cutoff, wall.score_measure
    )


def _counted_losses(wall: Wall, reviews: dict[int, Review]) -> tuple[Losses, Losses]:
    n = counted(reviews)
    return (
        np.array([reviews[i].loss for i in range(n)], np.float64),
        np.array([wall.samples[i].uncertainty for i in range(n)], np.float64),
    )


def _pixels(path: Path) -> NDArray[np.uint8]:
    return np.array(open_upright(path)).astype(np.uint8)


def _text(content: object) -> str:
    return msgspec.json.format(msgspec.json.encode(content)).decode() + "\n"
