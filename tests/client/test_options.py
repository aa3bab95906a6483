"""Options: what cannot be sent is refused with the value, the limit and the fix."""

from __future__ import annotations

import numpy as np
import pytest

from labelmint.options import StreamOptions, query_from_options, sampling_from_options
from labelmint.v1 import label_service_pb2 as pb


def test_no_options_ask_for_the_defaults() -> None:
    query = query_from_options({})
    assert query == pb.SampleQuery(
        sampling=pb.SamplingOptions(latent_source=pb.LATENT_SOURCE_PHILOX, views_per_object=1),
        filter=pb.Filter(mode=pb.FILTER_MODE_NONE),
        num_shards=1,
    )


def test_none_is_the_same_as_leaving_an_option_out() -> None:
    options: StreamOptions = {
        "truncation_psi": None, "truncation_cutoff": None, "class_index": None,
        "keep_fraction": None, "max_uncertainty": None, "indices": None, "z": None, "w": None,
        "w_plus": None, "outputs": None, "codecs": None,
    }  # fmt: skip
    assert query_from_options(options) == query_from_options({})


def test_every_option_is_understood() -> None:
    for name in StreamOptions.__annotations__:
        query_from_options({name: None} if name in ("z", "w") else {})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed -1 is outside 0 to 2**64 - 1"),
        ({"seed": 2**64}, "outside 0 to 2**64 - 1"),
        ({"num_shards": 2**32}, "outside 0 to 2**32 - 1"),
        ({"keep_fraction": 0.0}, "outside (0, 1]"),
        ({"keep_fraction": 1.5}, "keep_fraction 1.5"),
        ({"keep_fraction": float("nan")}, "keep_fraction nan"),
        ({"max_uncertainty": -0.1}, "max_uncertainty -0.1"),
        ({"max_uncertainty": float("nan")}, "max_uncertainty nan"),
        ({"keep_fraction": 0.5, "max_uncertainty": 0.1}, "give one"),
        ({"indices": [1], "z": np.zeros((1, 4))}, "indices and z exclude each other"),
        ({"indices": []}, "empty"),
        ({"indices": [3, 3]}, "np.unique"),
        ({"indices": [0.5]}, "integers"),
        ({"w": np.zeros(4)}, "w has shape [4]; give 2 dimensions and at least one row"),
        ({"w_plus": np.zeros((1, 4))}, "give 3 dimensions"),
        ({"z": np.zeros((0, 4))}, "z has shape [0, 4]; give 2 dimensions and at least one row"),
        ({"outputs": ["labels"]}, "choose from image, mask"),
        ({"outputs": ["masks"]}, "output 'masks' is unknown; did you mean mask?"),
        ({"z": "abc"}, "z is not an array of numbers"),
        ({"codecs": ["png"]}, "choose from raw, zstd, jpeg"),
        ({"latent_source": "random"}, "choose from philox, mt19937"),
    ],
    ids=str,
)
def test_contradictions_and_ranges_are_refused(options: StreamOptions, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        query_from_options(options)
    assert words in str(caught.value)


def test_unknown_options_name_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean start_index"):
        query_from_options({"startindex": 3})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match="choose from seed"):
        sampling_from_options({"count": 3})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 1.5}, "seed is 1.5; give a whole number"),
        ({"count": "9"}, "count is '9'; give a whole number"),
        ({"seed": True}, "seed is True; give a whole number"),
        ({"view": True}, "view is True; give a whole number"),
        ({"keep_fraction": True}, "keep_fraction is True; give a number"),
        ({"truncation_psi": np.True_}, f"truncation_psi is {np.True_!r}; give a number"),
        ({"edits": {"more": True}}, "edits of 'more' is True; give a number"),
        ({"view": 0.5}, "view is 0.5; give a whole number"),
        ({"outputs": "image"}, "outputs is 'image'; give a list, for example ['image']"),
        ({"codecs": "raw"}, "codecs is 'raw'; give a list, for example ['raw']"),
        ({"outputs": 5}, "outputs is 5; give a list of names"),
        ({"keep_fraction": "0.9"}, "keep_fraction is '0.9'; give a number"),
        ({"max_uncertainty": [0.1, 0.2]}, "max_uncertainty is [0.1, 0.2]; give a number"),
        ({"truncation_psi": "low"}, "truncation_psi is 'low'; give a number"),
        ({"model": 3}, "model is 3; give text"),
        ({"bundle_id": b"sha256"}, "bundle_id is b'sha256'; give text"),
        ({"filter_sets": "yes"}, "filter_sets is 'yes'; give True or False"),
    ],
    ids=str,
)
def test_values_of_the_wrong_type_name_their_option(options: StreamOptions, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        query_from_options(options)
    assert str(caught.value) == words


def test_a_mask_is_no_list_of_indices() -> None:
    for mask in ([False, True], np.array([False, True])):
        with pytest.raises(ValueError, match="give integers"):
            query_from_options({"indices": mask})


def test_numbers_of_numpy_are_numbers() -> None:
    query = query_from_options({"seed": np.uint64(7), "count": np.int32(3)})  # type: ignore[typeddict-item]
    assert (query.sampling.seed, query.count) == (7, 3)
