"""Networks by name: `build_model("pspnet_r18", num_classes=19)`."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from segdistill.dotted import described, import_dotted, may_be_factory, returns
from segdistill.models.contract import SegmentationModel
from segdistill.models.files.weights import LoadReport, load_tensors, read_tensors, unprefixed
from segdistill.models.foreign import adapters
from segdistill.models.foreign.wrapped import wrap
from segdistill.models.input import InputNormalisation, make_input
from segdistill.models.networks import MODELS, RELEASED
from segdistill.names import check_options, made, unknown

_WRAPPING = (
    "taps",
    "input",
    "align_corners",
    "multiple_of",
    "cells",
    "output",
    "final_activation",
)


def build_model(
    name: str, num_classes: int, *, factory: bool = False, **options: Any
) -> SegmentationModel:
    """Makes a network that keeps the contract of `SegmentationModel`.

    Args:
        name: A name of `MODELS`; "pspnet:ENCODER" or "deeplabv3plus:ENCODER" with an encoder of
            timm; "smp:Unet", "torchvision:deeplabv3_resnet50", "hf:segformer", "hf:FOLDER" or
            "hf:HUB/ID" (`segdistill.models.foreign.adapters`); or "package.module.Class" of an own
            `nn.Module`, or of a function annotated to return one (called with `num_classes` if it
            takes that, and wrapped).
        num_classes: Channels of the logits.
        factory: Call a function that has no such annotation, too.
        **options: Of that network; plain values, so that `spec` can be written to a file. `weights`
            names weights of the encoder; it is not kept in `spec`, since whoever rebuilds has the
            trained ones. For an own module or a library's also those of `wrap`: `taps`, `input`,
            `align_corners`, `multiple_of`, `cells`, `output`, `final_activation`.

    Raises:
        ValueError: an unknown name or option, or a value that does not fit.

    Example:
        >>> model = build_model("pspnet:resnet18", num_classes=19, output_stride=16)
        >>> model.taps["features"]
        'psp'
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes is {num_classes!r}; expected a positive integer")
    family, _, encoder = name.partition(":")
    if family in MODELS:
        model = _from_table(name, family, encoder, num_classes, options)
    elif family in adapters.LIBRARIES:
        name, model, options = _from_library(family, encoder, num_classes, options)
    elif "." in name and ":" not in name:
        model = _from_path(name, num_classes, options, factory)
    elif family == "timm":
        encoder = encoder or "ENCODER"
        raise ValueError(
            f"{name!r}: timm provides encoders only; use pspnet:{encoder} or "
            f"deeplabv3plus:{encoder}"
        )
    else:
        raise ValueError(unknown("model", family, [*MODELS, *adapters.LIBRARIES]))
    model.spec = {"name": name, "num_classes": num_classes, "options": _kept(name, model, options)}
    if factory:
        model.spec["factory"] = True
    return model


def build_trained(
    name: str, num_classes: int, weights: str | Path, *, factory: bool = False, **options: Any
) -> tuple[SegmentationModel, LoadReport]:
    """A network with all of its weights from a file, loaded strictly.

    What a released file settles (`RELEASED`: depth or width, an output for void or background after the
    classes, the normalisation) need not be said; an option that is given has the last word.

    Args:
        name: As for `build_model`.
        num_classes: Classes of the data.
        weights: As for `read_weights`.
        factory: As for `build_model`.
        **options: As for `build_model`.

    Raises:
        FileNotFoundError: Nothing at `weights`.
        ValueError: As for `build_model` and `load_weights`.
    """
    tensors = read_tensors(weights)
    settled = RELEASED[name](unprefixed(tensors), num_classes) if name in RELEASED else {}
    model = build_model(name, num_classes, factory=factory, **{**settled, **options})
    return model, load_tensors(model, tensors, str(weights))


def _kept(name: str, model: SegmentationModel, options: dict[str, Any]) -> dict[str, Any]:
    """The options in plain values: without weights, with the normalisation that came with them."""
    kept = {key: value for key, value in options.items() if key != "weights"}
    if isinstance(getattr(model, "input", None), InputNormalisation) and (
        "input" in options or name.partition(":")[0] in {*MODELS, *adapters.LIBRARIES}
    ):
        kept["input"] = model.input.spec
    try:
        plain: dict[str, Any] = json.loads(json.dumps(kept))
    except TypeError as error:
        raise ValueError(
            f"the options of {name} are not plain values ({error}); expected some, as they are saved. "
            "Build the module yourself and wrap() it"
        ) from error
    return plain


def _from_table(
    name: str, family: str, encoder: str, num_classes: int, options: dict[str, Any]
) -> SegmentationModel:
    builder = MODELS[family]
    if encoder:
        if "encoder" not in inspect.signature(builder).parameters:
            raise ValueError(f"{name!r}: {family} has its own encoder; use {family}")
        options = {"encoder": encoder, **options}
    check_options(family, options, builder, besides=["num_classes"])
    network: SegmentationModel = made(family, builder, num_classes, **options)
    return network


def _from_library(
    library: str, name: str, num_classes: int, options: dict[str, Any]
) -> tuple[str, SegmentationModel, dict[str, Any]]:
    """The network, and the name and options that build an equal one without the library's weights."""
    wrapping = {key: options[key] for key in _WRAPPING if key in options}
    settings = {key: value for key, value in options.items() if key not in wrapping}
    made = adapters.make(library, name, num_classes, settings)
    if isinstance(wrapping.get("input"), str):  # of as many channels as the network was built for
        wrapping["input"] = make_input(wrapping["input"], len(made.input.spec["mean"]))
    model = wrap(made.module, num_classes, **{"input": made.input, **wrapping})
    model.weights_report = made.report
    return f"{library}:{made.name}", model, {**made.options, **wrapping}


def _maker(name: str, factory: bool) -> Callable[..., Any]:
    """The class or function at a dotted path, looked at before it is called."""
    maker = import_dotted(name, "model")
    if inspect.isclass(maker):
        if not issubclass(maker, nn.Module):
            raise ValueError(
                f"model {name!r} is {described(maker)}; expected a subclass of torch.nn.Module"
            )
    elif not returns(maker, nn.Module):
        allowed = may_be_factory(name, maker)
        if not (factory and allowed):
            remedy = ". Annotate it, or set factory: true beside model" if allowed else ""
            raise ValueError(
                f"model {name!r} is {described(maker)}; expected a subclass of torch.nn.Module, or a "
                f"function annotated to return one{remedy}"
            )
    return maker


def _from_path(
    name: str, num_classes: int, options: dict[str, Any], factory: bool
) -> SegmentationModel:
    maker = _maker(name, factory)
    own = inspect.signature(maker).parameters
    wrapping = {key: options[key] for key in _WRAPPING if key in options and key not in own}
    settings = {key: value for key, value in options.items() if key not in wrapping}
    check_options(name, settings, maker, besides=["num_classes"])
    if "num_classes" in own:
        settings["num_classes"] = num_classes
    module = made(name, maker, **settings)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{name} made a {type(module).__name__}; expected an nn.Module")
    return wrap(module, num_classes, **wrapping)
