"""A client is told whether images were refined."""

from dataclasses import replace

import msgspec

from bundle.manifest import RefinerFacts
from engines.fake import fake_bundle
from labelmint import Client
from labelmint.cli.models import description_from_model
from tests.service.harness import FakeModel, served

FACTS = RefinerFacts(
    weights_sha256="0" * 64,
    generator_sha256=None,
    width=8,
    blocks=2,
    grain=0,
    grain_seed=0,
    regulariser="0.5 x mean of identity",
    shift_px=0.2,
    structure=0.9,
    agreement=None,
)


def test_models_tell_refined_images_from_plain_ones() -> None:
    plain = fake_bundle(resolution=16)
    manifest = msgspec.structs.replace(plain.manifest, refiner=FACTS)
    models = [FakeModel("plain", plain), FakeModel("refined", replace(plain, manifest=manifest))]
    with served(models) as server, Client(f"127.0.0.1:{server.server.port}") as client:
        told = {model.name: model for model in client.models()}
    assert not told["plain"].refined and "refined" not in description_from_model(told["plain"])
    assert told["refined"].refined
    assert "fake, refined, 16 x 16 px" in description_from_model(told["refined"])
