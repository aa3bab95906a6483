"""Contact sheets, for people to look at: titled rows and columns of pictures -> one picture.

    +-------+----------+----------+
    |       | column   | column   |
    | row   | picture  | picture  |
    | row   | picture  | picture  |
    +-------+----------+----------+
    | legend                      |
    +-----------------------------+

Text is wrapped, never cut: rows and columns grow with their titles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from labelmint.panels import panel_from_image, size_from_images

GAP, FRAME = 6, 3  # pixels; width of the frames around doubtful rows
TEXT_PX, LINE_PX = 13, 17  # size of the font, and height of a line
TITLE_WIDTH = 190  # widest column of row titles, pixels
PAPER, INK, FAINT, ALARM = (250, 250, 247), (32, 33, 36), (96, 98, 104), (190, 30, 30)
FONT = ImageFont.load_default(TEXT_PX)
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Row:
    """Pictures side by side, of the same size in all rows of a sheet."""

    title: str  # to the left; may have line breaks
    pictures: Sequence[Image.Image]
    captions: Sequence[str] = ()  # one above each picture
    doubtful: bool = False  # red title, red frames


def sheet_from_rows(
    rows: Sequence[Row],
    columns: Sequence[str] = (),
    legend: Sequence[tuple[Color | None, str]] = (),  # color of the patch before the text, if any
) -> Image.Image:
    """Draws rows of pictures with their titles, titles of columns above, and a legend below."""
    width, height = rows[0].pictures[0].size
    assert all(picture.size == (width, height) for row in rows for picture in row.pictures)
    across = max(len(row.pictures) for row in rows)
    longest = max(_width(line) for row in rows for line in row.title.splitlines() or [""])
    margin = min(TITLE_WIDTH, longest)
    left = GAP + margin + (GAP if margin else 0)
    heads = [_wrapped(text, width) for text in columns]
    head = LINE_PX * max((len(lines) for lines in heads), default=0)
    laid = [_laid_out(row, margin, width) for row in rows]
    heights = [LINE_PX * above + max(height, LINE_PX * len(title)) for title, _, above in laid]
    total = left + across * (width + GAP)
    patches = _legend_lines(legend, total)
    size = (total, GAP + head + GAP + sum(h + GAP for h in heights) + LINE_PX * len(patches) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(heads):
        _write(draw, (left + column * (width + GAP), GAP), lines, FAINT)
    y = GAP + head + GAP
    for row, (title, captions, above), row_height in zip(rows, laid, heights, strict=True):
        top = y + LINE_PX * above
        _write(draw, (GAP, top), title, ALARM if row.doubtful else INK)
        for column, picture in enumerate(row.pictures):
            x = left + column * (width + GAP)
            if captions:
                _write(draw, (x, y), captions[column], FAINT)
            sheet.paste(picture, (x, top))
            if row.doubtful:
                corners = (x, top, x + width - 1, top + height - 1)
                draw.rectangle(corners, outline=ALARM, width=FRAME)
        y += row_height + GAP
    for patch_line in patches:
        for x, color, text in patch_line:
            if color is not None:
                draw.rectangle((x - LINE_PX, y + 3, x - GAP, y + TEXT_PX), color, FAINT)
            draw.text((x, y), text, INK, FONT)
        y += LINE_PX
    return sheet


def rows_from_images(images: Mapping[str, Tensor]) -> list[Row]:
    """A row of each uint8 [n, 3, H, W] by its title, all in the size of the first; small images are
    enlarged."""
    arrays = {title: row.permute(0, 2, 3, 1).numpy() for title, row in images.items()}
    size = size_from_images(next(iter(arrays.values())))
    return [
        Row(title, [panel_from_image(image, size) for image in row])
        for title, row in arrays.items()
    ]


def _laid_out(row: Row, margin: int, width: int) -> tuple[list[str], list[list[str]], int]:
    """Lines of the title and of each caption, and the number of lines above the pictures."""
    captions = [_wrapped(text, width) for text in row.captions]
    return (
        _wrapped(row.title, margin), captions, max((len(c) for c in captions), default=0)
    )  # fmt: skip


def _legend_lines(
    legend: Sequence[tuple[Color | None, str]],
    total: int,
) -> list[list[tuple[int, Color | None, str]]]:
    """Entries with the place of their text in x, line by line."""
    lines: list[list[tuple[int, Color | None, str]]] = []
    end = total
    for color, text in legend:
        for i, part in enumerate(_wrapped(text, total - LINE_PX - 2 * GAP)):
            indent = 0 if color is None and i == 0 else LINE_PX
            if i > 0 or end + indent + _width(part) + GAP > total:
                lines.append([])
                end = GAP
            lines[-1].append((end + indent, color if i == 0 else None, part))
            end += indent + _width(part) + 2 * GAP
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken between words, and within words that are longer."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split(" "):
            if line and _width(f"{line} {word}") <= width:
                line = f"{line} {word}"
                continue
            lines += [line] if line else []
            line = word
            while _width(line) > width and len(line) > 1:
                fits = next(n for n in range(len(line) - 1, 0, -1) if _fits(line[:n], width))
                lines.append(line[:fits])
                line = line[fits:]
        lines.append(line)
    return lines


def _fits(text: str, width: int) -> bool:
    return len(text) == 1 or _width(text) <= width


def _width(text: str) -> int:
    return -int(-FONT.getlength(text) // 1)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    lines: Sequence[str],
    color: Color,
) -> None:
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * LINE_PX), line, color, FONT)
