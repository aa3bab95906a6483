"""Whoever clicks does not wait for pictures that are only shown, nor lose what others do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from nets.generator import Generator
from tests.hangs import HANG_S, eventually
from tests.studio.conftest import Served
from training.images.image_set import image_set_from_folder

PICTURES = 6
CLICK = {"points": [[5, 6]], "class_id": 1}


@contextmanager
def watched(generator: Generator, watch: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Calls watch(w+) before each synthesis."""

    def before(module: object, given: tuple[torch.Tensor, ...]) -> None:
        watch(given[0])

    handle = generator.synthesis.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def test_a_click_is_answered_while_candidates_are_drawn(served: Served) -> None:
    """At once if the features of its image are read, else before the candidates that wait."""
    tables, images = served.studio.tables, served.studio.project.images
    first, free = threading.Event(), threading.Event()
    drawn: list[bool] = []  # whether each was the image that is clicked on

    def watch(w: torch.Tensor) -> None:
        drawn.append(bool((w.numpy() == images.ws[1]).all()))
        first.set()
        assert free.wait(HANG_S)

    def click(stem: str) -> int:
        return served.send("POST", f"/api/images/{stem}/select", CLICK).status

    assert click("000") == 200
    with watched(tables._generator, watch), ThreadPoolExecutor(PICTURES + 1) as pool:
        try:
            asked = [
                pool.submit(served.request, "GET", f"/candidates/{100 + i}")
                for i in range(PICTURES)
            ]
            assert first.wait(HANG_S)
            assert click("000") == 200, "while the generator is at work"
            clicked = pool.submit(click, "001")
            assert eventually(lambda: tables._turns._urgent == 1)
        finally:
            free.set()
        assert clicked.result() == 200
        assert all(one.result().status == 200 for one in asked)
    assert drawn == [False, True, *[False] * (PICTURES - 1)]


def test_an_image_that_is_taken_out_while_another_is_drawn_stays_out(served: Served) -> None:
    taken: list[int] = []

    def watch(w: torch.Tensor) -> None:
        if not taken:
            taken.append(served.request("DELETE", "/api/images/000").status)

    with watched(served.studio.tables._generator, watch):
        assert served.send("POST", "/api/images", {"indices": [200, 201]}).status == 204
    assert taken == [204]
    images = image_set_from_folder(served.folder)
    images.check_files()
    assert images.stems == ["001", "002", "003", "004", "005"]
