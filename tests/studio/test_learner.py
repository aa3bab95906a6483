"""What is labeled next, and the process that learns: it proposes, begins warm, and ends in time."""

import json
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.learner import Learner, order_to_label
from studio.project import Project
from tests.hangs import eventually
from tests.studio.conftest import CARDS


def test_the_next_image_is_unsure_and_unlike_the_labeled_ones() -> None:
    w = np.array([[0.0], [0.1], [5.0], [5.1], [9.0]], np.float32)
    unsure = np.array([0.0, 1.0, 0.9, 0.8, 0.2])
    # 1 is the least sure but like the labeled 0; 3 is like 2, which comes before it.
    assert order_to_label(w, unsure, [0], [1, 2, 3, 4]) == [2, 4, 1, 3]
    assert order_to_label(w, unsure, [], [1, 2]) == [1, 2]
    assert order_to_label(w, unsure, [0], []) == []


@pytest.mark.slow  # the way of tests/studio/test_browser.py learns, too
def test_a_half_labeled_image_teaches_and_the_process_ends_with_its_pipe(
    tiny_weights: tuple[Path, Path], project: Path
) -> None:
    opened = Project(project)
    opened.set_classes(CARDS)
    height, width = opened.size
    mask = np.full((height, width), opened.ignore_id, np.uint8)
    mask[:8], mask[8:12, :4] = 0, 1
    opened.save_mask("000", mask.tobytes(), "none")
    process = subprocess.Popen(
        [sys.executable, "-m", "studio.learning", "--generator", str(tiny_weights[0]),
         "--project", str(project)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    lowest = []
    for job in ({"cold_steps": 40}, {"warm_steps": 7}):
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        events = [json.loads(process.stdout.readline())]
        while events[-1]["kind"] not in ("done", "failed"):
            events.append(json.loads(process.stdout.readline()))
        assert events[-1]["kind"] == "done", events[-1]
        lists = {"classes": ["ground", "figure"], "keypoints": []}
        steps = next(iter(job.values()))
        assert events[0] == {"kind": "start", "steps": steps, "images": 1, **lists}
        assert [e["stem"] for e in events if e["kind"] == "proposal"] == ["001", "002", "003"]
        lowest.append(min(e["loss"] for e in events if e["kind"] == "step"))
    assert lowest[1] < 2 * lowest[0], "the second round began where the first ended"
    proposal = np.array(Image.open(project / "studio/proposals/001.mask.png"))
    assert proposal.shape == opened.size and set(np.unique(proposal)) <= {0, 1}
    process.stdin.write(json.dumps({"warm_steps": 100_000}) + "\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["kind"] == "start"
    process.stdin.close()  # as when the server is killed
    process.stdout.close()
    assert process.wait(60) == 0


# Ends each round when it is told to: proposes for as many images as the line names.
PROPOSES = """
import json, sys
for line in sys.stdin:
    lists = {"classes": ["ground", "figure"], "keypoints": []}
    print(json.dumps({"kind": "start", "steps": 1, "images": 1, **lists}), flush=True)
    for stem in sys.argv[1].split():
        proposal = {"kind": "proposal", "stem": stem, "uncertainty": float(sys.argv[2])}
        print(json.dumps({**proposal, "points": None}), flush=True)
    if sys.argv[3] == "ends":
        print(json.dumps({"kind": "done", "images": 1, "seconds": 1.0}), flush=True)
"""


def test_a_round_that_is_stopped_while_it_proposes_leaves_the_images_that_it_had_not_come_to(
    project: Path,
) -> None:
    """They had no proposal any more until the next round, though their files were there."""
    opened = Project(project)
    opened.set_classes(CARDS)
    opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")

    def round_of(stems: str, uncertainty: str, end: str) -> dict[str, float]:
        command = [sys.executable, "-c", PROPOSES, stems, uncertainty, end]
        with closing(Learner(opened, command, lambda kind, content: None)) as learner:
            known = shown(learner)
            learner.start()
            last = stems.split()[-1]
            assert eventually(lambda: shown(learner).get(last) == float(uncertainty))
            if end == "ends":
                assert eventually(lambda: learner.state()["phase"] == "idle")
            else:
                assert set(shown(learner)) >= set(known)
                learner.stop()
            return shown(learner)

    def shown(learner: Learner) -> dict[str, float]:
        found = learner.state()["uncertainty"]
        assert isinstance(found, dict)
        return found

    assert round_of("001 002 003", "0.5", "ends") == {"001": 0.5, "002": 0.5, "003": 0.5}
    assert round_of("001", "0.1", "goes on") == {"001": 0.1, "002": 0.5, "003": 0.5}
    assert round_of("001 003", "0.2", "ends") == {"001": 0.2, "003": 0.2}, "002 has a label now"


def test_a_list_of_proposals_that_cannot_be_written_ends_no_learner(project: Path) -> None:
    """As on a full disk: nobody read what the process told any more, and the next round began and
    never ended."""
    opened = Project(project)
    opened.set_classes(CARDS)
    opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")
    (opened.work / "proposals.json").mkdir()
    command = [sys.executable, "-c", PROPOSES, "001", "0.5", "ends"]
    with closing(Learner(opened, command, lambda kind, content: None)) as learner:
        learner.start()
        assert eventually(lambda: learner.state()["rounds"] == 1)
        learner.start()
        assert eventually(lambda: learner.state()["rounds"] == 2)


# Ends its round once a file is there.
WAITS = """
import json, os, sys, time
for line in sys.stdin:
    lists = {"classes": ["ground", "figure"], "keypoints": []}
    print(json.dumps({"kind": "start", "steps": 1, "images": 1, **lists}), flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
    print(json.dumps({"kind": "done", "images": 1, "seconds": 1.0}), flush=True)
"""


def test_a_round_that_was_asked_for_does_not_begin_once_nothing_is_labeled(
    project: Path, tmp_path: Path
) -> None:
    """A thread ended with a traceback in the terminal."""
    opened = Project(project)
    opened.set_classes(CARDS)
    tag = opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")
    command = [sys.executable, "-c", WAITS, str(tmp_path / "end")]
    with closing(Learner(opened, command, lambda kind, content: None)) as learner:
        learner.start()
        assert eventually(lambda: learner.state()["phase"] == "training")
        learner.start()  # once more, when this round has ended
        blank = bytes([opened.ignore_id]) * (opened.size[0] * opened.size[1])
        opened.save_mask("000", blank, tag)
        (tmp_path / "end").touch()
        assert eventually(lambda: learner.state()["rounds"] == 1)
        assert eventually(lambda: not any("start" in one.name for one in threading.enumerate()))
