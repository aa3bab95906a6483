"""What the modules of a network pickled by NVIDIA's code were stored with, beside their tensors.

These attributes are what the network computes with when it is unpickled, so they win over the
arguments of its constructor.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from checkpoints.errors import WeightsError
from checkpoints.foreign import PickledNetwork
from checkpoints.foreign_tensors import extent_of

MAPPING_RATE = 0.01  # learning rate multiplier of the mapping network, a factor of its weights
GAIN_TOLERANCE = 1e-5  # relative; gains are stored in single or double precision


@dataclass(frozen=True)
class StoredState:
    """What a pickled network states about itself beside its tensors."""

    network: PickledNetwork
    source: str  # of messages

    def value(self, module: str, name: str, arguments: tuple[str, ...] = ()) -> object:
        """An attribute of a module, else the constructor argument of one of these names.

        Raises WeightsError if neither is stated.
        """
        fields = self.network.fields.get(module, {})
        if name in fields:
            return fields[name]
        for stated in _parts(self.network.kwargs, module.split(".")[0]):
            for argument in arguments:
                if argument in stated:
                    return stated[argument]
        raise WeightsError(
            f"{self.source} does not state {name} of {module}: no attribute of the stored module, "
            "nor an argument of its constructor, tells it; build the generator with the public "
            "code of NVIDIA, load the weights, and pickle that"
        )

    def check(
        self, module: str, name: str, expected: object, arguments: tuple[str, ...] = ()
    ) -> None:
        """Raises WeightsError unless the value is the one that nets implement."""
        found = self.value(module, name, arguments)
        if isinstance(expected, float) and _is_number(found):
            assert isinstance(found, int | float)
            same = math.isclose(found, expected, rel_tol=GAIN_TOLERANCE)
        else:
            same = found == expected
        if not same:
            raise WeightsError(
                f"{self.source}: {module} has {name} {found!r}; only {expected!r} is supported"
            )

    def clamp(self, module: str) -> float | None:
        """conv_clamp of a module. Raises WeightsError unless it is None or a number over 0."""
        return clamp_from_value(
            self.value(module, "conv_clamp", ("conv_clamp",)), f"{self.source}: {module}"
        )

    def number(self, module: str, name: str) -> float:
        """A finite number that the module must state. Raises WeightsError."""
        found = self.value(module, name)
        if not _is_number(found) or not math.isfinite(found):
            raise WeightsError(f"{self.source}: {module} has {name} {found!r}; it must be a number")
        return float(found)

    def integer(self, module: str, name: str) -> int:
        """A whole number that the module must state, such as 16 or 16.0. Raises WeightsError."""
        found = self.number(module, name)
        if found != int(found):
            raise WeightsError(
                f"{self.source}: {module} has {name} {found!r}; it must be a whole number"
            )
        return int(found)

    def flag(self, module: str, name: str) -> bool:
        """A value that must be True or False, which the arguments may state by the same name."""
        found = self.value(module, name, (name,))
        if not isinstance(found, bool):
            raise WeightsError(
                f"{self.source}: {module} has {name} {found!r}; it must be True or False"
            )
        return found


def clamp_from_value(clamp: object, source: str) -> float | None:
    """A stated conv_clamp. Raises WeightsError, beginning with `source`."""
    if clamp is None:
        return None
    if not _is_number(clamp) or not clamp > 0:
        raise WeightsError(f"{source} has conv_clamp {clamp!r}; it must be a number over 0")
    return float(clamp)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parts(kwargs: Mapping[str, object], part: str) -> list[Mapping[str, object]]:
    """Arguments that reach one part of the generator, "mapping" or "synthesis", inner ones first.

    Either code nests them: mapping_kwargs, synthesis_kwargs and, within these, block_kwargs and
    layer_kwargs. StyleGAN3's code gives those of the synthesis network to the generator.
    """
    nested = kwargs.get(f"{part}_kwargs")
    own = nested if isinstance(nested, Mapping) else {}
    inner = [own.get("layer_kwargs"), own.get("block_kwargs")]
    return [*(given for given in inner if isinstance(given, Mapping)), own, kwargs]


def only_clamp(clamps: Mapping[str, float | None], source: str) -> float | None:
    """The clamp that all layers share."""
    (first, clamp), *others = clamps.items()
    different = next((name for name, other in others if other != clamp), None)
    if different is not None:
        raise WeightsError(
            f"{source} has conv_clamp {clamps[different]} in {different} and {clamp} in {first}; "
            "only one clamp for all layers is supported"
        )
    return clamp


def check_mapping(state: StoredState, layers: int, c_dim: int) -> None:
    """Raises WeightsError unless the mapping network computes as nets.mapping does."""
    for i in range(layers):
        name = f"mapping.fc{i}"
        into = extent_of(state.network.tensors, f"{name}.weight", 1, state.source)
        state.check(name, "activation", "lrelu", ("activation",))
        state.check(name, "weight_gain", MAPPING_RATE / math.sqrt(max(into, 1)))
        state.check(name, "bias_gain", MAPPING_RATE, ("lr_multiplier",))
    if c_dim:
        check_linear(state, "mapping.embed", c_dim)


def check_linear(state: StoredState, name: str, into: int) -> None:
    """Raises WeightsError unless a linear layer has no activation and the usual gains."""
    state.check(name, "activation", "linear")
    state.check(name, "weight_gain", 1 / math.sqrt(max(into, 1)))
    state.check(name, "bias_gain", 1.0)
