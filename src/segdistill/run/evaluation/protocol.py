"""How images are shown to a network: size, sliding window, flip, scales."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from segdistill.config import Recipe

Size = tuple[int, int]

_AUTOCAST = {
    "32": None,
    "32-true": None,
    "bf16": torch.bfloat16,
    "bf16-mixed": torch.bfloat16,
    "fp16": torch.float16,
    "16-mixed": torch.float16,
}


@dataclass(frozen=True)
class Protocol:
    """How an image is shown to a network, and how several views of it are combined.

    All views (a scale, mirrored or not) have equal weight. Where the tiles of a sliding window overlap,
    their logits are averaged, as in the released code of SKD and its followers (tile 512, overlap
    1/3). Unlike there, a tile is never larger than the image, and logits are resized to the output
    in one interpolation, not via the image's size.

    Args:
        size: Height and width that images are resized to first (bilinear, antialiased); None: not
            resized.
        window: Height and width of a sliding window; None: the whole image at once.
        overlap: Fraction of a window that overlaps the next, in [0, 1).
        flip: Also show the mirrored image.
        scales: Factors of the image's size, one view each.
        average: What is averaged over views: "logits" (as in the peers' code) or "probabilities".
        precision: "32", "bf16" or "fp16" (autocast; fp16 only on GPUs). Logits are converted to
            float32 before they are resized.
        channels_last: Memory format of the images; changes values only by rounding.
        strip_bytes: Bound on the memory of upsampled logits: the output is computed in strips of
            rows below it. Does not change the result.

    Raises:
        ValueError: A value is out of its range.
    """

    size: Size | None = None
    window: Size | None = None
    overlap: float = 1 / 3
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    average: str = "logits"
    precision: str = "32"
    channels_last: bool = False
    strip_bytes: int = 32 * 2**20

    def __post_init__(self) -> None:
        for name in ("size", "window"):
            value = getattr(self, name)
            if value is not None and (len(value) != 2 or min(value) < 1):
                raise ValueError(f"{name} is {value!r}; expected a height and a width in pixels")
            if value is not None:  # YAML and JSON have only lists
                object.__setattr__(self, name, (value[0], value[1]))
        object.__setattr__(self, "scales", tuple(self.scales))
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap is {self.overlap}; expected a fraction in [0, 1)")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(
                f"scales is {self.scales!r}; expected factors above 0, such as (0.75, 1.0)"
            )
        if self.average not in ("logits", "probabilities"):
            raise ValueError(f"average is {self.average!r}; expected 'logits' or 'probabilities'")
        if self.precision not in _AUTOCAST:
            raise ValueError(
                f"precision is {self.precision!r}; expected one of {', '.join(_AUTOCAST)}"
            )

    @classmethod
    def of(cls, recipe: Recipe, **changes: Any) -> "Protocol":
        """The protocol of a recipe: how it shows images to its networks outside training.

        Args:
            recipe: Recipe of a run.
            **changes: Fields that replace the recipe's; None keeps the recipe's.
        """
        values = asdict(recipe.evaluate)
        del values["absent"]  # concerns counting, not showing
        values["size"] = recipe.data.size
        return cls(**values | {key: value for key, value in changes.items() if value is not None})

    def describe(self, model: nn.Module) -> dict[str, Any]:
        """The protocol as plain values for a report, including what it reads from the network."""
        return {
            "size": list(self.size) if self.size else None,
            "window": list(self.window) if self.window else None,
            "overlap": self.overlap if self.window else None,
            "flip": self.flip,
            "scales": list(self.scales),
            "average": self.average,
            "precision": self.precision,
            "align_corners": align_corners(model),
            "multiple_of": multiple_of(model),
            "padding": "edge pixels repeated, right and below, cut off again",
            "compared_at": "the labels' own size",
        }


def align_corners(model: nn.Module) -> bool:
    """The network's rule for upsampling its logits; False if not declared."""
    return bool(getattr(model, "align_corners", False))


def multiple_of(model: nn.Module) -> int:
    """The number that height and width must be multiples of; 1 if not declared."""
    return int(getattr(model, "multiple_of", 1))


def in_channels(model: nn.Module) -> int:
    """Number of image channels that the network reads; 3 if not declared."""
    return int(getattr(model, "in_channels", 3))


def padded(size: Size, multiple: int) -> Size:
    """The smallest height and width that are multiples of `multiple` and at least `size`.

    Example:
        >>> padded((360, 480), 32)
        (384, 480)
    """
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the network in eval mode without gradients, and restore the mode of each module afterwards.

    `no_grad`, not `inference_mode`: a module that caches a tensor between calls (a table of positions,
    say) would cache an inference tensor, and training could not continue afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast for "bf16" or "fp16"; no-op for "32".

    Raises:
        ValueError: The precision is fp16 and the device a CPU.
    """
    dtype = _AUTOCAST[precision]
    if dtype is None:
        return nullcontext()
    if dtype is torch.float16 and device.type == "cpu":
        raise ValueError(f"precision is {precision!r}; expected 'bf16' or '32' on a CPU")
    return torch.autocast(device.type, dtype)


def check_overlap(overlap: float | None, protocol: Protocol) -> None:
    """Refuse an overlap that is asked for where no window slides.

    Raises:
        ValueError: `overlap` is given, and the protocol has no window.
    """
    if overlap is not None and protocol.window is None:
        raise ValueError(
            f"overlap is {overlap:g} without a window; expected a window, whose steps it sets. Add --window HxW, or "
            "omit it"
        )


def check_size(size: Size) -> None:
    """Refuse a size that is not a height and a width.

    Raises:
        ValueError: `size` is not two positive numbers.
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {size!r}; expected a height and a width in pixels")
