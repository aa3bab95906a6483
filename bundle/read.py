"""Manifest from the bytes of manifest.json, and the id of a bundle."""

import hashlib
import json

import msgspec

from bundle.check import check_manifest
from bundle.errors import ManifestError
from bundle.manifest import (
    FileEntry,
    GeneratorFacts,
    Heads,
    Labels,
    Manifest,
    RefinerFacts,
    ViewBankFacts,
)
from bundle.records import one_line, problem_from_json

FORMAT = 1
MAX_MANIFEST_BYTES = 64 << 20
# Values of lists and fields, which are decoded in one go, in up to 40 bytes each: 31 million
# held up all other threads for 15 s. A bank of 65,536 views with cameras has 262,144.
MAX_VALUES = 1 << 20


class _Versioned(msgspec.Struct):
    format: int


def manifest_from_bytes(data: bytes, name: str) -> Manifest:
    """Decodes and checks a manifest; messages begin with `name`. Raises ManifestError."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{name} has over {MAX_MANIFEST_BYTES} bytes; it is not a manifest")
    if data.count(b",") >= MAX_VALUES:
        raise ManifestError(f"{name} has over {MAX_VALUES} values; it is not a manifest")
    try:
        found = msgspec.json.decode(data, type=_Versioned).format
        if found > FORMAT:
            raise ManifestError(
                f"{name} has format {found}; this labelmint reads formats up to {FORMAT}, "
                "use a newer labelmint, or export the bundle again"
            )
        if found != FORMAT:
            raise ManifestError(f"{name} has format {found}; it must be {FORMAT}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{name}: {problem_from_json(error, data, Manifest)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{name} is not JSON: {one_line(error)}") from error
    check_manifest(manifest, name)
    expected = bundle_id_from_content(
        manifest.generator,
        manifest.labels,
        manifest.heads,
        manifest.files,
        manifest.refiner,
        manifest.views,
    )
    if manifest.bundle_id != expected:
        raise ManifestError(
            f"{name}: bundle_id is {manifest.bundle_id}, but its content gives {expected}; the "
            "file was edited after export, export the bundle again"
        )
    return manifest


def bundle_id_from_content(
    generator: GeneratorFacts,
    labels: Labels | None,
    heads: Heads | None,
    files: dict[str, FileEntry],
    refiner: RefinerFacts | None = None,
    views: ViewBankFacts | None = None,
) -> str:
    """The bundle id, "sha256:<hex>": SHA-256 of canonical JSON of everything that decides samples.

    Calibration, certificate, plans, parity, licences, hashes of weights files and tool versions are
    left out: adding to them keeps the id, and with it engine caches and pins of clients.
    """
    content: dict[str, object] = {
        "format": FORMAT,
        "generator": msgspec.to_builtins(generator),
        "labels": msgspec.to_builtins(labels),
        "heads": msgspec.to_builtins(heads),
        "files": {name: entry.sha256 for name, entry in files.items()},
    }
    if refiner is not None:
        content["refiner"] = msgspec.to_builtins(refiner)
    if views is not None:
        content["views"] = msgspec.to_builtins(views)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
