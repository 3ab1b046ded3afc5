"""A network as an ONNX file: what the file computes, how it is written, and how it is run."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from segdistill.extras import require
from segdistill.run.evaluation import Size, align_corners, in_channels, multiple_of, source

# Opsets below 18 have no antialiased resize.
OPSETS = range(18, 24)
METADATA = "segdistill"


@dataclass(frozen=True)
class FileInfo:
    """A file's description, stored in its ONNX metadata; enough to use the file by itself.

    Attributes:
        classes: Names of the classes.
        palette: A colour (red, green, blue in 0..255) for each class.
        size: Height and width at which the network sees an image; None: its own.
        resize: Whether the file accepts images of any size and returns maps of that size. If not, the
            caller resizes images to `size`, and resizes the output, which covers the image padded
            to multiples of `multiple_of`, to the image's size with `align_corners`.
        argmax: Whether the output is class ids, uint8 `b h w`, rather than logits `b k h w`.
        align_corners, multiple_of: As in the model contract.
        channels: Number of image channels; 3 is RGB.
    """

    classes: list[str]
    palette: list[list[int]]
    size: Size | None
    resize: bool
    argmax: bool
    align_corners: bool
    multiple_of: int
    channels: int = 3


class Deployed(nn.Module):
    """What the file computes: logits or class ids from images in 0..1, including the normalisation.

    With `resize` the image is resized to `size` (bilinear, antialiased), padded to multiples of
    `multiple_of` by repeating the last row and column, and the logits are resized to the image's
    size in one step, as `segment` does. Without it the image is only padded, and the output stays
    at the head's stride and covers the padded image.

    Args:
        model: The network.
        info: Description of the file.
        by_matrices: Resize images by matrix products, for runtimes whose antialiased resize is another
            than PyTorch's. The result is the same.
    """

    def __init__(self, model: nn.Module, info: FileInfo, by_matrices: bool = False) -> None:
        super().__init__()
        self.model, self.info, self.by_matrices = model, info, by_matrices

    def forward(self, images: Float[Tensor, "b c h w"]) -> Shaped[Tensor, "b ..."]:
        logits = self.logits(images)
        return logits.argmax(1).to(torch.uint8) if self.info.argmax else logits

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        """The logits from which the output is computed."""
        info, size = self.info, images.shape[-2:]
        if info.resize and info.size is not None:
            resize = antialiased if self.by_matrices else partial(_bilinear, antialias=True)
            images = resize(images, info.size)
        shown = images.shape[-2:]
        images = _rounded_up(images, info.multiple_of)
        seen = images.shape[-2:]
        logits: Tensor = self.model(images)
        if not info.resize:
            return logits
        if info.size is None:
            logits = _bilinear(logits, seen, info.align_corners)
            return logits[..., : shown[0], : shown[1]] if info.multiple_of > 1 else logits
        # Logits of the image's size are resized in the same way as the image, see `Axis`.
        align = info.align_corners and logits.shape[-2:] != seen
        if shown == seen:
            return _bilinear(logits, size, align)
        for axis in (-2, -1):
            logits = _in_one_step(logits, axis, size[axis], shown[axis], seen[axis], align)
        return logits


def file_info(
    model: nn.Module,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    size: Size | None,
    resize: bool,
    argmax: bool,
) -> FileInfo:
    """Describe a file of this network."""
    colours = [[int(value) for value in colour] for colour in palette]
    return FileInfo(
        list(classes),
        colours,
        size,
        resize,
        argmax,
        align_corners(model),
        multiple_of(model),
        in_channels(model),
    )


def onnx_bytes(deployed: Deployed, opset: int) -> bytes:
    """The file as bytes, by `torch.onnx.export(dynamo=True)`.

    The batch size is dynamic. So are height and width, unless the network sees a fixed size and the
    file does not resize. The file contains only what the output needs: no auxiliary head.

    With dynamic sizes the exporter computes every size symbolically. That takes minutes if a network's
    padding depends on the image size (TensorFlow's SAME: timm's `tf_` networks); a fixed size avoids it.

    Raises:
        ValueError: The network cannot be exported; the message gives the cause in one line.
    """
    info = deployed.info
    fixed = info.size is not None
    name = type(getattr(deployed.model, "module", deployed.model)).__name__
    free = {0: "batch"} if fixed and not info.resize else {0: "batch", 2: "height", 3: "width"}
    # Two images with unequal sides: the exporter freezes dimensions of 1 and dimensions of equal length.
    shape = info.size if fixed and not info.resize and info.size else (160, 224)
    example = torch.rand(2, info.channels, *shape)
    try:
        program = torch.onnx.export(
            deployed.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(free,),
            input_names=["images"],
            output_names=["labels" if info.argmax else "logits"],
            opset_version=opset,
            verbose=False,
        )
    except Exception as error:  # the type of error depends on where the exporter fails
        sides = "" if fixed else " with dynamic height and width"
        remedy = "Change or wrap its forward" if fixed else "Fix the size with --size HxW"
        raise ValueError(
            f"{name} cannot be exported{sides} ({root_cause(error)}). {remedy}"
        ) from error
    assert program is not None
    proto = program.model_proto
    graph = proto.graph
    for entry in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        # Stack traces of the exporter, which contain local paths.
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    metadata = proto.metadata_props.add()
    metadata.key, metadata.value = METADATA, json.dumps(asdict(info))
    return bytes(proto.SerializeToString())


class FileNetwork(nn.Module):
    """An exported file as a network, for `evaluate` and `predict`; its runtime runs on the CPU.

    Class ids are returned as one-hot logits.

    Args:
        info: What the file says of itself.
    """

    def __init__(self, info: FileInfo) -> None:
        super().__init__()
        self.info = info
        self.num_classes = len(info.classes)
        self.in_channels = info.channels
        # Steps that the file performs itself must not be repeated outside.
        self.size = None if info.resize else info.size
        self.multiple_of = 1 if info.resize else info.multiple_of
        self.align_corners = not info.resize and info.align_corners

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of the file for images `b c h w`.

        Raises:
            ValueError: The file does not accept images of that shape.
        """
        raise NotImplementedError

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        if self.size is not None:
            # The caller padded the image; the file pads it itself.
            images = images[..., : self.size[0], : self.size[1]]
        answer = torch.from_numpy(self.run(images.cpu().numpy())[0])
        if self.info.argmax:
            labels = answer.long()[:, None]
            shape = (labels.shape[0], self.num_classes, *labels.shape[-2:])
            answer = torch.zeros(shape).scatter_(1, labels, 1.0)
        return answer.to(images.device)


class OnnxNetwork(FileNetwork):
    """An .onnx file in onnxruntime, as a network.

    Args:
        file: Path of the file, or its content.
        threads: Threads of onnxruntime; 0: its default.

    Raises:
        ValueError: onnxruntime is missing or cannot read the file, or the file was not written by `export`;
            in `forward`: the file does not accept images of that shape.
    """

    def __init__(self, file: str | Path | bytes, threads: int = 0) -> None:
        runtime = require("onnxruntime", "export")
        name = "the file" if isinstance(file, bytes) else str(file)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Between runs its threads would spin in wait, and take the cores of networks that are timed in turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        content = file if isinstance(file, bytes) else str(file)
        try:
            session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise ValueError(f"onnxruntime cannot read {name}: {root_cause(error)}") from None
        super().__init__(info_from(session.get_modelmeta().custom_metadata_map.get(METADATA), name))
        self.session = session

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of the file for images `b c h w`.

        Raises:
            ValueError: The file does not accept images of that shape.
        """
        try:
            answers: list[np.ndarray] = self.session.run(None, {"images": images})
        except Exception as error:  # onnxruntime's exceptions have no common base class
            expected = self.session.get_inputs()[0].shape
            raise wrong_shape(images, expected, error) from None
        return answers


def wrong_shape(images: np.ndarray, expected: Any, error: Exception) -> ValueError:
    """The error for images that a file does not accept."""
    return ValueError(
        f"the shape of the images is {list(images.shape)}; expected {expected}, the shape that the file "
        f"accepts ({root_cause(error)})"
    )


def info_from(text: str | None, name: str) -> FileInfo:
    """What a file says of itself, from the text in its metadata.

    Raises:
        ValueError: There is none, or it is damaged.
    """
    if text is None:
        raise ValueError(
            f"{name} has no segdistill metadata; expected a file written by `segdistill export`"
        )
    try:
        values = json.loads(text)
        values["size"] = tuple(values["size"]) if values["size"] else None
        return FileInfo(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"the segdistill metadata of {name} is damaged ({error}); expected what this version of "
            "`segdistill export` writes. Export the run again"
        ) from None


def _bilinear(
    x: Tensor, size: Sequence[int], align: bool = False, antialias: bool = False
) -> Tensor:
    return F.interpolate(x, list(size), mode="bilinear", align_corners=align, antialias=antialias)


def antialiased(x: Tensor, size: Sequence[int]) -> Tensor:
    """Equal to `interpolate(x, size, mode="bilinear", antialias=True)`, of operations that all runtimes agree on."""
    across = F.linear(x, _averages(x.shape[-1], size[1], x.device))
    return F.linear(across.mT, _averages(x.shape[-2], size[0], x.device)).mT


def _averages(old: int, new: int, device: torch.device) -> Float[Tensor, "new old"]:
    """Weights of a triangle around each new pixel, as wide as the pixels are far apart, but at least one old pixel."""
    step = old / new
    centre = (torch.arange(new, device=device) + 0.5) * step
    place = torch.arange(old, device=device) + 0.5
    width = torch.full((), 1.0, device=device).clamp(min=step)
    weights = (1 - (place - centre[:, None]).abs() / width).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def _rounded_up(x: Tensor, multiple: int) -> Tensor:
    """Pad height and width to a multiple by repeating the last row and column.

    By indexing: exporters freeze the padding of `F.pad` when they trace it.
    """
    if multiple > 1:
        for axis in (-2, -1):
            length = x.shape[axis]
            place = torch.arange((length + multiple - 1) // multiple * multiple, device=x.device)
            x = x.index_select(axis, place.clamp(max=length - 1))
    return x


def _in_one_step(
    logits: Tensor, axis: int, length: int, shown: int, seen: int, align: bool
) -> Tensor:
    """Resize an axis of the logits to `length`; the logits cover `seen` pixels, of which `shown` are image."""
    cells = logits.shape[axis]
    position = torch.arange(length, dtype=torch.float64, device=logits.device)
    cell = source(source(position, length, shown, align), seen, cells, align).clamp(0, cells - 1)
    low = cell.floor().long()
    fraction = (cell - low).float()
    first = logits.index_select(axis, low)
    second = logits.index_select(axis, (low + 1).clamp(max=cells - 1))
    return first + (second - first) * (fraction if axis == -1 else fraction[:, None])


def root_cause(error: BaseException) -> str:
    """The first line of what an error was caused by in the end."""
    while (cause := error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
