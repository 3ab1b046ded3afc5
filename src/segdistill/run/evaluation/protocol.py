"""How a network's logits become a map of class ids: size, sliding window, flip, scales."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from segdistill.run.evaluation.upsampling import Axis, Tile, strip

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
    """How an image is shown to a network, and how several views of it are put together.

    Every view (a scale, mirrored or not) has the same say. The tiles of a sliding window are
    averaged as logits where they overlap, each as far as it covers a pixel, as in the released code
    of SKD and its followers (there: tile 512, overlap 1/3). Unlike there, a tile is never larger
    than the image, and logits go to the output's size in one interpolation, not by way of the
    image's.

    Args:
        size: Height and width that images are resized to first (bilinear, antialiased); None: as
            they are.
        window: Height and width of a sliding window; None: the whole image at once.
        overlap: Share of a window that its neighbour covers too, 0 up to but not including 1.
        flip: Also show the mirrored image.
        scales: Factors of the image's size, one view each.
        average: What views are averaged as: "logits" (the peers' rule) or "probabilities".
        precision: "32", "bf16" or "fp16" (autocast; fp16 on GPUs only). The logits are float32
            again before they are resized.
        strip_bytes: Bound on the memory of upsampled logits: the output is made in strips of rows
            that stay below it. Does not change the result.

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
    strip_bytes: int = 32 * 2**20

    def __post_init__(self) -> None:
        for name in ("size", "window"):
            value = getattr(self, name)
            if value is not None and (len(value) != 2 or min(value) < 1):
                raise ValueError(f"{name} should be a height and a width in pixels, not {value!r}")
            if value is not None:  # YAML and JSON know lists alone
                object.__setattr__(self, name, (value[0], value[1]))
        if not 0 <= self.overlap < 1:
            raise ValueError(
                f"overlap {self.overlap} is no share of a window: give at least 0, below 1"
            )
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(
                f"scales should be factors above 0, such as (0.75, 1.0), not {self.scales!r}"
            )
        if self.average not in ("logits", "probabilities"):
            raise ValueError(f"average should be 'logits' or 'probabilities', not {self.average!r}")
        if self.precision not in _AUTOCAST:
            raise ValueError(
                f"precision should be one of {', '.join(_AUTOCAST)}, not {self.precision!r}"
            )

    def describe(self, model: nn.Module) -> dict[str, Any]:
        """The protocol as plain values for a report, with what it takes from the network."""
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
    """The network's rule for upsampling its logits; False where it declares none."""
    return bool(getattr(model, "align_corners", False))


def multiple_of(model: nn.Module) -> int:
    """What height and width must be multiples of; 1 where the network declares nothing."""
    return int(getattr(model, "multiple_of", 1))


def in_channels(model: nn.Module) -> int:
    """Channels of the images that the network reads; 3 where it declares nothing."""
    return int(getattr(model, "in_channels", 3))


def padded(size: Size, multiple: int) -> Size:
    """The smallest height and width, multiples of `multiple`, that hold `size`.

    Example:
        >>> padded((360, 480), 32)
        (384, 480)
    """
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the network in eval mode without gradients, and each of its modules back as it was.

    `no_grad`, not `inference_mode`: a module that keeps a tensor from one call to the next (a table
    of positions, say) would keep an inference tensor, and training could not go on afterwards.
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
    """Autocast for "bf16" or "fp16", nothing for "32".

    Raises:
        ValueError: fp16 is asked for on a CPU.
    """
    dtype = _AUTOCAST[precision]
    if dtype is None:
        return nullcontext()
    if dtype is torch.float16 and device.type == "cpu":
        raise ValueError(f"precision {precision!r} needs a GPU: use 'bf16' or '32' on the CPU")
    return torch.autocast(device.type, dtype)


def label_map(
    model: nn.Module,
    image: Float[Tensor, "1 c h w"],
    output_size: Size,
    protocol: Protocol,
    num_classes: int | None = None,
) -> Int64[Tensor, "height width"]:
    """Class id of every pixel of an image, at any size. Call it within `evaluating(model)`.

    Args:
        model: Network with the model contract (`align_corners`, `multiple_of`); a plain module that
            returns one tensor will do.
        image: One RGB image in 0..1.
        output_size: Height and width of the map; usually those of the labels or of the photograph.
        protocol: How the image is shown.
        num_classes: Channels that the logits should have; None: any number.

    Raises:
        ValueError: The network does not return one tensor `1 k h w`, or its k is another.
    """
    if protocol.size is not None:
        image = _resized(image, protocol.size)
    views = [
        list(_tiles(model, image, scale, mirrored, output_size, protocol))
        for scale in protocol.scales
        for mirrored in ((False, True) if protocol.flip else (False,))
    ]
    classes, (height, width) = views[0][0].logits.shape[0], output_size
    if num_classes is not None and classes != num_classes:
        raise ValueError(
            f"the network's logits have {classes} channels, but there are {num_classes} classes: "
            "build it with that number, or declare the mapping between them"
        )
    # Up to four tensors of a strip's size live at once, while views are added up.
    rows = max(1, protocol.strip_bytes // (4 * classes * width * 4))
    result = torch.empty(output_size, dtype=torch.int64, device=image.device)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        total = _sum_of_views(views, start, stop, width, protocol.average)
        # Not argmax: over the first axis it takes four times as long as max on a CPU.
        result[start:stop] = total.max(0).indices
    return result


def _sum_of_views(
    views: list[list[Tile]], start: int, stop: int, width: int, average: str
) -> Tensor:
    total: Tensor | None = None
    for tiles in views:
        view = strip(tiles, start, stop, width)
        if average == "probabilities":
            view = view.softmax(0)
        total = view if total is None else total + view
    assert total is not None
    return total


def _tiles(
    model: nn.Module,
    image: Tensor,
    scale: float,
    mirrored: bool,
    output_size: Size,
    protocol: Protocol,
) -> Iterator[Tile]:
    if scale != 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
        image = _resized(image, (height, width))
    if mirrored:
        image = image.flip(-1)
    align = align_corners(model)
    window = protocol.window or (image.shape[-2], image.shape[-1])
    rows = Axis(window[0], protocol.overlap, image.shape[-2], output_size[0], align)
    columns = Axis(window[1], protocol.overlap, image.shape[-1], output_size[1], align, mirrored)
    for y, top in enumerate(rows.starts):
        for x, left in enumerate(columns.starts):
            crop = image[..., top : top + window[0], left : left + window[1]]
            logits, padded_size = _logits(model, crop, protocol.precision)
            row_line = rows.line(y, padded_size[0], logits.shape[1])
            yield Tile(logits, row_line, columns.line(x, padded_size[1], logits.shape[2]))


def _logits(model: nn.Module, image: Tensor, precision: str) -> tuple[Tensor, Size]:
    size = (image.shape[-2], image.shape[-1])
    height, width = padded(size, multiple_of(model))
    if (height, width) != size:
        image = F.pad(image, (0, width - size[1], 0, height - size[0]), mode="replicate")
    with autocast(precision, image.device):
        logits = model(image)
    if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[0] != 1:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the network should return logits of shape (1, classes, height, width), not {got}: "
            "wrap it with segdistill.models.wrap"
        )
    # `contiguous`: channels-last logits would make each gather below a strided one.
    return logits[0].float().contiguous(), (height, width)


def _resized(image: Tensor, size: Size) -> Tensor:
    if size == (image.shape[-2], image.shape[-1]):
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
