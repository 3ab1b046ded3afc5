"""Quantise an ONNX file to int8, and decide whether the result is good enough to ship."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from segdistill.extras import require
from segdistill.run.evaluation import Evaluation

# The network's own layers. Normalisation, average pooling and the final resize stay float32: they
# cost little, and rounding there would change every logit.
_QUANTISED = ("Conv", "ConvTranspose", "Relu", "Clip", "MaxPool")


def quantise(source: Path, target: Path, images: Iterable[Tensor]) -> None:
    """Quantise a file statically to int8: QDQ, per-channel weights, ranges calibrated on `images`.

    onnxruntime's `quantize_static` with MinMax calibration, uint8 activations and int8 weights of
    7 bits: with 8, the 16-bit sums of processors without VNNI saturate.

    Args:
        source: The float32 file.
        target: The int8 file.
        images: Calibration images `1 3 h w` in 0..1, in the form that the file accepts.
    """
    quantization = require("onnxruntime.quantization", "export")
    preprocess = require("onnxruntime.quantization.shape_inference", "export").quant_pre_process
    with TemporaryDirectory() as folder:
        # Folds batch norms into convolutions, which would otherwise be quantised separately.
        folded = Path(folder) / "folded.onnx"
        preprocess(source, folded, skip_symbolic_shape=True)
        # Values that are always zero (dead channels) have no range: 0 / 0 here; the gate decides.
        with np.errstate(invalid="ignore"):
            quantization.quantize_static(
                folded,
                target,
                _Reader(images),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )


class _Reader:
    """Calibration images in the form that onnxruntime expects."""

    def __init__(self, images: Iterable[Tensor]) -> None:
        self._images: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {"images": image.numpy()}


def gate(
    plain: Evaluation, int8: Evaluation, max_drop: float, max_class_drop: float
) -> dict[str, Any]:
    """Measure what int8 loses on the evaluation split, and compare it with the limits.

    Args:
        plain: Metrics of the float32 file.
        int8: Metrics of the int8 file, on the same images.
        max_drop: Largest loss of mIoU allowed, in points (0 to 100).
        max_class_drop: Largest loss of IoU allowed for any class, in points.

    Returns:
        `passed`, `miou` (a fraction), `drop` (points), `classes` (name -> points lost; None if either
        IoU is undefined), `limits` and `worst` (the class that loses most).
    """
    classes = {
        name: None if before is None or after is None else 100 * (before - after)
        for name, before, after in zip(plain.classes, plain.iou, int8.iou, strict=True)
    }
    known = {name: lost for name, lost in classes.items() if lost is not None}
    worst = max(known, key=lambda name: known[name])
    drop = 100 * (plain.miou - int8.miou)
    return {
        "passed": drop <= max_drop and known[worst] <= max_class_drop,
        "miou": int8.miou,
        "drop": drop,
        "classes": classes,
        "worst": worst,
        "limits": {"miou": max_drop, "class": max_class_drop},
    }
