"""Trained files of other projects: their names for our PSPNet and DeepLabV3, and what they settle.

Read from the code of mmsegmentation (`psp_head`, `aspp_head`, `fcn_head`, `resnet` V1c), of SKD and IFVD
(`networks/pspnet_combine.py`) and of CIRKD (`models/deeplabv3.py`). Strict loading says what is left over.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segdistill.models.files.weights import KeyRules

_MMSEG: KeyRules = (
    (r"^backbone\.stem\.0\.", "encoder.conv1."),
    (r"^backbone\.stem\.1\.", "encoder.bn1."),
    (r"^backbone\.stem\.3\.", "encoder.conv2."),
    (r"^backbone\.stem\.4\.", "encoder.bn2."),
    (r"^backbone\.stem\.6\.", "encoder.conv3."),
    (r"^backbone\.stem\.7\.", "encoder.bn3."),
    (r"^backbone\.", "encoder."),
    (r"^auxiliary_head\.convs\.0\.conv\.", "aux.conv.0."),
    (r"^auxiliary_head\.convs\.0\.bn\.", "aux.conv.1."),
    (r"^auxiliary_head\.conv_seg\.", "aux.classifier."),
    (r"^decode_head\.conv_seg\.", "classifier."),
    (r"^(decode_head\..+)\.conv\.", r"\1.0."),
    (r"^(decode_head\..+)\.bn\.", r"\1.1."),
)

PSPNET_KEYS: KeyRules = (
    *_MMSEG,
    (r"^decode_head\.psp_modules\.(\d)\.1\.", r"psp.priors.\1."),
    (r"^decode_head\.bottleneck\.", "psp.bottleneck."),
    # SKD and IFVD; before them the pyramid was the first part of the head.
    (r"^head\.0\.(stages|bottleneck)\.", r"pspmodule.\1."),
    (r"^head\.1\.", "head."),
    (r"^(conv\d|bn\d|layer\d)\.", r"encoder.\1."),
    (r"^pspmodule\.stages\.(\d)\.1\.", r"psp.priors.\1.0."),
    (r"^pspmodule\.stages\.(\d)\.2\.", r"psp.priors.\1.1."),
    (r"^pspmodule\.bottleneck\.", "psp.bottleneck."),
    (r"^head\.", "classifier."),
    (r"^dsn\.3\.", "aux.classifier."),
    (r"^dsn\.", "aux.conv."),
)

DEEPLABV3_KEYS: KeyRules = (
    *_MMSEG,
    (r"^decode_head\.image_pool\.1\.", "aspp.image."),
    (r"^decode_head\.aspp_modules\.0\.", "aspp.point."),
    (r"^decode_head\.aspp_modules\.1\.", "aspp.dilated.0."),
    (r"^decode_head\.aspp_modules\.2\.", "aspp.dilated.1."),
    (r"^decode_head\.aspp_modules\.3\.", "aspp.dilated.2."),
    (r"^decode_head\.bottleneck\.", "aspp.project."),
    # CIRKD
    (r"^pretrained\.", "encoder."),
    (r"^head\.aspp\.b0\.", "aspp.point."),
    (r"^head\.aspp\.b1\.block\.", "aspp.dilated.0."),
    (r"^head\.aspp\.b2\.block\.", "aspp.dilated.1."),
    (r"^head\.aspp\.b3\.block\.", "aspp.dilated.2."),
    (r"^head\.aspp\.b4\.gap\.1\.", "aspp.image.0."),
    (r"^head\.aspp\.b4\.gap\.2\.", "aspp.image.1."),
    (r"^head\.aspp\.project\.", "aspp.project."),
    (r"^head\.block\.4\.", "classifier."),
    (r"^head\.block\.", "block."),
    (r"^auxlayer\.block\.4\.", "aux.classifier."),
    (r"^auxlayer\.block\.", "aux.conv."),
)


def pspnet_options(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Any]:
    """What a file of mmsegmentation, SKD or IFVD settles; nothing for a file in other names.

    Raises:
        ValueError: The file is known to be of a network that none here is.
    """
    if any(key.startswith("pretrained.") for key in state):
        raise ValueError(
            "this is CIRKD's PSPNet, which uses a different pyramid; expected SKD's, IFVD's or mmsegmentation's. "
            "Import that class by its dotted path, or use its DeepLabV3 (deeplabv3_r18, deeplabv3_r101)"
        )
    if _is_inplace_abn_layout(state):
        aux = any(key.startswith("dsn.") for key in state)
        return {"form": "skd", "input": "caffe_bgr", "aux": aux}
    return _mmseg_options(state)


def deeplabv3_options(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Any]:
    """What a file of mmsegmentation or CIRKD settles; nothing for a file in other names.

    Raises:
        ValueError: The file is known to be of a network that none here is.
    """
    if "head.aspp.b0.0.weight" in state:
        aux = any(key.startswith("auxlayer.") for key in state)
        return {"form": "cirkd", "input": "caffe_bgr", "aux": aux}
    return _mmseg_options(state)


def _mmseg_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    if not any(key.startswith("backbone.") for key in state):
        return {}
    if "backbone.stem.0.weight" not in state:
        raise ValueError(
            "this file of mmsegmentation has another backbone; expected one with the deep stem (ResNetV1c, "
            "backbone.stem.*). Use the V1c file, or import your own class by its dotted path"
        )
    if "backbone.layer2.0.downsample.2.weight" in state:
        raise ValueError(
            "this file of mmsegmentation is ResNetV1d, whose shortcuts pool; expected ResNetV1c. "
            "Use the V1c file, or import your own class by its dotted path"
        )
    aux = any(key.startswith("auxiliary_head.") for key in state)
    return {"form": "mmseg", "input": "imagenet", "aux": aux}


def _is_inplace_abn_layout(state: Mapping[str, Tensor]) -> bool:
    return "pspmodule.stages.0.1.weight" in state or "head.0.stages.0.1.weight" in state


def fold_inplace_abn(state: Mapping[str, Tensor], eps: float = 1e-5) -> dict[str, Tensor]:
    """The released PSPNets' weights for plain batch norm.

    In-place ABN (Rota Bulò et al., CVPR 2018) must invert its normalisation, so its code scales by
    |weight| + eps, whatever the sign of the weight; those networks use it throughout. A file in their
    names that counts its batches was trained with plain batch norm (in-place ABN has no such counter) and
    is left as it is, as is any file in other names.
    """
    if not _is_inplace_abn_layout(state) or any(k.endswith("num_batches_tracked") for k in state):
        return dict(state)
    norms = {key.removesuffix("running_var") + "weight" for key in state if "running_var" in key}
    return {key: value.abs() + eps if key in norms else value for key, value in state.items()}
