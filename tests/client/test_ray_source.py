"""Read tasks of a Ray source, run without a cluster; tests/client/test_ray.py has one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle

from labelmint import Client, codec
from labelmint.errors import MalformedMessage, NotReady
from labelmint.ray import LabelSource
from labelmint.ray.source import BLOCK_BYTES, PREFETCH_BYTES
from labelmint.v1 import label_service_pb2 as pb
from tests.client.scripted_service import BUNDLE_ID, MODEL, Script, ScriptedService

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of its own settings
GRPC_BYTES = 48 << 20  # of one call, in windows that gRPC widens by itself; 17 to 26 MB were seen
OPTIONS: dict[str, Any] = {"seed": 3, "keep_fraction": 0.6, "start_index": 5, "end_index": 95}


def indices_of(blocks: list[Any]) -> list[int]:
    return [index for block in blocks for index in block["index"].to_pylist()]


def test_tasks_have_the_rows_of_the_stream_in_the_promised_schema(target: str) -> None:
    with Client(target) as client:
        wanted = list(client.stream(8, **OPTIONS))
    source = LabelSource(target, shards=7, **OPTIONS)
    tasks = source.get_read_tasks(2)
    assert len(tasks) == 7
    blocks = [block for task in tasks for block in task()]
    assert indices_of(blocks) == [i for batch in wanted for i in batch.indices.tolist()]
    for task, block in zip(tasks, blocks, strict=True):
        assert block.schema.equals(task.schema)
        assert task.metadata.num_rows is None  # nobody knows what the filter keeps
    masks = np.concatenate([block["mask"].combine_chunks().to_numpy() for block in blocks])
    assert np.array_equal(np.stack(list(masks)), np.concatenate([b.masks for b in wanted]))
    by_content = LabelSource(target, end_index=90, where="share('part 1') >= 0.25")
    assert by_content.get_read_tasks(1)[0].metadata.num_rows is None
    bare = LabelSource(target, end_index=90, outputs=["uncertainty"])
    sizes = [task.metadata for task in bare.get_read_tasks(4)]
    assert [size.num_rows for size in sizes] == [22, 23, 22, 23]
    assert [size.size_bytes for size in sizes] == [264, 276, 264, 276]
    assert bare.estimate_inmemory_data_size() == 90 * 12


def test_a_range_of_any_length_has_a_bounded_number_of_tasks(target: str) -> None:
    source = LabelSource(target, end_index=1 << 40, outputs=["uncertainty"])
    sizes = [task.metadata.num_rows for task in source.get_read_tasks(2)]
    assert (len(sizes), sum(filter(None, sizes))) == (1 << 16, 1 << 40)


def test_a_task_run_again_elsewhere_and_later_yields_equal_blocks(
    target: str, service: ScriptedService
) -> None:
    task = LabelSource(target, shards=2, **OPTIONS).get_read_tasks(1)[1]
    before = list(task())
    service.threshold = 0.01  # calibrated anew
    service.script = Script(message_samples=(2, 5), messages_until_drop=3)
    again = list(cloudpickle.loads(cloudpickle.dumps(task))())
    assert [block.equals(other) for block, other in zip(before, again, strict=True)] == [True]
    service.script = Script(bundle_id="sha256:another")
    with pytest.raises(NotReady):
        list(task())


def test_a_part_that_the_filter_empties_has_a_block_of_the_same_schema(target: str) -> None:
    options: dict[str, Any] = {"max_uncertainty": 0.0, "end_index": 4}
    (task,) = LabelSource(target, shards=1, **options).get_read_tasks(1)
    (block,) = task()
    assert block.num_rows == 0 and block.schema.equals(task.schema)


def test_what_cannot_be_read_is_refused_before_a_server_is_asked(
    target: str, service: ScriptedService
) -> None:
    refused: list[tuple[Any, str]] = [
        ({}, "give an end"),
        ({"end_index": 9, "count": 4}, "option 'count' is for a whole stream"),
        ({"end_index": 9, "shards": 0}, "shards 0 is outside 1 to 65536"),
        ({"end_index": 9, "shards": 1 << 40}, "shards 1099511627776 is outside 1 to 65536"),
    ]
    for options, words in refused:
        with pytest.raises(ValueError, match=words):
            LabelSource(target, **options)
    assert not service.metadata
    assert LabelSource(target, end_index=9).options["bundle_id"] == BUNDLE_ID


@pytest.mark.parametrize("parallelism", [1, 4])
def test_a_task_holds_as_much_as_it_receives_ahead_and_a_block_whatever_its_part(
    target: str, service: ScriptedService, parallelism: int
) -> None:
    """Rows that were drawn and not yet taken: a reader of 315 MB stops at every block."""
    side, drawn = 512, [0]

    def large(
        query: pb.SampleQuery, honest: Iterator[pb.StreamSamplesResponse]
    ) -> Iterator[pb.StreamSamplesResponse]:
        for response in honest:
            images = np.zeros((len(response.batch.indices), side, side, 3), np.uint8)
            del response.batch.tensors[:]
            response.batch.tensors.append(codec.tensor_from_array(images, pb.OUTPUT_IMAGE))
            drawn[0] += len(images)
            yield response

    service.model = type(MODEL)()
    service.model.CopyFrom(MODEL)
    service.model.image_height = service.model.image_width = side
    service.lie = large
    sample_bytes = side * side * 3 + 8  # image and index
    source = LabelSource(target, end_index=400 * parallelism, outputs=["image"])
    task = source.get_read_tasks(parallelism)[0]
    assert task.metadata.size_bytes == 400 * sample_bytes
    taken, ahead = 0, []
    for block in task():
        assert block.nbytes <= BLOCK_BYTES + sample_bytes
        taken += block.num_rows
        if taken in (5, 100, 200):
            ahead.append((settled(drawn) - taken) * sample_bytes)
    assert taken == drawn[0] == 400
    # Beside what is received ahead: the next block, and what gRPC and the server hold of the call.
    assert PREFETCH_BYTES <= max(ahead) <= PREFETCH_BYTES + BLOCK_BYTES + GRPC_BYTES, ahead


def settled(drawn: list[int]) -> int:
    """Rows that were drawn when nothing more happens."""
    before = -1
    while before != drawn[0]:
        before = drawn[0]
        threading.Event().wait(0.2)
    return before


def test_a_token_is_in_no_text_that_ray_may_print(target: str, service: ScriptedService) -> None:
    """Ray prints what a task holds when it cannot pickle it, and describes operators."""
    source = LabelSource(target, shards=2, client={"token": "hunter2"}, **OPTIONS)
    (task, _) = source.get_read_tasks(1)
    held = [cell.cell_contents for cell in task.read_fn.__closure__ or ()]
    assert "hunter2" not in repr([vars(source), vars(task), held])
    service.metadata = {}
    list(cloudpickle.loads(cloudpickle.dumps(task))())
    assert service.metadata["authorization"] == "Bearer hunter2"


def test_a_server_that_sends_other_arrays_later_gives_no_second_schema(
    target: str, service: ScriptedService
) -> None:
    def narrower(
        query: pb.SampleQuery, honest: Iterator[pb.StreamSamplesResponse]
    ) -> Iterator[pb.StreamSamplesResponse]:
        for response in honest:
            for tensor in response.batch.tensors:
                if tensor.output == pb.OUTPUT_IMAGE:
                    array = codec.array_from_tensor(tensor)[:, :-1]
                    tensor.CopyFrom(codec.tensor_from_array(array, pb.OUTPUT_IMAGE))
            yield response

    task = LabelSource(target, shards=2, **OPTIONS).get_read_tasks(1)[1]
    service.lie = narrower
    with pytest.raises(MalformedMessage, match=r"sends uint8 \[5, 8, 3\] as image; it described"):
        list(task())
