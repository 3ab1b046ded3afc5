"""Losses, each by its name. They import nothing of this package but their neighbours and `labels`."""

from segdistill.labels import IGNORED

from .adversary import Adversary
from .attention import AttentionTransfer
from .base import Loss
from .channelwise import ChannelwiseKD
from .dist import CorrelationKD
from .holistic import HolisticKD
from .image_relation import ImageRelation
from .inter_class import InterClassDistance
from .intra_class import IntraClassVariation
from .pairwise import PairwiseKD
from .pixelwise import PixelwiseKD
from .position import PositionInformation
from .task import CrossEntropy

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "pixelwise": PixelwiseKD,
    "pairwise": PairwiseKD,
    "holistic": HolisticKD,
    "channelwise": ChannelwiseKD,
    "intra_class": IntraClassVariation,
    "inter_class": InterClassDistance,
    "position": PositionInformation,
    "attention": AttentionTransfer,
    "dist": CorrelationKD,
    "image_relation": ImageRelation,
}
"""Every loss by the name that recipes, logs and reports use."""

__all__ = [
    "IGNORED",
    "LOSSES",
    "Adversary",
    "AttentionTransfer",
    "ChannelwiseKD",
    "CorrelationKD",
    "CrossEntropy",
    "HolisticKD",
    "ImageRelation",
    "InterClassDistance",
    "IntraClassVariation",
    "Loss",
    "PairwiseKD",
    "PixelwiseKD",
    "PositionInformation",
]
