"""Rules between fields of a manifest: sizes, ranges and references that must agree.

Types and ranges of single fields are part of `bundle.manifest`.
"""

import re
from itertools import pairwise
from math import prod

from bundle.content import MAX_TABLE_BYTES
from bundle.directions import direction_bytes
from bundle.errors import ManifestError
from bundle.manifest import (
    DIRECTION,
    LABELLER,
    MANIFEST,
    MAPPING,
    MAX_DIRECTIONS,
    MAX_PROPOSALS,
    PROPOSAL,
    VIEWS,
    Certificate,
    ContentTable,
    DirectionFacts,
    FileEntry,
    GeneratorFacts,
    Heads,
    KeypointHead,
    Manifest,
    RefinerFacts,
    SamplingKey,
    ViewBankFacts,
    WeightsFacts,
)
from bundle.proposals import proposal_bytes

_LEARNED_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}\Z")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")  # no folders, no hidden files
# Bounds on memory. An image of 8192 pixels squared with all labels has 0.6 GB; a graph cannot have
# over 2 GiB, by its format.
MAX_SAMPLE_BYTES = 1 << 30  # latents, image and labels of one sample
MAX_FILE_BYTES = 2 << 30
MAX_FILES = 256
_LABEL_BYTES = 3 + 1 + 2 + 2  # of one pixel: image, mask, depth, uncertainty
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


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
        or _calibrations_problem(manifest)
        or _proposals_problem(manifest)
        or _directions_problem(manifest)
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
    if refiner is not None and not _SHA256.match(refiner.weights_sha256):
        return (
            f"refiner.weights_sha256 is {refiner.weights_sha256!r}; it must be 64 hexadecimal "
            "digits"
        )
    return None


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
        if not _FILE_NAME.match(name) or name == MANIFEST:
            return (
                f"files has {name!r}; a file name must consist of letters, digits, _ . and -, "
                f"without a folder, and must not be {MANIFEST}"
            )
        if problem := _entry_problem(f"files[{name!r}]", entry):
            return problem
    return None


def _entry_problem(where: str, entry: FileEntry) -> str | None:
    if not _SHA256.match(entry.sha256):
        return f"{where}.sha256 is {entry.sha256!r}; it must be 64 hexadecimal digits"
    if not 0 <= entry.size <= MAX_FILE_BYTES:
        return f"{where}.size is {entry.size}; it must not be negative, nor over {MAX_FILE_BYTES}"
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
        if not _FILE_NAME.match(name) or name == MANIFEST or name in manifest.files:
            return f"plans has {name!r}; it must be a plain file name that files lacks"
        if problem := _entry_problem(f"{where}.file", plan.file):
            return problem
        if graph is None or graph.sha256 != plan.graph_sha256:
            return (
                f"{where}.graph_sha256 is {plan.graph_sha256!r}, not that of {plan.graph} in "
                "files; build the plan again"
            )
        if any(a >= b for a, b in pairwise(plan.batch_sizes)):
            return f"{where}.batch_sizes is {plan.batch_sizes}; it must be ascending"
    return None


def _calibrations_problem(manifest: Manifest) -> str | None:
    seen: set[SamplingKey] = set()
    for i, calibration in enumerate(manifest.calibrations):
        where = f"calibrations[{i}]"
        if manifest.heads is None or manifest.heads.score_source is None:
            return f"{where} is present, but the bundle has no score_source"
        if calibration.options in seen:
            return f"{where} has the same options as an earlier one"
        seen.add(calibration.options)
        problem = _key_problem(calibration.options, manifest.views)
        if problem:
            return f"{where}.{problem}"
        if any(a > b for a, b in pairwise(calibration.quantiles)):
            return f"{where}.quantiles is not ascending"
        table = calibration.content
        if table is not None and (problem := _table_problem(table, manifest)):
            return f"{where}.content.{problem}"
    return None


def _table_problem(table: ContentTable, manifest: Manifest) -> str | None:
    listed = {MANIFEST, *manifest.files, *manifest.plans}
    if not _FILE_NAME.match(table.name) or table.name in listed:
        return f"name is {table.name!r}; it must be a plain file name that files and plans lack"
    if problem := _entry_problem("file", table.file):
        return problem
    size = 4 * table.samples * table.columns
    if size > MAX_TABLE_BYTES:
        return (
            f"samples is {table.samples} and columns {table.columns}; the {size} bytes of their "
            f"values are over {MAX_TABLE_BYTES}"
        )
    return None


def learned_name_problem(name: str) -> str | None:
    """Why no proposal or direction can have this name, which is a part of its file's; None if one
    can."""
    if _LEARNED_NAME.match(name):
        return None
    return f"{name!r:.200} is no name: it has 1 to 64 letters, digits, _ . and -"


def _proposals_problem(manifest: Manifest) -> str | None:
    if len(manifest.proposals) > MAX_PROPOSALS:
        return f"proposals has {len(manifest.proposals)} entries; there may be {MAX_PROPOSALS}"
    for name, facts in manifest.proposals.items():
        if problem := learned_name_problem(name):
            return f"proposals: {problem}"
        where, file = f"proposals[{name!r}]", PROPOSAL.format(name)
        if not facts.where.isprintable():
            return f"{where}.where is {facts.where!r:.200}; it must be one printable line"
        if file in manifest.files or file in manifest.plans:
            return f"{where} has the file {file}, which is also in files or plans"
        if problem := _entry_problem(f"{where}.file", facts.file):
            return problem
        expected = proposal_bytes(manifest.generator.w_dim, facts.hidden, facts.outputs)
        if facts.file.size != expected:
            return (
                f"{where}.file.size is {facts.file.size}; a score of layers {facts.hidden} and "
                f"{facts.outputs} outputs on {manifest.generator.w_dim} values of w has {expected} "
                "bytes"
            )
        problem = _key_problem(facts.options, manifest.views)
        if problem:
            return f"{where}.{problem}"
        last = max((bound.output for box in facts.bounds for bound in box), default=0)
        if last >= facts.outputs:
            return f"{where}.bounds has output {last}; there are {facts.outputs}, from 0"
        for field in ("share", "generated_share", "gain", "effective", "examined"):
            estimate = getattr(facts, field)
            if not estimate.low <= estimate.value <= estimate.high:
                return f"{where}.{field} is {estimate.value}, outside its own interval"
    return None


def _directions_problem(manifest: Manifest) -> str | None:
    if len(manifest.directions) > MAX_DIRECTIONS:
        return f"directions has {len(manifest.directions)} entries; there may be {MAX_DIRECTIONS}"
    for name, facts in manifest.directions.items():
        if problem := learned_name_problem(name):
            return f"directions: {problem}"
        where, file = f"directions[{name!r}]", DIRECTION.format(name)
        if file in manifest.files or file in manifest.plans:
            return f"{where} has the file {file}, which is also in files or plans"
        if problem := _direction_problem(facts, manifest):
            return f"{where}.{problem}"
    return None


def _direction_problem(facts: DirectionFacts, manifest: Manifest) -> str | None:
    generator = manifest.generator
    if problem := _entry_problem("file", facts.file):
        return problem
    if not facts.changes.isprintable():
        return f"changes is {facts.changes!r:.200}; it must be one printable line"
    if not facts.first_row < facts.end_row <= generator.num_ws:
        return (
            f"end_row is {facts.end_row} with first_row {facts.first_row}; rows are from 0 to "
            f"{generator.num_ws}, and at least one"
        )
    expected = direction_bytes(generator.w_dim, facts.first_row, facts.end_row)
    if facts.file.size != expected:
        return (
            f"file.size is {facts.file.size}; rows {facts.first_row} to {facts.end_row} of "
            f"{generator.w_dim} values have {expected} bytes"
        )
    if problem := _key_problem(facts.options, manifest.views):
        return problem
    strengths = [measured.strength for measured in facts.strengths]
    if any(a >= b for a, b in pairwise(strengths)) or 0 not in strengths:
        return f"strengths is {strengths}; they must ascend, and 0 must be among them"
    for measured in facts.strengths:
        for field in ("share", "shown", "unchanged", "miou"):
            estimate = getattr(measured, field)
            if not 0 <= estimate.low <= estimate.value <= estimate.high <= 1:
                return (
                    f"strengths at {measured.strength:g} has {field} {estimate.value}; it must be "
                    "from 0 to 1, within its own interval"
                )
    return None


def _weights_problem(weights: WeightsFacts | None) -> str | None:
    if weights is None:
        return None
    problem = _hash_problem("weights.generator_sha256", weights.generator_sha256)
    if problem is None and weights.interpreter_sha256 is not None:
        problem = _hash_problem("weights.interpreter_sha256", weights.interpreter_sha256)
    return problem


def _certificate_problem(manifest: Manifest) -> str | None:
    certificate, weights = manifest.certificate, manifest.weights
    if certificate is None:
        return None
    if problem := problem_of_certificate(certificate):
        return f"certificate.{problem}"
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


def problem_of_certificate(certificate: Certificate) -> str | None:
    """The first broken rule of a certificate, as "field is value; rule"."""
    for field in ("generator_sha256", "interpreter_sha256"):
        if problem := _hash_problem(field, getattr(certificate, field)):
            return problem
    if len(certificate.losses) != len(certificate.uncertainties):
        return (
            f"losses has {len(certificate.losses)} entries; uncertainties has "
            f"{len(certificate.uncertainties)}"
        )
    return None


def _hash_problem(where: str, text: str) -> str | None:
    if _SHA256.match(text):
        return None
    return f"{where} is {text[:80]!r}; it must be 64 hexadecimal digits"


def _key_problem(key: SamplingKey, views: ViewBankFacts | None) -> str | None:
    if key.view_mode != "drawn" and views is None:
        return f"options.view_mode is {key.view_mode}, but the bundle has no views"
    if (key.view_mode == "fixed") != (key.view is not None):
        return (
            f"options.view is {key.view} with view_mode {key.view_mode}; the mode fixed needs a "
            "view, other modes take none"
        )
    return None
