"""The int8 files of an export: calibrated, measured, and kept only if they lose little."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdistill.run.evaluation import Evaluation, Protocol, Size, measure
from segdistill.run.shipping.bundle import file_record, int8_results
from segdistill.run.shipping.onnx_file import FileNetwork, OnnxNetwork
from segdistill.run.shipping.openvino.file import OpenVinoNetwork
from segdistill.run.shipping.openvino.int8 import quantise_openvino
from segdistill.run.shipping.parity import spread_images
from segdistill.run.shipping.quantise import gate, quantise

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Int8:
    """What int8 files are calibrated on, and what they may lose.

    Attributes:
        train_set: The images that calibrate the ranges.
        count: How many of them.
        max_drop: Largest loss of mIoU allowed on the evaluation split, in points.
        max_class_drop: Largest loss of IoU allowed for any class, in points.
    """

    train_set: Any
    count: int
    max_drop: float
    max_class_drop: float

    def in_onnxruntime(
        self, target: Path, size: Size | None, val_set: Any, plain: Evaluation
    ) -> dict[str, Any]:
        """Write `model.int8.onnx` from `model.onnx`, and delete it unless it passes the gate.

        Args:
            target: Folder that holds the file.
            size: Height and width of images that the file accepts; None: any.
            val_set: The evaluation split.
            plain: Metrics of the float32 file on it.

        Returns:
            Its entry `int8` of parity.json.
        """
        path = target / "model.int8.onnx"
        quantise(target / "model.onnx", path, spread_images(self.train_set, self.count, size))
        return self._gated(OnnxNetwork(path), [path], val_set, plain)

    def in_openvino(
        self, target: Path, size: Size | None, val_set: Any, plain: Evaluation
    ) -> dict[str, Any]:
        """Write `model.int8.xml` from `model.xml`, and delete it unless it passes the gate.

        What is not int8 is computed in float32 for the gate. Where the processor has another default, `default`
        has its `precision` and the `miou` in it.

        Args:
            target, size, val_set, plain: As for `in_onnxruntime`.

        Returns:
            Its entry `int8` in the entry `openvino` of parity.json.

        Raises:
            ValueError: NNCF cannot quantise the file.
        """
        path = target / "model.int8.xml"
        images = spread_images(self.train_set, self.count, size)
        quantise_openvino(target / "model.xml", path, images)
        network, default = OpenVinoNetwork(path, float32=True), OpenVinoNetwork(path)
        result = self._gated(network, [path, path.with_suffix(".bin")], val_set, plain)
        if default.precision != "f32":
            miou = measure(default, val_set, Protocol(default.size)).miou
            result["default"] = {"precision": default.precision, "miou": miou}
        return result

    def _gated(
        self, network: FileNetwork, files: list[Path], val_set: Any, plain: Evaluation
    ) -> dict[str, Any]:
        """Measure an int8 network, and delete its files unless it passes the gate."""
        found = measure(network, val_set, Protocol(network.size))
        result = gate(plain, found, self.max_drop, self.max_class_drop)
        result["calibration_images"] = self.count
        result.update({path.name: file_record(path) for path in files})
        if not result["passed"]:
            for path in files:
                path.unlink()
        return result


def report_int8(target: Path, parity: dict[str, Any]) -> None:
    """Log what the int8 files are worth.

    Args:
        target: The folder.
        parity: Content of parity.json.

    Raises:
        ValueError: A file lost too much.
    """
    failed = []
    for name, found in int8_results(parity).items():
        worst = found["worst"]
        lost, weights = found["classes"][worst], found[name.replace(".xml", ".bin")]
        _log.info(
            "%s: %.2f mIoU, %.2f points lost, most in %s (%.2f), %.2f MB",
            target / name,
            100 * found["miou"],
            found["drop"],
            worst,
            lost,
            weights["bytes"] / 1e6,
        )
        limits = found["limits"]
        if not found["passed"]:
            failed.append(
                f"int8 loses {found['drop']:.2f} points of mIoU (limit {limits['miou']}) and {lost:.2f} in "
                f"{worst} (limit {limits['class']}), so {name} was deleted. Ship "
                f"{target / name.replace('.int8', '')}"
            )
        elif "default" in found:
            _report_default(target / name, found)
    if failed:
        raise ValueError(
            f"{'. '.join(failed)}, or calibrate with more images (--calibration)",
        )


def _report_default(file: Path, found: dict[str, Any]) -> None:
    """Log what the processor's default precision costs on top of int8, and warn if it is too much."""
    miou, limit, precision = (
        found["default"]["miou"],
        found["limits"]["miou"],
        found["default"]["precision"],
    )
    lost = found["drop"] + 100 * (found["miou"] - miou)
    message = "%s: %.2f mIoU in %s, this processor's default, %.2f points lost"
    if lost <= limit:
        _log.info(message, file, 100 * miou, precision, lost)
        return
    _log.warning(
        f"{message}; the limit is %s. Compile it with INFERENCE_PRECISION_HINT: f32",
        file,
        100 * miou,
        precision,
        lost,
        limit,
    )
