"""Networks of segmentation_models_pytorch: `smp:Unet` with its own arguments as options."""

from typing import Any

from torch import nn

from segdistill.extras import require
from segdistill.models.foreign.adapters.interface import Conventions, Made, cause
from segdistill.models.input import INPUTS, make_input, spread
from segdistill.names import check_options, unknown


def conventions(module: Any) -> Conventions:
    """Logits at the image's size (its heads upsample), which go back as images are resized; images in
    multiples of the encoder's stride, where the network says that it needs them (Unet does not).

    FPN and PSPNet drop out at the end of the decoder, before the head.
    """
    kind = require("segmentation_models_pytorch.base.modules", "smp").Activation
    endings = [
        f"smp's {type(module).__name__} ends in {type(layer.activation).__name__}; expected logits: build it "
        "without `activation`"
        for layer in module.segmentation_head.modules()
        if isinstance(layer, kind) and not isinstance(layer.activation, nn.Identity)
    ]
    dropout = getattr(module.decoder, "dropout", None)
    taps = {}
    if isinstance(dropout, nn.Dropout2d):
        # In place it would change the tensor that is tapped; the numbers are the same.
        dropout.inplace = False
        taps["features"] = "decoder.dropout:input"
    needs = getattr(module, "requires_divisible_input_shape", True)
    multiple_of = module.encoder.output_stride if needs else 1
    return Conventions(multiple_of=multiple_of, taps=taps, ending=next(iter(endings), ""))


def make(name: str, num_classes: int, options: dict[str, Any]) -> Made:
    """A network of smp, its encoder untrained unless `encoder_weights` names weights.

    These also settle the normalisation (`get_preprocessing_params`); without them it is ImageNet's. With
    `in_channels` other than three each channel gets the mean of theirs, and smp fits the weights.
    """
    smp = require("segmentation_models_pytorch", "smp")
    known = {kind.__name__: kind for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if name not in known:
        raise ValueError(unknown("network of smp", name, known))
    options = {"encoder_name": "resnet34", "encoder_weights": None, **options}
    encoder, weights = options["encoder_name"], options["encoder_weights"]
    if not str(encoder).startswith("tu-"):  # encoders of timm take further ones
        check_options(f"smp's {name}", options, known[name], besides=["classes"], strict=True)
    try:
        module = known[name](classes=num_classes, **options)
        stated = _normalisation(smp, encoder, weights) if weights else INPUTS["imagenet"]
        input = make_input(spread(stated, options.get("in_channels", 3)))
    except Exception as error:  # KeyError, TypeError, and those of a download
        encoders = smp.encoders.get_encoder_names()
        if encoder not in encoders and not str(encoder).startswith("tu-"):
            raise ValueError(unknown("encoder of smp", str(encoder), encoders)) from error
        raise ValueError(f"smp cannot build {name} with {options}: {cause(error)}") from error
    del options["encoder_weights"]
    return Made(module, input, name, options)


def _normalisation(smp: Any, encoder: str, weights: str) -> dict[str, Any]:
    settings = smp.encoders.get_preprocessing_params(encoder, weights)
    return {
        "mean": settings["mean"],
        "std": settings["std"],
        "order": settings["input_space"].lower(),
        "scale": float(settings["input_range"][1]),
    }
