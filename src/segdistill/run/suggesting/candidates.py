"""The networks that are measured: which ones, what each costs, and why one cannot be measured."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.config import ModelConfig
from segdistill.data.dataset import generated_palette
from segdistill.names import shortened
from segdistill.run.evaluation import Size
from segdistill.run.evaluation.profile import Profile, profile
from segdistill.run.networks import build_student
from segdistill.run.shipping.onnx_file import Deployed, file_info

_log = logging.getLogger(__name__)

BUILT_IN = (
    "compact",
    "enet",
    "erfnet",
    "espnet_c",
    "espnet",
    "espnetv2",
    "icnet",
    "ddrnet23_slim",
    "stdc1",
    "pidnet_s",
    "pspnet_r18_half",
    "pspnet_r18",
    "pspnet_mobilenet_v2",
    "deeplabv3_r18",
)
"""The real-time networks of this package."""

FROM_TIMM = (
    "deeplabv3plus:mobilenetv3_small_100",
    "deeplabv3plus:mobilenetv3_large_100",
    "deeplabv3plus:regnety_004",
    "deeplabv3plus:resnet18",
    "pspnet:mobilenetv2_100",
)
"""Encoders of timm with a head of this package."""

PRETRAINED = ("weights", "weights_backbone")


class AtPixels(nn.Module):
    """A network whose logits are resized to the pixels of its images, as in evaluation."""

    def __init__(self, model: nn.Module, align_corners: bool) -> None:
        super().__init__()
        self.model, self.align_corners = model, align_corners

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return F.interpolate(
            self.model(images),
            images.shape[-2:],
            mode="bilinear",
            align_corners=self.align_corners,
        )


@dataclass(frozen=True)
class Candidate:
    """A network that is measured.

    Attributes:
        label: Its name in the table.
        config: How a recipe names it.
        deployed: What a file of it computes: class ids at the pixels. None: it cannot be built or exported.
        cost: Its parameters and multiply-adds at the size; None as above.
        reason: Why it cannot be measured, in one line.
    """

    label: str
    config: ModelConfig
    deployed: Deployed | None = field(default=None, repr=False)
    cost: Profile | None = None
    reason: str = ""

    def failed(self, error: Exception) -> "Candidate":
        """The same candidate, which cannot be measured, with the reason."""
        text = " ".join(str(error).split()) or "no message"
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = shortened(kind + text, 300)
        _log.warning("%s is not measured: %s", self.label, reason)
        return replace(self, deployed=None, reason=reason)


def listed(
    own: ModelConfig | None, names: Sequence[str], built_in: bool, channels: int
) -> list[Candidate]:
    """The candidates, not built yet: the recipe's student first, then the user's, then the listed ones.

    Args:
        own: The student of the recipe, if there is one.
        names: Names of the user's candidates, as `student.model` of a recipe.
        built_in: Add `BUILT_IN` and `FROM_TIMM`.
        channels: Channels of the images; the listed networks are built for as many.

    Raises:
        ValueError: There are none.
    """
    ours = [*BUILT_IN, *FROM_TIMM] if built_in else []
    found = [] if own is None else [Candidate(f"{own.model} (recipe)", own)]
    options = {} if channels == 3 else {"in_channels": channels}
    for name in dict.fromkeys([*names, *ours]):
        config = ModelConfig(name, options=dict(options))
        if own is None or own != config:
            found.append(Candidate(name, config))
    if not found:
        raise ValueError(
            "suggest: there are no candidates. Name some with --candidates, or leave out --builtin false"
        )
    return found


def built(candidate: Candidate, classes: int, size: Size) -> Candidate:
    """The candidate with its network and cost, or with the reason why it cannot be built."""
    try:
        model = build_student(_untrained(candidate.config), classes, seed=0).cpu().eval()
        names = [str(number) for number in range(classes)]
        info = file_info(model, names, generated_palette(classes), size, False, True)
        cost = profile(model, size, latency=False)
        deployed = Deployed(AtPixels(model, info.align_corners), info)
    except Exception as error:  # whatever a user's own network raises
        return candidate.failed(error)
    return replace(candidate, deployed=deployed.eval(), cost=cost)


def _untrained(config: ModelConfig) -> ModelConfig:
    """Without weights, on which no figure depends, so that none need be at hand or downloaded."""
    # A dotted path, whose options are its own; names of encoders may have dots, too.
    own = "." in config.model and ":" not in config.model
    options = {k: v for k, v in config.options.items() if own or k not in PRETRAINED}
    return replace(config, weights=None, options=options)
