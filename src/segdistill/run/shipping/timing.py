"""Latency of exported files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segdistill.run.evaluation import Size
from segdistill.run.evaluation.profile import measure_latency
from segdistill.run.shipping.onnx_file import OnnxNetwork
from segdistill.run.shipping.openvino.file import OpenVinoAlone

_SECONDS = 10.0


def time_files(files: Mapping[str, Path], size: Size) -> dict[str, Any]:
    """Time exported files on one image on the CPU, .onnx in onnxruntime and .xml in OpenVINO, taking turns.

    Args:
        files: Name -> file; at least one is an .onnx file.
        size: Height and width of the image, in pixels; a file that accepts only one size is timed at
            that size.

    Returns:
        `size`, `threads` (as many as PyTorch uses here) and, for each name, `median_ms`, `p90_ms` and
        `repeats`.
    """
    threads = torch.get_num_threads()
    onnx = {name: OnnxNetwork(p, threads) for name, p in files.items() if p.suffix == ".onnx"}
    first = next(iter(onnx.values()))
    size = first.size or size
    alone: dict[str, nn.Module] = {
        name: FileAlone(onnx[name])
        if name in onnx
        else OpenVinoAlone(path, size, first.in_channels)
        for name, path in files.items()
    }
    timed = measure_latency(alone, size, seconds=_SECONDS, device="cpu")
    times = {
        name: {"median_ms": found.median, "p90_ms": found.p90, "repeats": found.repeats}
        for name, found in timed.items()
    }
    return {"size": list(size), "threads": threads, **times}


def time_networks(student: nn.Module, teacher: nn.Module, size: Size) -> dict[str, Any]:
    """Time a student beside its teacher in PyTorch on the CPU, on one image of the size that they see.

    Returns:
        `size`, and the medians `student_ms` and `teacher_ms`.
    """
    timed = measure_latency(
        {"student_ms": student, "teacher_ms": teacher}, size, seconds=_SECONDS, device="cpu"
    )
    return {"size": list(size), **{name: found.median for name, found in timed.items()}}


class FileAlone(nn.Module):
    """Only the .onnx file, without the conversion of its output to logits.

    Attributes:
        counted: False: its layers are no modules, so that it can be timed but not counted.
    """

    counted = False

    def __init__(self, network: OnnxNetwork) -> None:
        super().__init__()
        self.session, self.in_channels = network.session, network.in_channels

    def forward(self, images: Tensor) -> Any:
        return self.session.run(None, {"images": images.numpy()})
