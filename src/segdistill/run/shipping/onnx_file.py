"""A network as an ONNX file: what the file computes, how it is written, and how it runs again."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from segdistill.extras import require
from segdistill.run.evaluation import Size, align_corners, in_channels, multiple_of, source

# Below 18 there is no antialiased resize.
OPSETS = range(18, 24)
_METADATA = "segdistill"


@dataclass(frozen=True)
class FileInfo:
    """What a file says of itself, in its ONNX metadata; enough to use it without anything else.

    Attributes:
        classes: Names of the classes.
        palette: A colour (red, green, blue in 0..255) for each class.
        size: Height and width at which the network sees an image; None: its own.
        resize: Whether the file takes images of any size and answers at that size. If not, images
            are to be brought to `size`, and answers, which cover the image rounded up to multiples
            of `multiple_of`, to the image's size by `align_corners`.
        argmax: Whether the answer is class ids, uint8 `b h w`, and not logits `b k h w`.
        align_corners, multiple_of: As in the model contract.
        channels: Of the images; 3 is RGB.
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
    """What the file computes: images in 0..1 to logits or class ids, the network's normalisation inside.

    With `resize` the image is brought to `size` (bilinear, antialiased), its height and width are
    rounded up to multiples of `multiple_of` by repeating the last row and column, and the logits go
    back to the image's size in one step: as `label_map` does. Without it the image is only rounded up, and the
    answer stays at the head's stride and covers the rounded image.
    """

    def __init__(self, model: nn.Module, info: FileInfo) -> None:
        super().__init__()
        self.model, self.info = model, info

    def forward(self, images: Float[Tensor, "b c h w"]) -> Shaped[Tensor, "b ..."]:
        logits = self.logits(images)
        return logits.argmax(1).to(torch.uint8) if self.info.argmax else logits

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        """The logits that the answer is made of."""
        info, size = self.info, images.shape[-2:]
        if info.resize and info.size is not None:
            images = _bilinear(images, info.size, antialias=True)
        shown = images.shape[-2:]
        images = _rounded_up(images, info.multiple_of)
        seen = images.shape[-2:]
        logits: Tensor = self.model(images)
        if not info.resize:
            return logits
        if info.size is None:
            logits = _bilinear(logits, seen, info.align_corners)
            return logits[..., : shown[0], : shown[1]] if info.multiple_of > 1 else logits
        # Logits that have the image's size go back as the image came, see `Axis`.
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
    """The description of a file of this network."""
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

    The batch is free, and so are height and width, except where the network sees a fixed size and
    the file does not resize. Only what the answer needs is inside: no auxiliary head.

    With free sizes the exporter works every size out in symbols, for minutes where a network pads
    by the image's size (TensorFlow's SAME: timm's `tf_` networks); a fixed size spares that.

    Raises:
        ValueError: The network cannot be exported; the cause in one line.
    """
    info = deployed.info
    fixed = info.size is not None
    name = type(getattr(deployed.model, "module", deployed.model)).__name__
    free = {0: "batch"} if fixed and not info.resize else {0: "batch", 2: "height", 3: "width"}
    # Two images, and unlike sides: a dimension of 1, or two of the same length, would be frozen.
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
    except Exception as error:  # what the exporter raises depends on where it fails
        sides = "" if fixed else " with free height and width"
        remedy = "change its forward, or wrap it" if fixed else "let it see one size, --size [H,W]"
        raise ValueError(
            f"{name} cannot be exported{sides} ({_root_cause(error)}): {remedy}"
        ) from error
    assert program is not None
    proto = program.model_proto
    graph = proto.graph
    for entry in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        # Stack traces of the exporter, with the paths of this machine.
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    own = proto.metadata_props.add()
    own.key, own.value = _METADATA, json.dumps(asdict(info))
    return bytes(proto.SerializeToString())


class OnnxNetwork(nn.Module):
    """An exported file as a network, so that `evaluate`, `predict` and `measure_latency` take it.

    Runs in onnxruntime on the CPU, whatever device the images are on. A file that answers with class
    ids gives them as logits of 0 and 1.

    Args:
        file: Path of the file, or its content.
        threads: Of onnxruntime; 0 lets it choose.

    Raises:
        ValueError: onnxruntime is missing or cannot read the file, `export` did not write it, or, in
            `forward`, it does not take images of that shape.
    """

    def __init__(self, file: str | Path | bytes, threads: int = 0) -> None:
        super().__init__()
        runtime = require("onnxruntime", "export")
        name = "the file" if isinstance(file, bytes) else str(file)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        content = file if isinstance(file, bytes) else str(file)
        try:
            self.session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base of their own
            raise ValueError(f"onnxruntime cannot read {name}: {_root_cause(error)}") from None
        self.info = _read_info(self.session, name)
        self.num_classes = len(self.info.classes)
        self.in_channels = self.info.channels
        # What the file does for itself is not to be done again outside.
        self.size = None if self.info.resize else self.info.size
        self.multiple_of = 1 if self.info.resize else self.info.multiple_of
        self.align_corners = not self.info.resize and self.info.align_corners

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        if self.size is not None:
            # What was rounded up outside is rounded up by the file, too.
            images = images[..., : self.size[0], : self.size[1]]
        array = images.cpu().numpy()
        try:
            answer = torch.from_numpy(self.session.run(None, {"images": array})[0])
        except Exception as error:  # its exceptions share no base of their own
            takes = self.session.get_inputs()[0].shape
            raise ValueError(
                f"onnxruntime cannot run the file on images of shape {list(array.shape)}; it takes "
                f"{takes}: show it images of that shape ({_root_cause(error)})"
            ) from None
        if self.info.argmax:
            labels = answer.long()[:, None]
            shape = (labels.shape[0], self.num_classes, *labels.shape[-2:])
            answer = torch.zeros(shape).scatter_(1, labels, 1.0)
        return answer.to(images.device)


def _read_info(session: Any, name: str) -> FileInfo:
    text = session.get_modelmeta().custom_metadata_map.get(_METADATA)
    if text is None:
        raise ValueError(
            f"{name} does not name its classes; expected a file that `segdistill export` wrote"
        )
    values = json.loads(text)
    values["size"] = tuple(values["size"]) if values["size"] else None
    return FileInfo(**values)


def _bilinear(
    x: Tensor, size: Sequence[int], align: bool = False, antialias: bool = False
) -> Tensor:
    return F.interpolate(x, list(size), mode="bilinear", align_corners=align, antialias=antialias)


def _rounded_up(x: Tensor, multiple: int) -> Tensor:
    """Height and width rounded up, the last row and column repeated.

    By index: exporters fix the amount of `F.pad` where they trace it.
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
    """An axis of the logits brought to `length`; they cover `seen` pixels, the image `shown` of them."""
    cells = logits.shape[axis]
    position = torch.arange(length, dtype=torch.float64, device=logits.device)
    cell = source(source(position, length, shown, align), seen, cells, align).clamp(0, cells - 1)
    low = cell.floor().long()
    fraction = (cell - low).float()
    first = logits.index_select(axis, low)
    second = logits.index_select(axis, (low + 1).clamp(max=cells - 1))
    return first + (second - first) * (fraction if axis == -1 else fraction[:, None])


def _root_cause(error: BaseException) -> str:
    while (cause := error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
