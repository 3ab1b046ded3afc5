"""Networks by name, and what every network promises; a network of your own joins them by `wrap`."""

from segdistill.models.build import build_model, build_trained
from segdistill.models.contract import SegmentationModel, device_of, encoders, network
from segdistill.models.files.weights import LoadReport, load_weights
from segdistill.models.foreign.wrapped import wrap
from segdistill.models.input import InputNormalisation
from segdistill.models.networks import MODELS, RELEASED

__all__ = [
    "MODELS",
    "RELEASED",
    "InputNormalisation",
    "LoadReport",
    "SegmentationModel",
    "build_model",
    "build_trained",
    "device_of",
    "encoders",
    "load_weights",
    "network",
    "wrap",
]
