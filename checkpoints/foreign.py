"""What the safe readers of other people's files give: plain data and tensors, nothing to run."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PickledNetwork:
    """A network that the official PyTorch code of StyleGAN2 or 3 pickled."""

    class_name: str  # of the outermost object
    kwargs: dict[str, object]  # of its construction, plain data only
    tensors: dict[str, Tensor]  # by dotted name, as stored


@dataclass(frozen=True)
class TensorFlowNetwork:
    """A network that the official TensorFlow code of StyleGAN2 pickled."""

    kwargs: dict[str, object]  # static_kwargs, plain data only
    variables: dict[str, Tensor]  # "G_mapping/Dense0/weight", "dlatent_avg", ...


@dataclass(frozen=True)
class TorchFile:
    """What torch.save wrote."""

    content: object  # nested dicts and lists of plain data and tensors


ForeignFile = PickledNetwork | TensorFlowNetwork | TorchFile
