"""A click of the smart tool, as the page asks for it: it keeps to what is painted and shown."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.studio.chromium import IGNORED
from tests.studio.conftest import Served, serving


def test_a_selection_holds_the_click_grows_with_its_level_and_keeps_other_classes(
    served: Served,
) -> None:
    height, width = served.studio.project.size
    body = {"points": [[5, 6]], "class_id": 1}
    answer = served.send("POST", "/api/images/002/select", body)
    levels = np.frombuffer(answer.body, np.uint8).reshape(height, width)
    proposed = int(answer.headers["x-studio-level"])
    assert levels[6, 5] == 0 and levels[6, 5] <= proposed
    sizes = [int((levels <= level).sum()) for level in range(40)]
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]
    mask = np.full((height, width), IGNORED, np.uint8)
    mask[:, width // 2 :] = 0
    served.save("002", mask.tobytes(), '"none"')
    again = served.send("POST", "/api/images/002/select", body)
    held = np.frombuffer(again.body, np.uint8).reshape(height, width)
    assert (held[:, width // 2 :] == IGNORED).all(), "what is painted otherwise is left alone"
    served.save("001", bytes(height * width), '"none"')
    part = served.send("POST", "/api/images/001/select", body)
    levels = np.frombuffer(part.body, np.uint8)
    assert 0 < (levels <= int(part.headers["x-studio-level"])).sum() <= height * width / 2
    assert (levels < IGNORED).sum() > height * width / 2, "a click takes a part of what is painted"
    for points in ([], [[-1, 0]], [[0, height]], [[0.5, 1]], [[1, 2]] * 5000):
        bad = {"points": points, "class_id": 1}
        assert served.send("POST", "/api/images/002/select", bad).status == 400


def test_a_selection_over_a_proposal_keeps_the_classes_that_the_tab_shows(
    tiny_weights: tuple[Path, Path], project: Path
) -> None:
    work = project / "studio"
    (work / "proposals").mkdir(parents=True)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 1
    Image.fromarray(mask).save(work / "proposals/001.mask.png")
    learned = {
        "rounds": 1,
        "classes": ["ground", "figure"],
        "keypoints": [],
        "proposals": {"001": {"uncertainty": 0.1}},
    }
    (work / "proposals.json").write_text(json.dumps(learned))
    with serving(tiny_weights[0], project) as served:
        for proposed in (True, False):
            body = {"points": [[25, 6]], "class_id": 1, "proposed": proposed}
            answer = served.send("POST", "/api/images/001/select", body)
            levels = np.frombuffer(answer.body, np.uint8).reshape(32, 32)
            assert (levels[:, :16] == IGNORED).all() == proposed
        body = {"points": [[25, 6]], "class_id": 1, "proposed": True}
        assert served.send("POST", "/api/images/002/select", body).status == 200, "it has none"
