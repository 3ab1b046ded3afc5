"""Networks of torchvision.models.segmentation: `torchvision:deeplabv3_resnet50`."""

from inspect import signature
from typing import Any, get_args

from torchvision import models

from segdistill.models.foreign.adapters.interface import Conventions, Made, cause
from segdistill.models.input import make_input
from segdistill.names import check_options, unknown

_WEIGHTS = ("weights", "weights_backbone")


def conventions(module: Any) -> Conventions:
    """Logits at the image's size (`align_corners=False`); the auxiliary head, where there is one."""
    has_aux = getattr(module, "aux_classifier", None) is not None
    return Conventions(taps={"aux": "aux_classifier"} if has_aux else {})


def make(name: str, num_classes: int, options: dict[str, Any]) -> Made:
    """A network of torchvision, untrained unless `weights` or `weights_backbone` name weights.

    torchvision's own default fetches a trained backbone; here nothing is fetched unasked. All of its
    weights take ImageNet's normalisation.
    """
    names = models.list_models(module=models.segmentation)
    known = {name: models.get_model_builder(name) for name in names}
    if name not in known:
        raise ValueError(unknown("segmentation network of torchvision", name, known))
    # The builders take any keyword and let a slip pass.
    check_options(name, options, known[name], besides=["num_classes"], strict=True)
    parameters = signature(known[name]).parameters
    for key in _WEIGHTS:
        _check_weights(f"{key} of {name}", options.get(key), parameters[key].annotation)
    options = {**dict.fromkeys(_WEIGHTS), **options}
    try:
        module = known[name](num_classes=num_classes, **options)
    except Exception as error:  # TypeError, ValueError, and those of a download
        raise ValueError(f"torchvision cannot build {name} ({options}): {cause(error)}") from error
    kept = {key: value for key, value in options.items() if key not in _WEIGHTS}
    if "aux" in conventions(module).taps:
        kept["aux_loss"] = True  # trained weights bring the head with them
    return Made(module, make_input("imagenet"), name, kept)


def _check_weights(kind: str, asked: Any, annotation: Any) -> None:
    """Torchvision itself repeats a name that it does not know, and says no more."""
    known = get_args(annotation)[0]  # Optional of an enumeration
    if isinstance(asked, str) and asked.removeprefix(f"{known.__name__}.") not in known.__members__:
        raise ValueError(unknown(kind, asked, known.__members__))
