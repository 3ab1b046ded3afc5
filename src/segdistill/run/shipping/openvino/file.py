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
from segdistill.run.shipping.parity import parity_with_pytorch, with_logits

FILES = ("model.xml", "model.bin")


class OpenVinoNetwork(FileNetwork):
    """An OpenVINO file as a network, on the CPU.

    Args:
        file: Path of the .xml file.
        float32: Compute in float32. False: in the precision that OpenVINO chooses for the processor.

    Raises:
        ValueError: OpenVINO is missing or cannot read the file, or the file was not written by `export`;
            in `forward`: the file does not accept images of that shape.
    """

    def __init__(self, file: str | Path, float32: bool = False) -> None:
        model = _read(str(file))
        text = model.get_rt_info(METADATA).astype(str) if model.has_rt_info(METADATA) else None
        super().__init__(info_from(text, str(file)))
        self.compiled = _compiled(model, float32)
        self.precision = _precision(self.compiled)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of the file for images `b c h w`.

        Raises:
            ValueError: The file does not accept images of that shape.
        """
        return _answers(self.compiled, images)


class OpenVinoAlone(nn.Module):
    """Only the file, compiled for one size and as many threads as PyTorch uses, to be timed.

    Args:
        file: Path of a file, or the content of an ONNX file.
        size: Height and width of the image.
        channels: Channels of the image.
    """

    counted = False

    def __init__(self, file: str | Path | bytes, size: Size, channels: int) -> None:
        super().__init__()
        model = _read(file if isinstance(file, bytes) else str(file))
        model.reshape([1, channels, *size])
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self.compiled, self.in_channels = _core().compile_model(model, "CPU", settings), channels

    def forward(self, images: Tensor) -> Any:
        return self.compiled([images.numpy()])


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
        ValueError: OpenVINO cannot read the file.
    """
    model = _read(content)
    onnx = require("onnx", "export")
    texts = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    model.set_rt_info(texts[METADATA], METADATA)
    require("openvino", "openvino").save_model(model, target / FILES[0], compress_to_fp16=False)


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
    logits = _read(with_logits(content))

    def compared(network: OpenVinoNetwork, float32: bool) -> dict[str, Any]:
        inner = _compiled(logits, float32)

        def outputs(images: np.ndarray) -> list[np.ndarray]:
            return [network.run(images)[0], *_answers(inner, images)[1:]]

        return parity_with_pytorch(deployed, outputs, val_set)

    exact, network = (OpenVinoNetwork(target / FILES[0], float32) for float32 in (True, False))
    default = {**compared(network, False), "precision": network.precision}
    if network.precision != "f32":
        default["miou"] = measure(network, val_set, Protocol(network.size)).miou
    return {"float32": compared(exact, True), "default": default}


def _core() -> Any:
    return require("openvino", "openvino").Core()


def _read(file: str | bytes) -> Any:
    try:
        return _core().read_model(file)
    except ValueError:
        raise
    except Exception as error:  # OpenVINO's errors are RuntimeErrors with a trace in them
        name = "the file" if isinstance(file, bytes) else file
        raise ValueError(f"OpenVINO cannot read {name}: {root_cause(error)}") from None


def _compiled(model: Any, float32: bool) -> Any:
    settings = {"INFERENCE_PRECISION_HINT": "f32"} if float32 else {}
    return _core().compile_model(model, "CPU", settings)


def _precision(compiled: Any) -> str:
    """Precision that a compiled file computes in, such as f32 or bf16."""
    found = compiled.get_property("INFERENCE_PRECISION_HINT")
    return str(getattr(found, "get_type_name", lambda: found)())


def _answers(compiled: Any, images: np.ndarray) -> list[np.ndarray]:
    try:
        found = compiled([images])
    except Exception as error:  # see _read
        raise wrong_shape(images, compiled.input(0).get_partial_shape(), error) from None
    return [np.array(found[output]) for output in compiled.outputs]
