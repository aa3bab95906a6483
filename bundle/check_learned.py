"""Rules of what is measured and learned after the export: calibrations, proposals, directions.

Each function returns the first broken rule, as "field is value; rule"; None without one. Whatever
is computed from these for each request or sample has a bound here, and so has its memory.
"""

import re
from itertools import pairwise

from bundle.content import (
    MAX_ALL_TABLES_BYTES,
    MAX_TABLE_BYTES,
    columns_of_heads,
    most_packed_bytes,
    table_bytes,
)
from bundle.directions import direction_bytes
from bundle.entries import entry_problem, is_file_name, seed_problem
from bundle.manifest import (
    DIRECTION,
    MAX_DIRECTIONS,
    MAX_PROPOSALS,
    PROPOSAL,
    ContentTable,
    DirectionFacts,
    Manifest,
    ProposalFacts,
    SamplingKey,
)
from bundle.proposals import proposal_bytes

_LEARNED_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}\Z")
MAX_LEARNED_BYTES = 256 << 20  # of all proposals and directions; one of the usual has 0.3 MB
MAX_BOUNDS = 1024  # of a proposal, in all its lists: each is computed for every raw index


def calibrations_problem(manifest: Manifest) -> str | None:
    seen: set[SamplingKey] = set()
    tables: dict[str, ContentTable] = {}  # by the name of their file
    for i, calibration in enumerate(manifest.calibrations):
        where = f"calibrations[{i}]"
        if manifest.heads is None or manifest.heads.score_source is None:
            return f"{where} is present, but the bundle has no score_source"
        if calibration.options in seen:
            return f"{where} has the same options as an earlier one"
        seen.add(calibration.options)
        problem = seed_problem("seed", calibration.seed)
        problem = problem or _key_problem(calibration.options, manifest)
        if problem:
            return f"{where}.{problem}"
        if any(a > b for a, b in pairwise(calibration.quantiles)):
            return f"{where}.quantiles is not ascending"
        table = calibration.content
        if table is None:
            continue
        if problem := _table_problem(table, calibration.samples, manifest):
            return f"{where}.content.{problem}"
        if tables.setdefault(table.name, table) != table:  # equal content gives equal tables
            return f"{where}.content.name is {table.name!r}, as of an earlier one that differs"
    size = sum(map(table_bytes, tables.values()))
    if size > MAX_ALL_TABLES_BYTES:
        return (
            f"calibrations have {size} bytes of content, over {MAX_ALL_TABLES_BYTES}; calibrate "
            "with fewer options, or on fewer samples"
        )
    return None


def _table_problem(table: ContentTable, samples: int, manifest: Manifest) -> str | None:
    """samples: of the calibration."""
    listed = {*manifest.files, *manifest.plans, *_learned_files(manifest)}
    if not is_file_name(table.name) or table.name in listed:
        return (
            f"name is {table.name!r}; it must be a plain file name that files and plans lack, and "
            "proposals and directions"
        )
    if problem := entry_problem("file", table.file):
        return problem
    size = table_bytes(table)
    if size > MAX_TABLE_BYTES:
        return (
            f"samples is {table.samples} and columns {table.columns}; the {size} bytes of their "
            f"values are over {MAX_TABLE_BYTES}"
        )
    if table.samples > samples:
        return f"samples is {table.samples}; the calibration has {samples}"
    columns = columns_of_heads(manifest.heads)
    if table.columns != columns:
        return (
            f"columns is {table.columns}; the graph computes {columns} statistics; calibrate the "
            "bundle again, with --replace"
        )
    if table.file.size > most_packed_bytes(size):
        return f"file.size is {table.file.size}; {size} bytes of values never pack to so many"
    return None


def _learned_files(manifest: Manifest) -> set[str]:
    """Names of the files of proposals and directions."""
    return {PROPOSAL.format(name) for name in manifest.proposals} | {
        DIRECTION.format(name) for name in manifest.directions
    }


def learned_size_problem(manifest: Manifest) -> str | None:
    """They are read whole when the bundle is opened."""
    size = sum(facts.file.size for facts in manifest.proposals.values())
    size += sum(facts.file.size for facts in manifest.directions.values())
    if size > MAX_LEARNED_BYTES:
        return (
            f"proposals and directions have {size} bytes, over {MAX_LEARNED_BYTES}; export the "
            "bundle again, and learn fewer"
        )
    return None


def learned_name_problem(name: str) -> str | None:
    """Why no proposal or direction can have this name, which is a part of its file's; None if one
    can."""
    if _LEARNED_NAME.match(name):
        return None
    return f"{name!r:.200} is no name: it has 1 to 64 letters, digits, _ . and -"


def proposals_problem(manifest: Manifest) -> str | None:
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
        if problem := entry_problem(f"{where}.file", facts.file):
            return problem
        expected = proposal_bytes(manifest.generator.w_dim, facts.hidden, facts.outputs)
        if facts.file.size != expected:
            return (
                f"{where}.file.size is {facts.file.size}; a score of layers {facts.hidden} and "
                f"{facts.outputs} outputs on {manifest.generator.w_dim} values of w has {expected} "
                "bytes"
            )
        problem = (
            seed_problem("seed", facts.seed)
            or _key_problem(facts.options, manifest)
            or _bounds_problem(facts)
            or _figures_problem(facts)
        )
        if problem:
            return f"{where}.{problem}"
    return None


def _bounds_problem(facts: ProposalFacts) -> str | None:
    outputs = [bound.output for box in facts.bounds for bound in box]
    if len(outputs) > MAX_BOUNDS:
        return f"bounds has {len(outputs)} entries in all its lists; there may be {MAX_BOUNDS}"
    last = max(outputs, default=0)
    if last >= facts.outputs:
        return f"bounds has output {last}; there are {facts.outputs}, from 0"
    return None


def _figures_problem(facts: ProposalFacts) -> str | None:
    for field in ("share", "generated_share", "gain", "effective", "examined"):
        estimate = getattr(facts, field)
        if not estimate.low <= estimate.value <= estimate.high:
            return f"{field} is {estimate.value}, outside its own interval"
        if estimate.low < 0:
            return f"{field} is from {estimate.low:g}; it must not be negative"
    if facts.generated_share.high > 1:  # share is a sum of weights, which may be over 1
        return f"generated_share is up to {facts.generated_share.high:g}; it must be from 0 to 1"
    return None


def directions_problem(manifest: Manifest) -> str | None:
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
    if problem := entry_problem("file", facts.file):
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
    if problem := seed_problem("seed", facts.seed) or _key_problem(facts.options, manifest):
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


def _key_problem(key: SamplingKey, manifest: Manifest) -> str | None:
    generator, views = manifest.generator, manifest.views
    if key.truncation_cutoff > generator.num_ws:
        return (
            f"options.truncation_cutoff is {key.truncation_cutoff}; it must be in "
            f"[0, {generator.num_ws}], the rows of w+"
        )
    if key.class_index is not None and key.class_index >= generator.num_classes:
        return (
            f"options.class_index is {key.class_index}; the generator has "
            f"{generator.num_classes} classes, from 0"
        )
    if key.view is not None and views is not None and key.view >= views.codes:
        return f"options.view is {key.view}; the bank has {views.codes} codes, from 0"
    if key.view_mode != "drawn" and views is None:
        return f"options.view_mode is {key.view_mode}, but the bundle has no views"
    if (key.view_mode == "fixed") != (key.view is not None):
        return (
            f"options.view is {key.view} with view_mode {key.view_mode}; the mode fixed needs a "
            "view, other modes take none"
        )
    return None
