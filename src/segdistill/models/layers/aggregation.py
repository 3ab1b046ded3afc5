"""What networks of several branches share: pyramid pooling at stride 64, and heads that normalise first."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel
from segdistill.models.layers.convolution import classifier, initialise

# Kernel, stride and padding of the three local means; the fourth is the mean of the whole map.
_MEANS = ((5, 2, 2), (9, 4, 4), (17, 8, 8))


def norm_act_conv(inside: int, out: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """Batch norm, ReLU and a convolution without bias."""
    return nn.Sequential(
        nn.BatchNorm2d(inside),
        nn.ReLU(inplace=True),
        nn.Conv2d(inside, out, kernel, padding=kernel // 2, groups=groups, bias=False),
    )


class GlobalMean(nn.Module):
    """The mean of each channel, as a 1×1 map."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        return x.mean((-2, -1), keepdim=True)


class AggregationPyramid(nn.Module):
    """Means of a map at four scales beside the map itself, joined by 1×1 convolutions.

    Args:
        in_channels: Of the map.
        width: Channels of each scale.
        out_channels: Of the result.
        parallel: False: each scale is added to the one before and convolved, one after the other (DAPPM
            of DDRNet). True: each is added to the map, and one grouped convolution
            takes all four (PAPPM of PIDNet).
    """

    def __init__(
        self, in_channels: int, width: int, out_channels: int, parallel: bool = False
    ) -> None:
        super().__init__()
        self.own = norm_act_conv(in_channels, width)
        means: list[nn.Module] = [nn.AvgPool2d(*sizes) for sizes in _MEANS]
        self.scales = nn.ModuleList(
            nn.Sequential(mean, norm_act_conv(in_channels, width))
            for mean in (*means, GlobalMean())
        )
        self.parallel = parallel
        self.process = (
            norm_act_conv(4 * width, 4 * width, kernel=3, groups=4)
            if parallel
            else nn.ModuleList(norm_act_conv(width, width, kernel=3) for _ in self.scales)
        )
        self.join = norm_act_conv(5 * width, out_channels)
        self.shortcut = norm_act_conv(in_channels, out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        own = self.own(x)
        means = [bilinear(scale(x), own) for scale in self.scales]
        found = self._together(own, means) if self.parallel else self._in_turn(own, means)
        joined: Tensor = self.join(torch.cat([own, *found], 1)) + self.shortcut(x)
        return joined

    def _in_turn(self, own: Tensor, means: list[Tensor]) -> list[Tensor]:
        found = [own]
        for mean, process in zip(means, self.process, strict=True):
            found.append(process(mean + found[-1]))
        return found[1:]

    def _together(self, own: Tensor, means: list[Tensor]) -> list[Tensor]:
        return [self.process(torch.cat([mean + own for mean in means], 1))]


class PreActivatedHead(nn.Module):
    """Batch norm, ReLU, 3×3 convolution, batch norm, ReLU; then the classifier.

    Args:
        in_channels: Of the map that it reads.
        width: Channels that the classifier reads.
        num_classes: Of the logits.
    """

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            norm_act_conv(in_channels, width, kernel=3), nn.BatchNorm2d(width), nn.ReLU()
        )
        initialise(self)
        self.classifier = classifier(width, num_classes)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        logits: Tensor = self.classifier(self.features(x))
        return logits


class Branched(SegmentationModel):
    """A network of several branches whose pyramid, at stride 64, is `context`."""

    features: nn.Module
    classifier: nn.Module
    aux: nn.Module | None

    def add_heads(self, coarse: int, fine: int, width: int, num_classes: int, aux: bool) -> None:
        """Initialise what is there, and add the heads, `taps` and `cells`.

        Args:
            coarse: Channels of the joined branches.
            fine: Channels of the branch that the auxiliary head reads.
            width: Channels that the classifiers read.
            num_classes: Of the logits.
            aux: Whether there is an auxiliary head.
        """
        initialise(self)
        head = PreActivatedHead(coarse, width, num_classes)
        self.features, self.classifier = head.features, head.classifier
        self.aux = PreActivatedHead(fine, width, num_classes) if aux else None
        taps = ("features", "context", *(["aux"] if aux else []))
        # There is no dropout, so the tap of the released losses is the same place.
        self.taps = {"logits": "", "features_released": "features", **{tap: tap for tap in taps}}
        self.cells = {"context": (64, 0)}


def bilinear(x: Tensor, like: Tensor) -> Tensor:
    """Resized to the height and width of another map, pixels as areas."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
