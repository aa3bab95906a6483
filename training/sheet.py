"""Contact sheets: rows of uint8 images -> one picture, for people to look at."""

from PIL import Image
from torch import Tensor

from labelmint.panels import panel_from_image, size_from_images

GAP = 4  # pixels
PAPER = (250, 250, 247)


def sheet_from_rows(rows: list[Tensor]) -> Image.Image:
    """Draws each uint8 [n, 3, H, W] as one row of images; n may differ between rows, H and W may
    not."""
    arrays = [row.permute(0, 2, 3, 1).numpy() for row in rows]
    height, width = size_from_images(arrays[0])
    across, down = width + GAP, height + GAP
    size = (GAP + across * max(map(len, arrays)), GAP + down * len(arrays))
    sheet = Image.new("RGB", size, PAPER)
    for i, row in enumerate(arrays):
        for j, image in enumerate(row):
            panel = panel_from_image(image, (height, width))
            sheet.paste(panel, (GAP + across * j, GAP + down * i))
    return sheet
