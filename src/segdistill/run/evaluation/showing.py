"""The one way an image reaches a network outside training, and logits become class ids."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Num
from torch import Tensor, nn

from segdistill.data.channels import in_unit_range
from segdistill.models.contract import device_of
from segdistill.run.evaluation.protocol import (
    Protocol,
    Size,
    align_corners,
    autocast,
    multiple_of,
    padded,
)
from segdistill.run.evaluation.upsampling import Axis, Scratch, Tile, strip


def shown(
    image: Num[Tensor, "c h w"], protocol: Protocol, multiple: int = 1
) -> Float[Tensor, "1 c height width"]:
    """Prepare a whole image for a network: floating point in 0..1, resized, padded.

    Resizes in floating point (bilinear, antialiased), like an exported file, and not in integer grey
    levels, as training does.

    Args:
        image: uint8, or floating point in 0..1.
        protocol: Only its `size` is used.
        multiple: Height and width are padded to multiples of this, by repeating the last row and
            column. `segment` pads each tile separately instead.
    """
    images = in_unit_range(image)[None]
    if protocol.size is not None:
        images = _resized(images, protocol.size)
    return _rounded_up(images, multiple)


def segment(
    model: nn.Module,
    sample: Mapping[str, Any],
    protocol: Protocol,
    num_classes: int | None = None,
) -> Int64[Tensor, "height width"]:
    """Predict the class id of every pixel of a sample. Call it inside `evaluating(model)`.

    Args:
        model: Network with the model contract (`align_corners`, `multiple_of`), or any module that
            returns one tensor.
        sample: `image`, `c h w`, uint8 or floating point in 0..1; optionally `label`, `h w`. The map
            has the label's size, or else the image's.
        protocol: How the image is shown to the network.
        num_classes: Number of channels that the logits must have; None: any.

    Returns:
        Class ids, on the network's device.

    Raises:
        ValueError: The network does not return one tensor `1 k h w`, k is not `num_classes`, or the
            largest logit of a pixel is not finite.
    """
    classes, values = [], []
    for total, _, scratch in _strips(model, sample, protocol, num_classes):
        largest, index = largest_logit(total, scratch)
        classes.append(index)
        values.append(largest)
    _check_finite(values)
    return torch.cat(classes)


def segment_surely(
    model: nn.Module,
    sample: Mapping[str, Any],
    protocol: Protocol,
    num_classes: int | None = None,
) -> tuple[Int64[Tensor, "height width"], Float[Tensor, "height width"]]:
    """The class id of every pixel, as `segment` gives it, and its probability.

    The probability is that of the softmax of the views' mean logits, or the mean of their
    probabilities, as the protocol averages; in (0, 1]. Arguments and errors are those of `segment`.
    """
    classes, values, sure = [], [], []
    for total, views, scratch in _strips(model, sample, protocol, num_classes):
        largest, index = largest_logit(total, scratch)
        classes.append(index)
        values.append(largest)
        if protocol.average == "probabilities":
            sure.append(largest / views)
        else:
            sure.append(1 / ((total - largest) / views).exp().sum(0))
    _check_finite(values)
    return torch.cat(classes), torch.cat(sure)


def largest_logit(
    logits: Float[Tensor, "k *pixels"], scratch: Scratch
) -> tuple[Float[Tensor, "*pixels"], Int64[Tensor, "*pixels"]]:
    """The largest logit of every pixel, and its class: the first, where several are equal.

    Args:
        logits: At most 2**24 classes. Where one is NaN, the class has no meaning.
    """
    if logits.device.type != "cpu":
        first = logits.max(0)
        return first.values, first.indices
    # On a CPU, max with its index takes several times as long as these passes, which are vectorised.
    largest, count = logits.amax(0), len(logits)
    there = torch.eq(logits, largest, out=scratch.empty("there", logits.shape, logits))
    descending = torch.arange(count, 0, -1, dtype=torch.float32)
    first_of_them = there.mul_(descending.view(-1, *[1] * largest.ndim)).amax(0)
    return largest, (count - first_of_them).long().clamp_(max=count - 1)


def _check_finite(largest: Sequence[Tensor]) -> None:
    """Refuse an image for whose pixels the largest logit says nothing; asked once, as a GPU waits for it."""
    wrong = sum(values.numel() - values.isfinite().sum() for values in largest)
    if bool(wrong):
        pixels = sum(values.numel() for values in largest)
        raise ValueError(
            f"the network's largest logit is not finite at {int(wrong):,} of {pixels:,} pixels; expected finite "
            "ones. Check its weights and the images; in half precision, try precision: 32"
        )


def _strips(
    model: nn.Module, sample: Mapping[str, Any], protocol: Protocol, num_classes: int | None
) -> Iterator[tuple[Float[Tensor, "k rows width"], int, Scratch]]:
    """The sum over the views of a sample, from top to bottom in strips, the number of views, and memory.

    A sum is valid until the next one.
    """
    picture = sample["image"]
    output_size: Size = tuple(sample.get("label", picture).shape[-2:])
    image = shown(picture.to(device_of(model)), protocol)
    views = [
        list(_tiles(model, image, scale, mirrored, output_size, protocol))
        for scale in protocol.scales
        for mirrored in ((False, True) if protocol.flip else (False,))
    ]
    classes, (height, width) = views[0][0].logits.shape[0], output_size
    if num_classes is not None and classes != num_classes:
        raise ValueError(
            f"the network predicts {classes} classes; expected {num_classes}. Build it with that number, "
            "or declare the mapping between them"
        )
    # Up to four tensors of a strip's size are alive at once while views are summed.
    rows = max(1, protocol.strip_bytes // (4 * classes * width * 4))
    scratch = Scratch()
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        total = _sum_of_views(views, start, stop, width, protocol.average, scratch)
        yield total, len(views), scratch


def _sum_of_views(
    views: list[list[Tile]], start: int, stop: int, width: int, average: str, scratch: Scratch
) -> Tensor:
    total: Tensor | None = None
    for tiles in views:
        view = strip(tiles, start, stop, width, scratch)
        if average == "probabilities":
            view = view.softmax(0)
        if total is not None:
            total += view
        elif len(views) == 1:
            total = view
        else:
            # Kept apart from the memory that the next view is computed in.
            total = scratch.empty("views", view.shape, view).copy_(view)
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
            logits, padded_size = _logits(model, crop, protocol)
            row_line = rows.line(y, padded_size[0], logits.shape[1])
            yield Tile(logits, row_line, columns.line(x, padded_size[1], logits.shape[2]))


def _logits(model: nn.Module, image: Tensor, protocol: Protocol) -> tuple[Tensor, Size]:
    image = _rounded_up(image, multiple_of(model))
    if protocol.channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    with autocast(protocol.precision, image.device):
        logits = model(image)
    if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[0] != 1:
        returned = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the network returned {returned}; expected logits of shape (1, classes, height, width). "
            "Wrap it with segdistill.wrap"
        )
    # -inf stands for a class that cannot be; between two of them, interpolation would give NaN. Where no class
    # can be, NaN it is, and the image is refused.
    plain = logits[0].detach().float()
    plain = torch.where(plain.amax(0) > -torch.inf, plain.clamp(min=-1e30), torch.nan)
    # `contiguous`: with channels-last logits each gather below would be strided.
    return plain.contiguous(), (image.shape[-2], image.shape[-1])


def _resized(image: Tensor, size: Size) -> Tensor:
    if size == (image.shape[-2], image.shape[-1]):
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)


def _rounded_up(images: Tensor, multiple: int) -> Tensor:
    size = (images.shape[-2], images.shape[-1])
    height, width = padded(size, multiple)
    if (height, width) == size:
        return images
    return F.pad(images, (0, width - size[1], 0, height - size[0]), mode="replicate")
