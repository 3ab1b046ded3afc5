"""What the process of OpenVINO runs: one model is opened and run, as the messages on its standard input say.

It needs only OpenVINO and NumPy, and NNCF to quantise. A message, in either direction, is a line of JSON
and the bytes of the arrays that the line names.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import IO, Any

import numpy as np

_CONVOLUTIONS = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
)


def send(stream: IO[bytes], message: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Write a message and its arrays."""
    kinds = [[array.dtype.str, array.shape] for array in arrays]
    stream.write(json.dumps({**message, "arrays": kinds}).encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array).data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read a message and its arrays.

    Raises:
        EOFError: The other side has ended.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message, arrays = json.loads(line), []
    for kind, shape in message.pop("arrays"):
        array = np.empty(shape, kind)
        content = stream.read(array.nbytes)
        if len(content) < array.nbytes:
            raise EOFError
        array[...] = np.frombuffer(content, kind).reshape(shape)
        arrays.append(array)
    return message, arrays


def outside(ops: Sequence[Any]) -> list[str]:
    """Names of the operations that do not lie between two convolutions, such as normalisation and the final resize.

    Args:
        ops: Operations of a model, in an order in which they can be computed.
    """
    after: set[str] = set()
    before: set[str] = set()
    for op in ops:
        sources = (value.get_source_output().get_node() for value in op.inputs())
        if op.get_type_name() in _CONVOLUTIONS or any(_name(node) in after for node in sources):
            after.add(_name(op))
    for op in reversed(ops):
        readers = [
            entry.get_node() for value in op.outputs() for entry in value.get_target_inputs()
        ]
        if op.get_type_name() in _CONVOLUTIONS or any(_name(node) in before for node in readers):
            before.add(_name(op))
    return [_name(op) for op in ops if _name(op) not in after & before]


def _name(op: Any) -> str:
    return str(op.get_friendly_name())


class Served:
    """The model that the messages are about; each method answers the messages of its name."""

    def __init__(self) -> None:
        # Its import sends usage data from a forked process, and asks nobody; without this package it does not.
        # NNCF sends each call and its settings through the same package, and nothing without it.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        import openvino

        self.openvino, self.core = openvino, openvino.Core()

    def open(
        self,
        content: np.ndarray | None = None,
        *,
        file: str | None = None,
        shape: list[int] | None = None,
        settings: dict[str, Any],
        key: str,
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Read and compile a model, from an .xml file or from the content of an ONNX file."""
        model = self.core.read_model(file if content is None else content.tobytes())
        text = model.get_rt_info(key).astype(str) if model.has_rt_info(key) else None
        if shape is not None:
            model.reshape(shape)
        self.compiled = self.core.compile_model(model, "CPU", settings)
        found = self.compiled.get_property("INFERENCE_PRECISION_HINT")
        precision = str(getattr(found, "get_type_name", lambda: found)())
        accepted = str(self.compiled.input(0).get_partial_shape())
        return {"text": text, "precision": precision, "accepted": accepted}, []

    def run(self, images: np.ndarray) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The outputs for images."""
        self.images = images
        found = self.compiled([images])
        return {}, [np.array(found[output]) for output in self.compiled.outputs]

    def again(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Run on the last images once more, for the time that it takes; the outputs stay here."""
        self.compiled([self.images])
        return {}, []

    def write(
        self, content: np.ndarray, *, file: str, key: str, text: str
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Write the content of an ONNX file as an .xml file in float32, with a text in its metadata."""
        model = self.core.read_model(content.tobytes())
        model.set_rt_info(text, key)
        self.openvino.save_model(model, file, compress_to_fp16=False)
        return {}, []

    def quantise(
        self, *, file: str, target: str, images: str
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Write an .xml file in int8 beside its original, ranges calibrated on a folder of images as .npy files."""
        # NNCF would load it where it is installed, and OpenVINO does not run beside it here.
        sys.modules["torch"] = None  # type: ignore[assignment]
        import nncf

        model = self.core.read_model(file)
        calibration = sorted(str(path) for path in Path(images).glob("*.npy"))
        advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # it draws progress bars
            nncf.set_log_level(logging.ERROR)
            quantised = nncf.quantize(
                model,
                nncf.Dataset(calibration, np.load),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(calibration),
                ignored_scope=nncf.IgnoredScope(outside(model.get_ordered_ops()), validate=False),
                advanced_parameters=advanced,
            )
        self.openvino.save_model(quantised, target, compress_to_fp16=False)
        return {}, []


def main() -> None:
    """Answer messages until there are no more."""
    # Ctrl-C is meant for the process that asks, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints is no answer
    try:
        served = Served()
        send(answers, {})
        while True:
            message, arrays = receive(requests)
            try:
                answer, found = getattr(served, message.pop("do"))(*arrays, **message)
            except Exception as error:  # OpenVINO's errors are RuntimeErrors with a trace in them
                answer, found = {"error": str(error)}, []
            send(answers, answer, found)
    except (EOFError, BrokenPipeError):
        pass
    except ImportError as error:
        send(answers, {"error": str(error)})


if __name__ == "__main__":
    main()
