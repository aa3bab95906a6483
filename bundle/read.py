"""Bytes of manifest.json -> Manifest, or one line that says what is wrong with them."""

import hashlib
import json

import msgspec

from bundle.check import check_manifest
from bundle.errors import ManifestError
from bundle.manifest import FileEntry, Generator, Heads, Labels, Manifest, Refiner, Views

FORMAT = 1
MAX_MANIFEST_BYTES = 64 << 20


class _Versioned(msgspec.Struct):
    format: int


def manifest_from_bytes(data: bytes, name: str) -> Manifest:
    """Decodes and checks a manifest; `name` is what messages call it. Raises ManifestError."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{name} has over {MAX_MANIFEST_BYTES} bytes; it is no manifest")
    try:
        found = msgspec.json.decode(data, type=_Versioned).format
        if found > FORMAT:
            raise ManifestError(
                f"{name} has format {found}; this labelmint reads formats up to {FORMAT}, "
                "use a newer labelmint or export the bundle again"
            )
        if found != FORMAT:
            raise ManifestError(f"{name} has format {found}; the only released format is {FORMAT}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{name}: {_one_line(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{name} is not JSON: {_one_line(error)}") from error
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
            f"{name}: bundle_id is {manifest.bundle_id}, but the content's is {expected}; the file "
            "was edited after export"
        )
    return manifest


def bundle_id_from_content(
    generator: Generator,
    labels: Labels | None,
    heads: Heads | None,
    files: dict[str, FileEntry],
    refiner: Refiner | None = None,
    views: Views | None = None,
) -> str:
    """The id, sha256:<hex>, over canonical JSON of what decides the samples.

    Calibration, parity, licences and tool versions are left out, so that extending them
    keeps engine caches and clients' pins valid.
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())  # a field's own name may have line breaks
