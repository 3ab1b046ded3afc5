"""The losses by name. They import only each other, `segdistill.labels` and `segdistill.geometry`."""

from segdistill.labels import IGNORED
from segdistill.losses.adversary import Adversary
from segdistill.losses.attention import AttentionTransfer
from segdistill.losses.base import Loss
from segdistill.losses.boundary import BoundaryKD
from segdistill.losses.channelwise import ChannelwiseKD
from segdistill.losses.decoupled import DecoupledKD
from segdistill.losses.dist import CorrelationKD
from segdistill.losses.hint import FeatureRegression
from segdistill.losses.holistic import HolisticKD
from segdistill.losses.image_relation import ImageRelation
from segdistill.losses.inter_class import InterClassDistance
from segdistill.losses.intra_class import IntraClassVariation
from segdistill.losses.pairwise import PairwiseKD
from segdistill.losses.pixel_to_class import PixelToClass
from segdistill.losses.pixelwise import PixelwiseKD
from segdistill.losses.position import PositionInformation
from segdistill.losses.task import CrossEntropy

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "pixelwise": PixelwiseKD,
    "decoupled": DecoupledKD,
    "pairwise": PairwiseKD,
    "holistic": HolisticKD,
    "channelwise": ChannelwiseKD,
    "boundary": BoundaryKD,
    "intra_class": IntraClassVariation,
    "inter_class": InterClassDistance,
    "position": PositionInformation,
    "attention": AttentionTransfer,
    "dist": CorrelationKD,
    "image_relation": ImageRelation,
    "hint": FeatureRegression,
    "pixel_to_class": PixelToClass,
}
"""Every loss by the name that recipes, logs and reports use."""

__all__ = [
    "IGNORED",
    "LOSSES",
    "Adversary",
    "AttentionTransfer",
    "BoundaryKD",
    "ChannelwiseKD",
    "CorrelationKD",
    "CrossEntropy",
    "DecoupledKD",
    "FeatureRegression",
    "HolisticKD",
    "ImageRelation",
    "InterClassDistance",
    "IntraClassVariation",
    "Loss",
    "PairwiseKD",
    "PixelToClass",
    "PixelwiseKD",
    "PositionInformation",
]
