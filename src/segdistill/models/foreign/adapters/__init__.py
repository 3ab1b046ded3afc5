"""Networks of other libraries, by name or as they are; a library is imported only when asked for."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import nn

from segdistill.models.input import InputNormalisation

LIBRARIES = {
    "smp": "segmentation_models_pytorch",
    "torchvision": "torchvision.models.segmentation",
    "hf": "transformers",
}
"""What stands before the colon in a name, and the package that such networks come from."""


@dataclass(frozen=True)
class Conventions:
    """What a library's network would declare if it kept our contract.

    Attributes:
        align_corners, multiple_of: As in the contract.
        taps: Name -> path inside the network, besides those that `wrap` finds.
    """

    align_corners: bool = False
    multiple_of: int = 1
    taps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A network that a library has built.

    Attributes:
        module: The library's own class.
        input: The normalisation that its weights expect.
        name: What stands after the colon to build an equal one without the library's weights.
        options: The options for that.
        report: `LoadReport` of the library's weights, where it says what became of them.
    """

    module: nn.Module
    input: InputNormalisation
    name: str
    options: dict[str, Any]
    report: Any = None


def make(library: str, name: str, num_classes: int, options: dict[str, Any]) -> Made:
    """Builds a network by what its library calls it.

    Args:
        library: A key of `LIBRARIES`.
        name: As the library names it.
        num_classes: Channels of the logits.
        options: The library's own arguments. Its weights are fetched only if one of them says so.

    Raises:
        ValueError: The library is missing, does not know the name, or cannot build it so.
    """
    made: Made = _adapter(library).make(name, num_classes, options)
    return made


def conventions(module: nn.Module) -> Conventions | None:
    """The conventions of the library that a network comes from; None for anybody else's."""
    origins = [kind.__module__ for kind in type(module).__mro__]
    for library, package in LIBRARIES.items():
        if any(origin == package or origin.startswith(f"{package}.") for origin in origins):
            found: Conventions = _adapter(library).conventions(module)
            return found
    return None


def _adapter(library: str) -> Any:
    return import_module(f"{__name__}.{library}")


def cause(error: Exception) -> str:
    """The first line of what a library raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
