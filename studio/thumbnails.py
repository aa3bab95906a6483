"""Small pictures of the set's images, for lists of many: made once, and kept in the project.

DIR/studio/thumbnails/HASH.jpg   by the hash of the image's pixels
"""

import io
import threading
from pathlib import Path

from PIL import Image

from bundle.files import replace_file
from studio.project import Project
from training.images.image_set import read_rgb

SIDE = 256  # pixels of the longer side; smaller images are their own thumbnails
QUALITY = 92  # without subsampling of colors: parts are told apart by them
FOLDER = "thumbnails"


class Thumbnails:
    """Thumbnails of a project, made when first asked for. Methods are thread-safe."""

    def __init__(self, project: Project, side: int = SIDE) -> None:
        self.project, self.side = project, side
        self._lock = threading.Lock()  # one at a time, so that strokes are not late

    def file(self, stem: str) -> Path:
        """Path of a PNG or JPEG. Raises NotFound, OSError."""
        image = self.project.image_file(stem)
        if max(self.project.size) <= self.side:
            return image
        entry = self.project.images.index.images[self.project.row(stem)]
        path = self.project.work / FOLDER / f"{entry.pixels_sha256}.jpg"
        with self._lock:
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                replace_file(path, small_picture(Image.fromarray(read_rgb(image)), self.side)[0])
        return path


def small_picture(picture: Image.Image, side: int = SIDE) -> tuple[bytes, str]:
    """A picture as a PNG if it is small, else as a JPEG whose longer side has `side` pixels; and
    the media type."""
    stream = io.BytesIO()
    if max(picture.size) <= side:
        picture.save(stream, "png")
        return stream.getvalue(), "image/png"
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BOX)
    small.save(stream, "jpeg", quality=QUALITY, subsampling=0)
    return stream.getvalue(), "image/jpeg"
