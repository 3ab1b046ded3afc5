"""What the process of OpenVINO runs: one model is opened and run, as the messages on its standard input say.

It needs only OpenVINO and NumPy. A message, in either direction, is a line of JSON and the bytes of the arrays
that the line names.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import IO, Any

import numpy as np


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


class Served:
    """The model that the messages are about; each method answers the messages of its name."""

    def __init__(self) -> None:
        # Its import sends usage data from a forked process, and asks nobody; without this package it does not.
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
