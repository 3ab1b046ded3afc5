"""A process that runs OpenVINO, so that a fault in its native code cannot reach the process of a training.

With OpenVINO 2026.4 beside PyTorch in one process, processes that this one forked later crashed at changing places
(on a processor with AVX-512; the cause is not known).
"""

import os
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from segdistill.extras import check_installed
from segdistill.run.shipping.onnx_file import METADATA
from segdistill.run.shipping.openvino import program


class OpenVinoProcess:
    """A process that holds one file, until nothing refers to this object.

    Raises:
        ValueError: OpenVINO is missing or its process has ended; in the methods also: this process is a fork
            of the one that made the object.
    """

    def __init__(self) -> None:
        check_installed("openvino", "openvino")
        # By its path, and without the working folder among the modules: only what is installed is imported.
        command = [sys.executable, "-P", program.__file__]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._turn = Lock()
        self._owner = os.getpid()
        weakref.finalize(self, _end, self._child, self._owner)
        try:
            self._answer()
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot be loaded: {error}") from None

    def open(
        self,
        file: str | Path | bytes,
        settings: dict[str, Any],
        shape: list[int] | None = None,
    ) -> dict[str, Any]:
        """Read and compile a file.

        Args:
            file: Path of an .xml or .onnx file, or the content of an ONNX file.
            settings: Properties of the compiled model.
            shape: Shape `b c h w` to compile it for; None: as the file says.

        Returns:
            `text`: the file's description or None; `precision`, such as f32 or bf16, that it computes in; and
            `accepted`, the shape of images.

        Raises:
            RuntimeError: OpenVINO cannot read or compile it.
            ValueError: Its process has ended.
        """
        given = (_bytes(file),) if isinstance(file, bytes) else ()
        path = None if isinstance(file, bytes) else str(Path(file).absolute())
        return self._ask("open", *given, file=path, shape=shape, settings=settings, key=METADATA)[0]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs for images; errors as for `open`."""
        return self._ask("run", images)[1]

    def again(self) -> None:
        """Run on the last images, and leave the outputs there."""
        self._ask("again")

    def write(self, content: bytes, file: Path, text: str) -> None:
        """Write an ONNX file as an .xml file and its weights, in float32, with a description; errors as for `open`."""
        self._ask("write", _bytes(content), file=str(file.absolute()), key=METADATA, text=text)

    def quantise(self, file: Path, target: Path, images: Path) -> None:
        """Write a float32 .xml file as one in int8, with the same description, by NNCF.

        Args:
            file: The float32 file.
            target: The int8 file.
            images: Folder of calibration images, each an .npy file `1 c h w`.

        Raises:
            RuntimeError: NNCF is missing or cannot quantise it.
            ValueError: Its process has ended.
        """
        paths = {"file": file, "target": target, "images": images}
        self._ask("quantise", **{name: str(path.absolute()) for name, path in paths.items()})

    def _ask(
        self, do: str, *arrays: np.ndarray, **values: Any
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        assert self._child.stdin is not None
        if os.getpid() != self._owner:  # both would read the answers of one pipe
            raise ValueError(
                "the file was opened in OpenVINO by another process, of which this one is a copy; expected one opened "
                "here. Open the file after the fork"
            )
        with self._turn:
            try:
                # If it has ended, the answer tells.
                with suppress(BrokenPipeError):
                    program.send(self._child.stdin, {"do": do, **values}, arrays)
                return self._answer()
            except RuntimeError:
                raise
            except (
                BaseException
            ):  # Ctrl-C before the answer, which the next call would take for its own
                self._child.kill()
                raise

    def _answer(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        assert self._child.stdout is not None
        try:
            answer, arrays = program.receive(self._child.stdout)
        except EOFError:
            raise ValueError(
                f"OpenVINO's process has ended (exit code {self._child.wait()}): a fault in OpenVINO, want of memory "
                "or an interrupted call; expected an answer. Open the file again, or try another version of OpenVINO"
            ) from None
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer, arrays


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def _end(child: "subprocess.Popen[bytes]", owner: int) -> None:
    if os.getpid() != owner:  # a forked process has a copy of the object, not the child
        return
    child.kill()
    child.communicate()
