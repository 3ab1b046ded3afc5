"""A small plain network that learns from nothing within minutes on a CPU: the demo's teacher and student."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel, check_training_batch
from segdistill.models.input import InputNormalisation, make_input
from segdistill.models.layers.convolution import classifier, conv_norm_act, initialise


class Compact(SegmentationModel):
    """Full 3×3 convolutions at strides 2, 4 and 8, the image's mean beside the deepest level, a stride-4 skip.

    Our own design, from no paper. Depthwise networks train slowly from random weights, and encoders that
    start at stride 4 lose thin things in small images; this one does neither. Logits at stride 4.

    Taps: `logits`; `features`, the joined skip and context before the classifier; `context`, the deepest level.
    Any height and width.

    Args:
        num_classes: Channels of the logits.
        width: Channels at stride 2; twice as many at stride 4, four times at stride 8.
        depth: Convolutions at strides 4 and 8 after the one that halves the size.
        input: First operation; it says how many channels the images have.
    """

    def __init__(self, num_classes: int, width: int, depth: int, input: InputNormalisation) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = False, 1
        self.input = input
        self.stem = nn.Sequential(
            conv_norm_act(self.in_channels, width, kernel=3, stride=2),
            conv_norm_act(width, width, kernel=3),
        )
        self.middle = nn.Sequential(
            conv_norm_act(width, 2 * width, kernel=3, stride=2),
            *(conv_norm_act(2 * width, 2 * width, kernel=3) for _ in range(depth)),
        )
        self.deep = nn.Sequential(
            conv_norm_act(2 * width, 4 * width, kernel=3, stride=2),
            *(conv_norm_act(4 * width, 4 * width, kernel=3, dilation=2) for _ in range(depth)),
        )
        self.context = conv_norm_act(8 * width, 2 * width, kernel=3)
        self.join = conv_norm_act(4 * width, 4 * width)
        initialise(self)
        self.classifier = classifier(4 * width, num_classes)
        # There is no dropout, so the tap of the released losses is the same place.
        self.taps = {
            "logits": "",
            "features": "join",
            "features_released": "join",
            "context": "context",
        }

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        check_training_batch(self, images)
        skip = self.middle(self.stem(self.input(images)))
        deep = self.deep(skip)
        mean = deep.mean((-2, -1), keepdim=True).expand_as(deep)
        context = F.interpolate(
            self.context(torch.cat([deep, mean], dim=1)),
            skip.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        logits: Tensor = self.classifier(self.join(torch.cat([skip, context], dim=1)))
        return logits


def compact(
    num_classes: int,
    width: int = 12,
    depth: int = 2,
    input: str | dict[str, object] = "imagenet",
    in_channels: int = 3,
) -> Compact:
    """A small network for small images and quick trials; `width` (channels) and `depth` (blocks) set its size.

    See `Compact`, and `make_input` for `input` and `in_channels`.
    """
    return Compact(num_classes, width, depth, make_input(input, in_channels))
