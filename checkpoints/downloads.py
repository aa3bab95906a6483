"""Failed downloads: what a file is that should be weights, from its first bytes, and what to do.

An error page, a pointer or an archive keeps the name of the weights that it stands for, so the
content decides, whatever the suffix.
"""

import re
from pathlib import Path

from bundle.files import opened_regular_file
from checkpoints.errors import WeightsError

HEAD_BYTES = 512  # enough to recognize every kind; a tar header has its mark at byte 257
AGAIN = "download it again"
BROWSER = "open the address in a browser, and save the file itself"
UNPACK = "unpack it, and give the file inside"
PAGES = {
    rb"version https://git-lfs\.github\.com/spec/": (
        "a Git LFS pointer, not the file it points to; run `git lfs pull` in its repository, or "
        "download the file itself"
    ),
    rb"[^\n]{0,400}(?<=[/\\])annex[/\\]objects[/\\]": (
        "a git-annex pointer, not the file it points to; run `git annex get` in its repository"
    ),
    rb"\s*<(!doctype\s+html|html|head|body|script|meta)\b": (
        f"an HTML page, most likely of a download that needed a login or a confirmation; {BROWSER}"
    ),
    rb"\s*<(\?xml|error\b|[a-z]+result\b)": (
        f"an XML page, most likely the error message of a storage service; {BROWSER}"
    ),
    rb'\s*(\{\s*("|\}\s*\Z)|\[\s*[\[{"\]])': (
        "JSON text, most likely the error message of a server or another file of the model; "
        "download the weights themselves"
    ),
}
ARCHIVES = {
    rb"\x1f\x8b": f"compressed with gzip; {UNPACK} (gunzip, or tar -xzf)",
    rb"BZh[1-9]": f"compressed with bzip2; {UNPACK} (bunzip2, or tar -xjf)",
    rb"\xfd7zXZ\x00": f"compressed with xz; {UNPACK} (unxz, or tar -xJf)",
    rb"\x28\xb5\x2f\xfd": f"compressed with Zstandard; {UNPACK} (unzstd)",
    rb"7z\xbc\xaf\x27\x1c": f"a 7z archive; {UNPACK}",
    rb"Rar!\x1a\x07": f"a RAR archive; {UNPACK}",
    rb"[^\x80\x93P].{256}ustar": f"a tar archive; {UNPACK} (tar -xf)",
}
TEXT = re.compile(rb"(\xef\xbb\xbf)?([^\x00-\x08\x0e-\x1f\x7f]*)\Z")  # its first group: a BOM
UNFINISHED = {".part", ".partial", ".crdownload", ".download", ".aria2", ".incomplete", ".tmp"}


def failed_download(head: bytes, size: int) -> str | None:
    """What a file of `size` bytes is, continuing "it is", and what to do; None if it may be whole.

    `head` are its first HEAD_BYTES bytes, or all.
    """
    if size == 0:
        return f"empty; {AGAIN}"
    if len(head) >= 64 and not any(head):
        return f"zeros at its beginning, most likely a download that was not finished; {AGAIN}"
    text = TEXT.match(head)
    known = {pattern: (text[2], what) for pattern, what in PAGES.items()} if text else {}
    known |= {pattern: (head, what) for pattern, what in ARCHIVES.items()}
    for pattern, (data, what) in known.items():
        if re.match(pattern, data, re.IGNORECASE | re.DOTALL if text else re.DOTALL):
            return what
    return None


def unfinished_download(path: Path) -> str:
    """End of a message about a file that is not whole; empty unless its name says so."""
    if path.suffix.lower() in UNFINISHED:
        return f"; its name ends in {path.suffix}, a download that is not finished: {AGAIN}"
    return ""


def refuse_failed_download(path: Path) -> None:
    """Raises WeightsError if a failed download has the place of a safetensors file.

    A file that cannot be opened is left to its reader.
    """
    try:
        with opened_regular_file(path) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return
    what = failed_download(head, len(head))
    if head.startswith(b"PK\x03\x04"):
        what = (
            "no intact safetensors file, but a zip archive or a file of torch.save; unpack it, or "
            "rename it to .pt"
        )
    if what:
        raise WeightsError(f"{path}: it is {what}")
