"""What a bundle is refused with."""

from pathlib import Path

import pytest

from bundle import BundleError, open_bundle


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message
