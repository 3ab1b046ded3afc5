"""An exported file in OpenVINO: written from the ONNX file, run on the CPU, compared and timed."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segdistill.extras import require
from segdistill.run.evaluation import Protocol, Size, measure
from segdistill.run.shipping.onnx_file import (
    METADATA,
    Deployed,
    FileNetwork,
    info_from,
    onnx_bytes,
    root_cause,
    wrong_shape,
)
from segdistill.run.shipping.openvino.process import OpenVinoProcess
from segdistill.run.shipping.parity import parity_with_pytorch, with_logits

FILES = ("model.xml", "model.bin")
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVinoNetwork(FileNetwork):
    """An OpenVINO file as a network, on the CPU, in a process of its own.

    Args:
        file: Path of the .xml file.
        float32: Compute in float32. False: in the precision that OpenVINO chooses for the processor.

    Raises:
        ValueError: OpenVINO is missing or cannot read the file, or the file was not written by `export`;
            in `forward`: the file does not accept images of that shape.
    """

    def __init__(self, file: str | Path, float32: bool = False) -> None:
        process = OpenVinoProcess()
        opened = _opened(process, file, _FLOAT32 if float32 else {})
        super().__init__(info_from(opened["text"], str(file)))
        self.process = process
        self.precision, self.accepted = opened["precision"], opened["accepted"]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of the file for images `b c h w`.

        Raises:
            ValueError: The file does not accept images of that shape.
        """
        try:
            return self.process.run(images)
        except RuntimeError as error:
            raise wrong_shape(images, self.accepted, error) from None


class OpenVinoAlone(nn.Module):
    """Only the file, compiled for one size and as many threads as PyTorch uses, to be timed.

    The image is sent to OpenVINO's process once; later passes on it cost a message there and back, and no copy.

    Args:
        file: Path of a file, or the content of an ONNX file.
        size: Height and width of the image.
        channels: Channels of the image.

    Raises:
        ValueError: OpenVINO is missing or cannot read the file.
    """

    counted = False

    def __init__(self, file: str | Path | bytes, size: Size, channels: int) -> None:
        super().__init__()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self.process, self.in_channels = OpenVinoProcess(), channels
        _opened(self.process, file, settings, [1, channels, *size])
        self.sent: Tensor | None = None

    def forward(self, images: Tensor) -> None:
        if images is self.sent:
            self.process.again()
        else:
            self.process.run(images.numpy())
            self.sent = images


def content_for_openvino(content: bytes, deployed: Deployed, opset: int) -> bytes:
    """The ONNX file to write for OpenVINO, whose antialiased resize is not PyTorch's: up to 0.3 of 0..1 apart.

    Args:
        content: The file that was exported.
        deployed: What it computes.
        opset: Its opset.
    """
    if deployed.info.size is None or not deployed.info.resize:
        return content
    return onnx_bytes(Deployed(deployed.model, deployed.info, by_matrices=True), opset)


def write_openvino(content: bytes, target: Path) -> None:
    """Write an ONNX file as `model.xml` and `model.bin`, with the same weights in float32 and the same description.

    Args:
        content: The ONNX file.
        target: Folder to write to.

    Raises:
        ValueError: OpenVINO is missing or cannot read the file.
    """
    onnx = require("onnx", "export")
    texts = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    try:
        OpenVinoProcess().write(content, target / FILES[0], texts[METADATA])
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot write the file: {root_cause(error)}") from None


def parity_in_openvino(
    target: Path, content: bytes, deployed: Deployed, val_set: Any
) -> dict[str, Any]:
    """Compare the written file with PyTorch, in float32 and in the precision that the processor has by default.

    Classes are those of the written file; logits, which it may not give, those of what it was written from.

    Args:
        target: Folder that holds the file.
        content: The ONNX file that it was written from.
        deployed: The network.
        val_set: The evaluation split.

    Returns:
        `float32` and `default`, each as in parity.json; `default` also has its `precision` and, where that
        is not float32, its `miou` on the split.
    """
    logits = with_logits(content)

    def compared(network: OpenVinoNetwork, settings: dict[str, Any]) -> dict[str, Any]:
        inner = OpenVinoProcess()
        _opened(inner, logits, settings)

        def outputs(images: np.ndarray) -> list[np.ndarray]:
            return [network.run(images)[0], *inner.run(images)[1:]]

        return parity_with_pytorch(deployed, outputs, val_set)

    exact, network = (OpenVinoNetwork(target / FILES[0], float32) for float32 in (True, False))
    default = {**compared(network, {}), "precision": network.precision}
    if network.precision != "f32":
        default["miou"] = measure(network, val_set, Protocol(network.size)).miou
    return {"float32": compared(exact, _FLOAT32), "default": default}


def _opened(
    process: OpenVinoProcess,
    file: str | Path | bytes,
    settings: dict[str, Any],
    shape: list[int] | None = None,
) -> dict[str, Any]:
    try:
        return process.open(file, settings, shape)
    except RuntimeError as error:
        name = "the file" if isinstance(file, bytes) else str(file)
        raise ValueError(f"OpenVINO cannot read {name}: {root_cause(error)}") from None
