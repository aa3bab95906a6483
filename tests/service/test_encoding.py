"""Messages framed by hand are what protobuf would have made of the same samples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engines.fake import fake_bundle
from engines.sampling import default_options
from labelmint.codec import OUTPUTS, array_from_tensor, tensor_from_array
from labelmint.v1 import label_service_pb2 as pb
from service.delivery import KeptSamples, Message
from service.discards import Reasons
from service.encoding import bytes_from_message
from service.query import Query, WantedOutput
from service.sampler import IndexRange, plan_from_range

SHAPES = {
    "image": (5, 4, 3), "mask": (5, 4), "keypoints": (2, 3), "uncertainty": (), "depth": (3, 3),
}  # fmt: skip


def query_of(codecs: dict[str, pb.Codec]) -> Query:
    return Query(
        options=default_options(fake_bundle().manifest.generator),
        latents=None,
        plan=plan_from_range(IndexRange(0)),
        screen=None,
        max_uncertainty=np.float32(np.inf),
        selection=None,
        shift=None,
        applied=0,
        unmet_limit=0,
        count=0,
        weight=1,
        outputs=tuple(
            WantedOutput(name, OUTPUTS[name].output, codec, 1, 1) for name, codec in codecs.items()
        ),
        jpeg_quality=90,
        max_message_bytes=1 << 24,
        max_message_samples=8,
        bundle_id="sha256:" + 64 * "0",
        learned_id="",
    )


@given(
    seed=st.integers(0, 99),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    names=st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, unique=True),
    zstd=st.booleans(),
    scattered=st.booleans(),
)
def test_any_message_parses_to_its_samples(
    seed: int, sizes: list[int], names: list[str], zstd: bool, scattered: bool
) -> None:
    random = np.random.default_rng(seed)
    codecs = {name: pb.CODEC_ZSTD if zstd else pb.CODEC_RAW for name in names}
    samples = []
    for size in sizes:
        arrays = {
            name: (random.standard_normal((size + 3, *SHAPES[name])) * 99).astype(
                OUTPUTS[name].dtype
            )
            for name in names
        }
        picks = np.sort(random.permutation(size + 3)[:size]) if scattered else np.arange(size) + 1
        indices = random.integers(0, 2**63, size, np.uint64)
        samples.append(KeptSamples(arrays, picks.astype(np.intp), [], indices, 0.0))
    message = Message(
        tuple(samples), next_index=2**64 - 1, discarded=3, reasons=Reasons(3, 0, 0, 0, 0)
    )
    response = pb.StreamSamplesResponse.FromString(bytes_from_message(message, query_of(codecs)))
    expected = pb.StreamSamplesResponse(
        next_index=2**64 - 1, discarded=3, bundle_id="sha256:" + 64 * "0"
    )
    for kept in samples:
        expected.batch.indices.extend(kept.indices.tolist())
    for name in names:
        array = np.concatenate([kept.arrays[name][kept.picks] for kept in samples])
        tensor = tensor_from_array(array, OUTPUTS[name].output, codecs[name])
        expected.batch.tensors.append(tensor)
    assert response == expected
    for tensor in response.batch.tensors:
        array_from_tensor(tensor)
