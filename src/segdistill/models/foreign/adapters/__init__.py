"""Networks of other libraries, by name or as they are; a library is imported only when asked for."""

from types import ModuleType
from typing import Any

from torch import nn

from segdistill.models.foreign.adapters import hf, smp, torchvision
from segdistill.models.foreign.adapters.interface import Conventions, Made

LIBRARIES = {
    "smp": "segmentation_models_pytorch",
    "torchvision": "torchvision.models.segmentation",
    "hf": "transformers",
}
"""What stands before the colon in a name, and the package that such networks come from."""

ADAPTERS: dict[str, ModuleType] = {"smp": smp, "torchvision": torchvision, "hf": hf}
"""Each has `make` and `conventions`, and imports an optional library only inside them."""


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
    made: Made = ADAPTERS[library].make(name, num_classes, options)
    return made


def conventions(module: nn.Module) -> Conventions | None:
    """The conventions of the library that a network comes from; None for anybody else's."""
    origins = [kind.__module__ for kind in type(module).__mro__]
    for library, package in LIBRARIES.items():
        if any(origin == package or origin.startswith(f"{package}.") for origin in origins):
            found: Conventions = ADAPTERS[library].conventions(module)
            return found
    return None
