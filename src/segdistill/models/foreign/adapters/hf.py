"""Networks of transformers: `hf:segformer` from its settings, `hf:FOLDER` or `hf:HUB/ID` trained."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segdistill.extras import require
from segdistill.models.files.weights import LoadReport
from segdistill.models.foreign.adapters.interface import Conventions, Made, cause
from segdistill.models.input import InputNormalisation, make_input
from segdistill.names import unknown

_log = logging.getLogger(__name__)
# What a config says of its file and its labels, and not of the network.
_NOT_SETTINGS = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "id2label",
    "label2id",
    "model_type",
    "num_labels",
    "transformers_version",
    "trust_remote_code",
)
# A folder or a hub's page may come with code of its own; without this a terminal is asked.
_NO_CODE = {"trust_remote_code": False}


def conventions(module: Any) -> Conventions:
    """Logits at the head's stride; images in multiples of `patch_size` where that is one number."""
    patch = getattr(module.config, "patch_size", 1)
    return Conventions(multiple_of=patch if isinstance(patch, int) else 1)


def make(name: str, num_classes: int, options: dict[str, Any]) -> Made:
    """A network of transformers that gives logits of classes (`AutoModelForSemanticSegmentation`).

    Args:
        name: A model type for random weights, or a local folder or hub id for trained ones. A file
            with another number of classes gives all but its last layer, and the report says so.
        num_classes: Becomes `num_labels`.
        options: Settings of the config.
    """
    transformers = require("transformers", "hf")
    auto = require("transformers.models.auto.modeling_auto", "hf")
    types = auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
    trained = name not in types
    if trained and not Path(name).is_dir() and name.count("/") != 1:
        message = unknown("model type of transformers", name, types)
        raise ValueError(f"{message}, and no such folder or hub id")
    configs = transformers.AutoConfig
    find = partial(configs.from_pretrained, **_NO_CODE) if trained else configs.for_model
    try:
        known = find(name).to_dict()
        for key in options:
            if key not in known or key in _NOT_SETTINGS:
                raise ValueError(unknown(f"setting of {name}", key, {*known} - {*_NOT_SETTINGS}))
        config = find(name, **options)
        if trained and config.model_type not in types:
            raise ValueError(
                f"a {config.model_type} gives no logits of classes; expected {', '.join(types)}"
            )
        config.num_labels = num_classes
        kind = transformers.AutoModelForSemanticSegmentation
        if not trained:
            input = make_input("imagenet", getattr(config, "num_channels", None))
            return Made(kind.from_config(config), input, name, options)
        module, report = _load(kind, name, config)
    except Exception as error:  # OSError, ValueError, and those of a download or a config
        raise ValueError(f"transformers cannot build {name}: {cause(error)}") from error
    changed = config.to_diff_dict()
    kept = {key: value for key, value in changed.items() if key not in _NOT_SETTINGS}
    return Made(module, _normalisation(transformers, name), config.model_type, kept, report)


def _load(kind: Any, name: str, config: Any) -> tuple[nn.Module, LoadReport]:
    module, info = kind.from_pretrained(
        name,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **_NO_CODE,
    )
    mismatched = {key: (tuple(file), tuple(ours)) for key, file, ours in info["mismatched_keys"]}
    missing = sorted({*info["missing_keys"]} - {*mismatched})
    matched = [key for key in module.state_dict() if key not in mismatched and key not in missing]
    report = LoadReport(name, matched, missing, sorted(info["unexpected_keys"]), mismatched)
    return module, report


def _normalisation(transformers: Any, name: str) -> InputNormalisation:
    """That of the image processor saved with the weights."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, **_NO_CODE)
    except (OSError, ValueError):
        _log.warning("%s comes without its image processor: ImageNet's normalisation is used", name)
        return make_input("imagenet")
    normalised = processor.do_normalize
    factor = processor.rescale_factor if processor.do_rescale else 1.0
    return InputNormalisation(
        mean=processor.image_mean if normalised else (0.0, 0.0, 0.0),
        std=processor.image_std if normalised else (1.0, 1.0, 1.0),
        order="bgr" if getattr(processor, "do_flip_channel_order", False) else "rgb",
        scale=round(255 * factor, 6),
    )
