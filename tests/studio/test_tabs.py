"""One tab holds an image; the others hear of it, and get it when that tab is gone."""

import io
import json

from tests.studio.conftest import OTHER_TAB, TAB, Served, painted


def test_the_later_of_two_tabs_looks_on_until_it_takes_the_image(served: Served) -> None:
    first, second = served.open_stream(TAB), served.open_stream(OTHER_TAB)
    hold = "/api/images/000/hold"
    assert served.send("POST", hold, {"tab": TAB}).status == 204
    refused = served.send("POST", hold, {"tab": OTHER_TAB})
    assert refused.status == 409 and "another tab" in refused.text
    saved = served.save("000", painted(served), '"none"', x_studio_tab=OTHER_TAB)
    assert saved.status == 409
    assert served.send("POST", "/api/images/001/hold", {"tab": OTHER_TAB}).status == 204
    assert served.send("POST", hold, {"tab": OTHER_TAB, "take": True}).status == 204
    assert served.save("000", painted(served), '"none"').status == 409, "the first has lost it"
    assert served.save("000", painted(served), '"none"', x_studio_tab=OTHER_TAB).status == 204
    assert next_event(first, b"saved")["tab"] == OTHER_TAB
    served.streams.pop().close()  # the second tab is closed: its image is free again
    second.close()
    while next_event(first, b"holds") != {}:
        pass
    assert served.send("POST", hold, {"tab": TAB}).status == 204


def test_a_stream_of_more_tabs_takes_the_place_of_the_last_and_frees_what_a_tab_of_none_holds(
    served: Served,
) -> None:
    def holds() -> object:
        return json.loads(served.request("GET", "/api/project").body)["holds"]

    alone = served.open_stream(TAB)
    assert served.send("POST", "/api/images/000/hold", {"tab": TAB}).status == 204
    both = served.open_stream(TAB, OTHER_TAB)
    assert served.send("POST", "/api/images/001/hold", {"tab": OTHER_TAB}).status == 204
    assert alone.read().endswith(b"\n\n"), "the first stream has ended"
    assert holds() == {"000": TAB, "001": OTHER_TAB}
    last = served.open_stream(OTHER_TAB)
    assert holds() == {"000": TAB, "001": OTHER_TAB}, "until its other stream is closed"
    both.close()
    served.streams[1].close()
    while next_event(last, b"holds") != {"001": OTHER_TAB}:
        pass
    assert served.request("GET", "/api/events").status == 400, "of no tab"


def test_an_image_is_not_held_by_a_tab_that_was_closed_before_it_read_an_event(
    served: Served,
) -> None:
    """Nor is it shown as held: nobody could get it back otherwise."""
    hold = "/api/images/000/hold"
    looking = served.open_stream(OTHER_TAB)
    assert served.send("POST", hold, {"tab": TAB}).status == 204
    assert json.loads(served.request("GET", "/api/project").body)["holds"] == {}
    assert served.send("POST", hold, {"tab": OTHER_TAB}).status == 204
    assert json.loads(served.request("GET", "/api/project").body)["holds"] == {"000": OTHER_TAB}
    # Had it only been slow: it learns that the image is lost, and that its next one is not.
    assert next_event(served.open_stream(TAB), b"holds") == {"000": OTHER_TAB}
    assert served.send("POST", "/api/images/001/hold", {"tab": "33333333-tab"}).status == 204
    served.open_stream("33333333-tab")
    while "001" not in next_event(looking, b"holds"):
        pass


def next_event(stream: io.BufferedIOBase, kind: bytes) -> dict[str, str]:
    while stream.readline() != b"event: %s\n" % kind:
        pass
    found: dict[str, str] = json.loads(stream.readline().removeprefix(b"data: "))
    return found
