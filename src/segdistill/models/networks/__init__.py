"""The networks of this package by name, one file each."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from segdistill.models.contract import SegmentationModel
from segdistill.models.files.released import deeplabv3_options, pspnet_options
from segdistill.models.networks.ann import ann_r101
from segdistill.models.networks.compact import compact
from segdistill.models.networks.ddrnet import ddrnet23_slim
from segdistill.models.networks.deeplabv3 import deeplabv3_r18, deeplabv3_r50, deeplabv3_r101
from segdistill.models.networks.deeplabv3plus import deeplabv3plus
from segdistill.models.networks.enet import enet
from segdistill.models.networks.erfnet import erfnet
from segdistill.models.networks.espnet import espnet, espnet_c
from segdistill.models.networks.espnet import released_options as espnet_options
from segdistill.models.networks.espnetv2 import espnetv2
from segdistill.models.networks.espnetv2 import released_options as espnetv2_options
from segdistill.models.networks.fcn import fcn8s_vgg16
from segdistill.models.networks.icnet import icnet
from segdistill.models.networks.ocnet import ocnet_r101
from segdistill.models.networks.ocrnet import ocrnet_r101
from segdistill.models.networks.pidnet import pidnet_s
from segdistill.models.networks.pspnet import (
    pspnet,
    pspnet_mobilenet_v2,
    pspnet_r18,
    pspnet_r18_half,
    pspnet_r50,
    pspnet_r101,
)
from segdistill.models.networks.refinenet import refinenet, refinenet_r101
from segdistill.models.networks.stdc import stdc1

MODELS: dict[str, Callable[..., SegmentationModel]] = {
    "pspnet_r18": pspnet_r18,
    "pspnet_r18_half": pspnet_r18_half,
    "pspnet_r50": pspnet_r50,
    "pspnet_r101": pspnet_r101,
    "pspnet_mobilenet_v2": pspnet_mobilenet_v2,
    "pspnet": pspnet,
    "deeplabv3_r18": deeplabv3_r18,
    "deeplabv3_r50": deeplabv3_r50,
    "deeplabv3_r101": deeplabv3_r101,
    "deeplabv3plus": deeplabv3plus,
    "espnet": espnet,
    "espnet_c": espnet_c,
    "espnetv2": espnetv2,
    "enet": enet,
    "erfnet": erfnet,
    "icnet": icnet,
    "ddrnet23_slim": ddrnet23_slim,
    "stdc1": stdc1,
    "pidnet_s": pidnet_s,
    "fcn8s_vgg16": fcn8s_vgg16,
    "refinenet_r101": refinenet_r101,
    "refinenet": refinenet,
    "ocnet_r101": ocnet_r101,
    "ocrnet_r101": ocrnet_r101,
    "ann_r101": ann_r101,
    "compact": compact,
}

RELEASED: dict[str, Callable[[Mapping[str, Tensor], int], dict[str, Any]]] = {
    "pspnet_r18": pspnet_options,
    "pspnet_r50": pspnet_options,
    "pspnet_r101": pspnet_options,
    "deeplabv3_r18": deeplabv3_options,
    "deeplabv3_r50": deeplabv3_options,
    "deeplabv3_r101": deeplabv3_options,
    "espnet": espnet_options,
    "espnet_c": espnet_options,
    "espnetv2": espnetv2_options,
}
"""Networks with trained files of their authors -> the options that such a file settles."""
