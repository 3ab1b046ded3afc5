"""An OpenVINO file in int8, made by NNCF in the process of OpenVINO."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from segdistill.run.shipping.onnx_file import root_cause
from segdistill.run.shipping.openvino.process import OpenVinoProcess


def quantise_openvino(source: Path, target: Path, images: Iterable[Tensor]) -> None:
    """Quantise an OpenVINO file statically to int8: per-channel weights, ranges calibrated on `images`.

    NNCF's post-training quantisation, from the first convolution to the last. Weights have 7 bits, as in
    `segdistill.run.shipping.quantise`; ranges of activations are asymmetric, as hard swish needs.

    Args:
        source: The float32 .xml file.
        target: The int8 .xml file; its weights are written beside it, as .bin.
        images: Calibration images `1 c h w` in 0..1, in the form that the file accepts.

    Raises:
        ValueError: OpenVINO or NNCF is missing, or NNCF cannot quantise the file.
    """
    process = OpenVinoProcess()
    # NNCF reads them more than once; all of them need not fit into memory.
    with TemporaryDirectory() as folder:
        for index, image in enumerate(images):
            np.save(Path(folder) / f"{index:06}.npy", image.numpy())
        try:
            process.quantise(source, target, Path(folder))
        except RuntimeError as error:
            raise ValueError(
                f"NNCF cannot quantise {source}: {root_cause(error)}. Export without --int8, or try another "
                "version of NNCF"
            ) from None
