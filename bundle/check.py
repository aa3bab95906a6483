"""Rules between fields of a manifest: sizes, ranges and references that must agree.

Types and ranges of single fields are part of `bundle.manifest`; rules of what is measured and
learned after the export are in `bundle.check_learned`.
"""

from itertools import pairwise
from math import prod

from bundle.certificate import problem_of_certificate
from bundle.check_learned import (
    calibrations_problem,
    directions_problem,
    learned_size_problem,
    proposals_problem,
)
from bundle.entries import entry_problem, hash_problem, is_file_name
from bundle.errors import ManifestError
from bundle.manifest import (
    LABELLER,
    MANIFEST,
    MAPPING,
    VIEWS,
    GeneratorFacts,
    Heads,
    KeypointHead,
    Manifest,
    RefinerFacts,
    WeightsFacts,
)

# A bound on memory. An image of 8192 pixels squared with all labels has 0.6 GB.
MAX_SAMPLE_BYTES = 1 << 30  # latents, image and labels of one sample
MAX_FILES = 256
_LABEL_BYTES = 3 + 1 + 2 + 2  # of one pixel: image, mask, depth, uncertainty


def check_manifest(manifest: Manifest, name: str) -> None:
    """Raises ManifestError for the first broken rule, as "name: field is value; rule"."""
    problem = (
        _generator_problem(manifest.generator)
        or _labels_problem(manifest)
        or _memory_problem(manifest)
        or _refiner_problem(manifest.refiner)
        or _files_problem(manifest)
        or _plans_problem(manifest)
        or _views_problem(manifest)
        or calibrations_problem(manifest)
        or proposals_problem(manifest)
        or directions_problem(manifest)
        or learned_size_problem(manifest)
        or _weights_problem(manifest.weights)
        or _certificate_problem(manifest)
    )
    if problem:
        raise ManifestError(f"{name}: {problem}")


def _generator_problem(generator: GeneratorFacts) -> str | None:
    num_ws = generator.num_ws
    for field in ("view_layers", "truncation_cutoff"):
        rows = getattr(generator, field)
        if rows > num_ws:
            return f"generator.{field} is {rows}; it must be in [0, {num_ws}], the rows of w+"
    if len(generator.w_avg) != generator.w_dim:
        return f"generator.w_avg has {len(generator.w_avg)} values; w_dim is {generator.w_dim}"
    return None


def _labels_problem(manifest: Manifest) -> str | None:
    labels, heads = manifest.labels, manifest.heads
    if labels is None and heads is None:
        return None
    if labels is None or heads is None:
        return "labels and heads must be both present or both null"
    rows, columns = manifest.generator.size_at(labels.grid)
    if labels.crop_top + labels.height > rows:
        return (
            f"labels.crop_top is {labels.crop_top} and height {labels.height}; the rows must lie "
            f"within the grid of {rows}"
        )
    if labels.width > columns:
        return f"labels.width is {labels.width}; the grid has {columns} columns"
    return _heads_problem(heads)


def _heads_problem(heads: Heads) -> str | None:
    trained = {
        kind for kind in ("segmentation", "keypoints", "depth") if getattr(heads, kind) is not None
    }
    if not trained:
        return "heads has no head; an image-only bundle has heads and labels null"
    if heads.score_source is not None and heads.score_source not in trained:
        return f"heads.score_source is {heads.score_source}, a head this bundle lacks"
    if heads.score_measure != "jensen_shannon" and heads.score_source != "segmentation":
        return (
            f"heads.score_measure is {heads.score_measure}, but score_source is "
            f"{heads.score_source}; only segmentation has a choice"
        )
    if heads.depth_quantiles and heads.depth is None:
        return f"heads.depth_quantiles is {heads.depth_quantiles}, but there is no depth head"
    if any(a >= b for a, b in pairwise(heads.depth_quantiles)):
        return f"heads.depth_quantiles is {heads.depth_quantiles}; its values must ascend"
    return None if heads.keypoints is None else _keypoints_problem(heads.keypoints)


def _keypoints_problem(head: KeypointHead) -> str | None:
    for edge in head.skeleton:
        if not all(0 <= end < len(head.names) for end in edge):
            return (
                f"heads.keypoints.skeleton has edge {list(edge)}; there are {len(head.names)} "
                "keypoints, counted from 0"
            )
    return None


def _memory_problem(manifest: Manifest) -> str | None:
    """Sizes that no bundle has: they are multiplied, and allocated before anything runs."""
    generator, labels, heads = manifest.generator, manifest.labels, manifest.heads
    size = 4 * (generator.z_dim + generator.num_classes + generator.num_ws * generator.w_dim)
    if labels is None or heads is None:
        size += 3 * prod(generator.size_at(generator.resolution))
    else:
        size += _LABEL_BYTES * labels.height * labels.width
        size += 0 if heads.keypoints is None else 12 * len(heads.keypoints.names)
    if size > MAX_SAMPLE_BYTES:
        return (
            f"one sample would take {size} bytes, over {MAX_SAMPLE_BYTES}, by the sizes in "
            "generator and labels; export the bundle again"
        )
    return None


def _refiner_problem(refiner: RefinerFacts | None) -> str | None:
    if refiner is None:
        return None
    return hash_problem("refiner.weights_sha256", refiner.weights_sha256)


def _files_problem(manifest: Manifest) -> str | None:
    for field in ("files", "plans", "tools"):
        if len(getattr(manifest, field)) > MAX_FILES:
            size = len(getattr(manifest, field))
            return f"{field} has {size} entries; there may be {MAX_FILES}"
    for required in (MAPPING, LABELLER["float32"]):
        if required not in manifest.files:
            return f"files lacks {required}"
    # Values are checked here, not by msgspec: its messages do not name the key of a dict.
    for name, entry in manifest.files.items():
        if not is_file_name(name):
            return (
                f"files has {name!r}; a file name must consist of letters, digits, _ . and -, "
                f"without a folder, and must not be {MANIFEST}"
            )
        if problem := entry_problem(f"files[{name!r}]", entry):
            return problem
    return None


def _views_problem(manifest: Manifest) -> str | None:
    generator, views = manifest.generator, manifest.views
    if views is None:
        return f"files has {VIEWS}, but views is absent" if VIEWS in manifest.files else None
    if VIEWS not in manifest.files:
        return f"views is present, but files lacks {VIEWS}"
    if generator.view_layers == 0:
        return "views is present, but generator.view_layers is 0; a code has at least one row"
    size = manifest.files[VIEWS].size
    expected = 4 * views.codes * generator.view_layers * generator.w_dim
    if size != expected:
        return (
            f"files[{VIEWS!r}].size is {size}; {views.codes} codes of {generator.view_layers} "
            f"rows of {generator.w_dim} float32 values have {expected} bytes"
        )
    if views.cameras is not None and len(views.cameras) != views.codes:
        return f"views.cameras has {len(views.cameras)} entries; there are {views.codes} codes"
    return None


def _plans_problem(manifest: Manifest) -> str | None:
    for name, plan in manifest.plans.items():
        where, graph = f"plans.{name}", manifest.files.get(plan.graph)
        if not is_file_name(name) or name in manifest.files:
            return f"plans has {name!r}; it must be a plain file name that files lacks"
        if problem := entry_problem(f"{where}.file", plan.file):
            return problem
        if graph is None or graph.sha256 != plan.graph_sha256:
            return (
                f"{where}.graph_sha256 is {plan.graph_sha256!r}, not that of {plan.graph} in "
                "files; build the plan again"
            )
        if any(a >= b for a, b in pairwise(plan.batch_sizes)):
            return f"{where}.batch_sizes is {plan.batch_sizes}; it must be ascending"
    return None


def _weights_problem(weights: WeightsFacts | None) -> str | None:
    if weights is None:
        return None
    problem = hash_problem("weights.generator_sha256", weights.generator_sha256)
    if problem is None and weights.interpreter_sha256 is not None:
        problem = hash_problem("weights.interpreter_sha256", weights.interpreter_sha256)
    return problem


def _certificate_problem(manifest: Manifest) -> str | None:
    certificate, weights = manifest.certificate, manifest.weights
    if certificate is None:
        return None
    if problem := problem_of_certificate(certificate):
        return f"certificate.{problem}; export the bundle again, and certify that"
    if manifest.refiner is not None:
        return "certificate is present, but the images are refined, and the reviewed ones were not"
    heads = manifest.heads
    measure = None if heads is None else heads.score_measure
    if measure != certificate.score_measure:
        return (
            f"certificate.score_measure is {certificate.score_measure}, but the bundle's is "
            f"{measure}; its thresholds are in another unit"
        )
    named = None if weights is None else (weights.generator_sha256, weights.interpreter_sha256)
    if named != (certificate.generator_sha256, certificate.interpreter_sha256):
        return (
            f"certificate.interpreter_sha256 is {certificate.interpreter_sha256}; weights names "
            f"{'no weights' if weights is None else weights.interpreter_sha256}"
        )
    return None
