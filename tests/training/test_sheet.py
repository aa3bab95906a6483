"""Sheets have a title for every row and column, and no text is cut, however long it is."""

import numpy as np
import pytest
from PIL import Image

from training.sheet import ALARM, FONT, GAP, PAPER, Row, _wrapped, sheet_from_rows

PICTURE = Image.new("RGB", (64, 48), (0, 90, 0))
LONG = "IMG_20240131_with_a_name_that_never_ends_and_has_no_blank_in_it.jpeg and then a reason"


@pytest.mark.parametrize("width", [30, 64, 190])
@pytest.mark.parametrize("text", [LONG, "short", "two\nlines", "view 3: -57° +12°"])
def test_wrapped_text_keeps_every_letter_and_fits(text: str, width: int) -> None:
    lines = _wrapped(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert all(FONT.getlength(line) <= width for line in lines)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_margins_of_a_sheet_are_empty(rows: int) -> None:
    sheet = sheet_from_rows(
        [Row(LONG, [PICTURE] * 2, [LONG] * 2, doubtful=True)] * rows,
        [LONG, "column"],
        [((255, 0, 0), LONG), (None, LONG)],
    )
    pixels = np.array(sheet)
    for edge in (pixels[:, -3:], pixels[:, :3], pixels[-2:], pixels[:3]):
        assert (edge == PAPER).all()
    assert (pixels == ALARM).all(axis=2).any()


def test_titles_and_pictures_do_not_overlap() -> None:
    plain = np.array(sheet_from_rows([Row("", [PICTURE])]))
    titled = np.array(sheet_from_rows([Row(LONG, [PICTURE], [LONG])], [LONG], [(None, LONG)]))
    for pixels in (plain, titled):
        assert (pixels == PICTURE.getpixel((0, 0))).all(axis=2).sum() == 64 * 48
    assert plain.shape[:2] == (GAP + GAP + 48 + GAP + GAP, GAP + 64 + GAP)
