"""--view of the command line -> how views are made."""

from bundle.views import ViewBank
from engines.sampling import ViewMode, default_view_mode
from export.errors import ExportError

_MODES: dict[str, ViewMode] = {"drawn": "drawn", "bank": "bank", "random": "random"}


def views_from_text(
    text: str | None, views_per_object: int, bank: ViewBank | None
) -> tuple[ViewMode, int | None]:
    """The mode, and the view of the mode fixed. Raises ExportError."""
    if text is None:
        return default_view_mode(views_per_object, bank), None
    if text in _MODES:
        return _MODES[text], None
    if text.isdecimal():
        return "fixed", int(text)
    raise ExportError(f"--view is {text!r}; it is a number from 0, {', '.join(_MODES)}")
