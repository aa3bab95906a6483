"""Samples of a bundle without a service: the public names of the distribution labelmint-engine.

Enter: a bundle, options of a stream, indices. Leave: arrays, as a server would send them. In the
checkout the packages `bundle` and `engines` are beside this one; the wheel has both inside it, see
`labelmint_engine/hatch_build.py`.
"""

from bundle.errors import BundleError
from engines.errors import EngineError
from engines.open import EngineOptions, GpuOptions
from engines.samples import BundleSamples

__all__ = ["BundleError", "BundleSamples", "EngineError", "EngineOptions", "GpuOptions"]
