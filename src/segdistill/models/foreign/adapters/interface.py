"""What the adapter of a library gives back, and how it tells a library's error."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from segdistill.models.input import InputNormalisation


@dataclass(frozen=True)
class Conventions:
    """What a library's network would declare if it kept our contract.

    Attributes:
        align_corners, multiple_of: As in the contract.
        taps: Name -> path inside the network, besides those that `wrap` finds.
        ending: Why its output is no logits, and how its library leaves them; "" where they are.
    """

    align_corners: bool = False
    multiple_of: int = 1
    taps: dict[str, str] = field(default_factory=dict)
    ending: str = ""


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


def cause(error: Exception) -> str:
    """The first line of what a library raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
