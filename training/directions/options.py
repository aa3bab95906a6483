"""Settings of a fit -> how its samples are drawn."""

from dataclasses import replace
from typing import Protocol

from bundle.open import Bundle
from engines.sampling import LatentOptions, check_options, default_options


class DrawSettings(Protocol):
    """Settings that decide it; None: the bundle's default."""

    @property
    def seed(self) -> int: ...

    @property
    def psi(self) -> float | None: ...

    @property
    def cutoff(self) -> int | None: ...

    @property
    def class_index(self) -> int | None: ...


def options_of_fit(bundle: Bundle, settings: DrawSettings) -> LatentOptions:
    """Options of the samples. Raises SamplingError."""
    defaults = default_options(bundle.manifest.generator, settings.seed)
    options = replace(
        defaults,
        truncation_psi=defaults.truncation_psi if settings.psi is None else settings.psi,
        truncation_cutoff=(
            defaults.truncation_cutoff if settings.cutoff is None else settings.cutoff
        ),
        class_index=settings.class_index,
    )
    check_options(bundle.manifest.generator, options, bundle.views)
    return options
