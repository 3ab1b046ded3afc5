"""An exported file beside PyTorch, on images of the evaluation split at several sizes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.data.samples import read_sample
from segdistill.extras import require
from segdistill.run.evaluation import Protocol, Size, evaluating, segment, shown
from segdistill.run.shipping.onnx_file import Deployed

AGREEMENT = 0.999
"""Fraction of pixels on which the file must predict the same class as PyTorch."""


def spread_images(dataset: Any, count: int, size: Size | None = None) -> Iterator[Tensor]:
    """Up to `count` images `1 3 h w`, spread evenly over a data set, in the form that a file accepts."""
    count = min(count, len(dataset))
    places = [index * len(dataset) // count for index in range(count)]
    for place in places:
        yield shown(read_sample(dataset, place)[0], Protocol(size))


def parity_with_pytorch(
    deployed: Deployed, run: Callable[[np.ndarray], list[np.ndarray]], val_set: Any
) -> dict[str, Any]:
    """Compare a file with PyTorch on images of the evaluation split, two at a time, at three sizes.

    Args:
        deployed: The network.
        run: The outputs of the file, made by `with_logits`, for images.
        val_set: The evaluation split.
    """
    info = deployed.info
    images = list(spread_images(val_set, 4))
    height, width = images[0].shape[-2:]
    sizes = [(height, width), (height * 3 // 4 | 1, width * 3 // 4 | 1), (height // 2 | 1, width)]
    if info.size is not None and not info.resize:
        sizes = [info.size]
    seen = Protocol(size=info.size)
    rows: list[dict[str, Any]] = []
    for size in sizes:
        batch = torch.cat([F.interpolate(image, size, mode="bilinear") for image in images])
        same, total, gap = 0, 0, 0.0
        for first in range(0, len(batch), 2):
            pair = batch[first : first + 2]
            answer, *more = run(pair.numpy())
            with evaluating(deployed):
                logits = deployed.logits(pair)
                expected = logits.argmax(1)
                if info.resize:  # compared with the code that evaluation uses, not with `Deployed`
                    maps = [segment(deployed.model, {"image": image}, seen) for image in pair]
                    expected = torch.stack(maps)
            output = torch.from_numpy(more[0] if more else answer)
            labels = torch.from_numpy(answer) if info.argmax else output.argmax(1)
            gap = max(gap, float((output - logits).abs().max()))
            same += int((labels == expected).sum())
            total += labels.numel()
        rows.append({"size": size, "label_agreement": same / total, "max_logit_difference": gap})
    worst: float = min(row["label_agreement"] for row in rows)
    return {
        "passed": worst >= AGREEMENT,
        "label_agreement": worst,
        "max_logit_difference": max(row["max_logit_difference"] for row in rows),
        "sizes": rows,
    }


def with_logits(content: bytes) -> bytes:
    """The same ONNX file with the logits before its last argmax, if there is one, as an additional output."""
    onnx = require("onnx", "export")
    model = onnx.load_from_string(content)
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = made_by.get(model.graph.output[0].name)
    # Class ids are cast to uint8 after it.
    while node is not None and node.op_type == "Cast":
        node = made_by.get(node.input[0])
    if node is not None and node.op_type == "ArgMax":
        logits = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)
        model.graph.output.append(logits)
    return bytes(model.SerializeToString())
