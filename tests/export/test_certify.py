"""A certificate goes into the bundle of its weights alone, and only as its reviews prove it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from bundle import open_bundle
from bundle.manifest import Certificate, Manifest, WeightsFacts
from bundle.write import add_certificate
from checkpoints import sha256_of_file
from engines.fake import fake_bundle
from engines.sampling import default_options
from engines.sampling_request import max_uncertainty_from_filter
from export.__main__ import main
from export.checks.certificate import certificate_from_reviews, thresholds_of_bundle
from labelmint import Client
from labelmint.errors import MalformedMessage
from labelmint.model import CertifiedThreshold, model_from_proto
from labelmint.v1 import label_service_pb2 as pb
from tests.client.scripted_service import MODEL
from tests.datasets.folders import target_of
from tests.service.harness import FakeModel, served

HASHES = WeightsFacts(generator_sha256="a" * 64, interpreter_sha256="b" * 64)
Content = dict[str, Any]
LIMITS: list[float | None] = [None, 0.9, 0.75, 0.5]


def reviewed(weights: WeightsFacts, thresholds: list[float | None], count: int = 60) -> Certificate:
    rng = np.random.default_rng(1)
    losses, unsure = rng.beta(1, 30, count), rng.random(count).round(4)
    return certificate_from_reviews(losses, unsure, thresholds, weights, 0.75, 3)


def written(path: Path, certificate: Certificate) -> Path:
    path.write_bytes(msgspec.json.encode(certificate))
    return path


def certify(bundle: Path, certificate: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["certify", str(bundle), str(certificate)])
    return result.exit_code, result.output


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of a calibrated bundle, to certify."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_a_certificate_of_its_weights_enters_the_bundle_and_the_id_stays(
    bundle: Path, tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    before = open_bundle(bundle).manifest
    assert before.weights is not None
    assert before.weights.interpreter_sha256 == sha256_of_file(tiny_weights[1])
    thresholds = thresholds_of_bundle(before)
    assert thresholds is not None
    opened, defaults = open_bundle(bundle), default_options(before.generator)
    for share, threshold in zip((0.9, 0.75, 0.5), thresholds[1:], strict=True):
        asked = pb.Filter(mode=pb.FILTER_MODE_KEEP_FRACTION, keep_fraction=share)
        assert threshold == max_uncertainty_from_filter(asked, opened, defaults)
    assert thresholds[0] is None
    certificate = reviewed(before.weights, thresholds)
    code, output = certify(bundle, written(tmp_path / "c.json", certificate))
    assert code == 0 and "60 reviews" in output, output
    after = open_bundle(bundle).manifest
    assert after.certificate == certificate
    assert after == msgspec.structs.replace(before, certificate=certificate)
    # A later review takes its place.
    longer = reviewed(before.weights, thresholds, 90)
    assert certify(bundle, written(tmp_path / "d.json", longer))[0] == 0
    assert open_bundle(bundle).manifest.certificate == longer


def as_tampered(change: Callable[[Content], object]) -> Callable[[bytes], bytes]:
    def tampered(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return tampered


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "of weights with interpreter_sha256": as_tampered(
        lambda c: c.update(interpreter_sha256="c" * 64, seed=int("c" * 12, 16))
    ),
    "of weights with generator_sha256": as_tampered(lambda c: c.update(generator_sha256="c" * 64)),
    "must be 64 hexadecimal digits": as_tampered(lambda c: c.update(generator_sha256="../x")),
    "upper_bound is 0.001; its reviews give": as_tampered(
        lambda c: c["thresholds"][1].update(upper_bound=0.001)
    ),
    "mean is": as_tampered(lambda c: c["losses"].__setitem__(0, 1.0)),
    "reviewed is 59": as_tampered(lambda c: c["thresholds"][0].update(reviewed=59)),
    "losses has 59 entries": as_tampered(lambda c: c["losses"].pop()),
    "losses\\[3\\] is 1.5": as_tampered(lambda c: c["losses"].__setitem__(3, 1.5)),
    "thresholds keep": as_tampered(lambda c: c["thresholds"].pop()),
    "seed is": as_tampered(lambda c: c.update(seed=7)),
    "first_index is": as_tampered(lambda c: c.update(first_index=4000)),
    "confidence is": as_tampered(lambda c: c.update(confidence=0.5)),
    "statement is": as_tampered(lambda c: c.update(statement="every label is right")),
    "unknown field": as_tampered(lambda c: c.update(signature="x")),
    "format": as_tampered(lambda c: c.update(format=2)),
    "is not JSON": lambda data: data[: len(data) // 2],
    "got `array`": lambda data: b'{"format": ' + b"[" * 100_000,
    "over 4194304 bytes": lambda data: data + b" " * (5 << 20),
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_a_certificate_of_other_weights_or_with_other_figures_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, reason: str
) -> None:
    manifest = (bundle / "manifest.json").read_bytes()
    weights = open_bundle(bundle, verify=False).manifest.weights
    assert weights is not None
    path = written(tmp_path / "c.json", reviewed(weights, LIMITS))
    path.write_bytes(HOSTILE[reason](path.read_bytes()))
    code, output = certify(bundle, path)
    assert code == 1 and output.count("\n") == 1 and len(output) < 700, output
    assert re.search(reason, output), output
    assert (bundle / "manifest.json").read_bytes() == manifest


def test_a_bundle_that_names_no_weights_or_refines_its_images_gets_none(
    bundle: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "c.json", reviewed(HASHES, LIMITS))
    manifest = bundle / "manifest.json"
    content = json.loads(manifest.read_bytes())
    del content["weights"]
    manifest.write_text(json.dumps(content))
    code, output = certify(bundle, path)
    assert code == 1 and "does not name one file of label weights" in output
    # Nor does a manifest that was edited by hand become one with a certificate of other weights.
    certificate = msgspec.to_builtins(reviewed(HASHES, LIMITS))
    manifest.write_text(json.dumps(content | {"certificate": certificate}))
    code, output = certify(bundle, path)
    assert code == 1 and "names no weights" in output and output.count("\n") == 1


def test_a_bundle_that_was_replaced_meanwhile_gets_none(bundle: Path) -> None:
    opened = open_bundle(bundle)
    manifest = bundle / "manifest.json"
    content = json.loads(manifest.read_bytes())
    content["weights"]["interpreter_sha256"] = "d" * 64
    manifest.write_text(json.dumps(content))
    assert opened.manifest.weights is not None
    with pytest.raises(Exception, match="replaced"):
        add_certificate(opened, reviewed(opened.manifest.weights, LIMITS))


def certified_manifest(manifest: Manifest) -> Manifest:
    certificate = reviewed(HASHES, LIMITS)
    return msgspec.structs.replace(manifest, weights=HASHES, certificate=certificate)


def test_clients_see_the_certificate_of_a_served_bundle() -> None:
    bare = fake_bundle(resolution=16)
    bundle = replace(bare, manifest=certified_manifest(bare.manifest))
    models = [FakeModel("bare", bare), FakeModel("certified", bundle)]
    with served(models) as server, Client(target_of(server)) as client:
        assert client.model("bare").certificate is None
        known = client.model("certified").certificate
    assert known is not None and bundle.manifest.certificate is not None
    rows = bundle.manifest.certificate.thresholds
    assert (known.confidence, known.reviewed, known.truncation_cutoff) == (0.95, 60, 3)
    assert known.at(None) == CertifiedThreshold(None, rows[0].upper_bound, 60)
    half = known.at(0.5)
    assert half is not None and half.upper_bound == rows[3].upper_bound
    assert known.at(0.4) is None


def test_a_certificate_out_of_range_is_no_answer_of_a_server() -> None:
    message = type(MODEL)()
    message.CopyFrom(MODEL)
    for bound in (-0.1, 1.5, float("nan")):
        message.certificate.confidence = 0.95
        del message.certificate.thresholds[:]
        message.certificate.thresholds.add(upper_bound=bound)
        with pytest.raises(MalformedMessage, match="share from 0 to 1"):
            model_from_proto(message)
