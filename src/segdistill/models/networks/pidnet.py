"""PIDNet (Xu et al., CVPR 2023, https://arxiv.org/abs/2206.02066): branches for detail, context and boundaries."""

from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import aux_is_wanted, check_training_batch
from segdistill.models.input import InputSetting, make_input
from segdistill.models.layers.aggregation import AggregationPyramid, Branched, bilinear
from segdistill.models.layers.convolution import conv_norm_act
from segdistill.models.layers.residual import basic, basic_layer, strided_stem, widening


class AttentionGuidedFusion(nn.Module):
    """Detail and resized context, weighed per pixel by how alike their embeddings are (Pag).

    Args:
        coarse_channels: Of the context.
        channels: Of the detail and of the result.
    """

    def __init__(self, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.compress = conv_norm_act(coarse_channels, channels)[:2]
        self.embed_coarse = conv_norm_act(channels, channels // 2)[:2]
        self.embed_fine = conv_norm_act(channels, channels // 2)[:2]

    def forward(
        self, fine: Float[Tensor, "b c h w"], coarse: Float[Tensor, "b d i j"]
    ) -> Float[Tensor, "b c h w"]:
        coarse = self.compress(coarse)
        alike = self.embed_fine(fine) * bilinear(self.embed_coarse(coarse), fine)
        share = alike.sum(1, keepdim=True).sigmoid()
        fused: Tensor = (1 - share) * fine + share * bilinear(coarse, fine)
        return fused


class BoundaryGuidedFusion(nn.Module):
    """Detail at boundaries, context inside (Light-Bag)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = conv_norm_act(channels, channels)[:2]
        self.inside = conv_norm_act(channels, channels)[:2]

    def forward(
        self,
        detail: Float[Tensor, "b c h w"],
        context: Float[Tensor, "b c h w"],
        boundary: Float[Tensor, "b c h w"],
    ) -> Float[Tensor, "b c h w"]:
        share = boundary.sigmoid()
        fused: Tensor = self.detail(detail + (1 - share) * context) + self.inside(
            context + share * detail
        )
        return fused


class PIDNet(Branched):
    """PIDNet-S and -M; logits at stride 8.

    As deployed by the authors. In training they add a boundary head and two losses that read boundary
    labels; these are left out, so the boundary branch learns from the segmentation alone.

    Taps: `logits`; `features`, what the classifier reads, and `features_released`, the same, since there
    is no dropout; `context`, the pyramid's output at stride 64; `aux`, the head on the detail branch after
    its first fusion. Any height and width.

    Args:
        num_classes: Channels of the logits.
        width: Of the stem; 32 is PIDNet-S, 64 is PIDNet-M.
        aux: Whether there is an auxiliary head. It runs in training, or when its tap is open.
        input: First operation.
    """

    def __init__(self, num_classes: int, width: int, aux: bool, input: InputSetting) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = False, 1
        self.input = make_input("imagenet" if input is None else input)
        fine = 2 * width
        self.stem = strided_stem(self.in_channels, width)
        self.layer1 = basic_layer(width, width)
        self.layer2 = basic_layer(width, fine, stride=2)
        self.context3 = basic_layer(fine, 4 * width, blocks=3, stride=2)
        self.context4 = basic_layer(4 * width, 8 * width, blocks=3, stride=2)
        self.context5 = nn.Sequential(
            widening(8 * width, 8 * width, stride=2), widening(16 * width, 8 * width)
        )
        self.detail3, self.detail4 = basic_layer(fine, fine), basic_layer(fine, fine)
        self.detail5 = widening(fine, fine)
        self.fuse3 = AttentionGuidedFusion(4 * width, fine)
        self.fuse4 = AttentionGuidedFusion(8 * width, fine)
        self.boundary3, self.boundary4 = basic(fine, width), widening(width, width)
        self.boundary5 = widening(fine, fine)
        self.difference3 = conv_norm_act(4 * width, width, kernel=3)[:2]
        self.difference4 = conv_norm_act(8 * width, fine, kernel=3)[:2]
        self.context = AggregationPyramid(16 * width, 96, 4 * width, parallel=True)
        self.fuse5 = BoundaryGuidedFusion(4 * width)
        self.add_heads(4 * width, fine, 128, num_classes, aux)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        check_training_batch(self, images)
        x = self.layer2(self.layer1(self.stem(self.input(images))).relu()).relu()
        detail, boundary = self.detail3(x), self.boundary3(x)
        x = self.context3(x).relu()
        detail = self.fuse3(detail, x)
        boundary = boundary + bilinear(self.difference3(x), boundary)
        if self.aux is not None and aux_is_wanted(self, self.aux):
            self.aux(detail)  # read by a hook on it
        x = self.context4(x).relu()
        detail = self.fuse4(self.detail4(detail.relu()), x)
        boundary = self.boundary4(boundary.relu())
        boundary = boundary + bilinear(self.difference4(x), boundary)
        detail, boundary = self.detail5(detail.relu()), self.boundary5(boundary.relu())
        context = bilinear(self.context(self.context5(x)), detail)
        logits: Tensor = self.classifier(self.features(self.fuse5(detail, context, boundary)))
        return logits


def pidnet_s(
    num_classes: int, *, width: int = 32, aux: bool = True, input: InputSetting = None
) -> PIDNet:
    """PIDNet-S; `width=64` makes it PIDNet-M. Without pretrained weights."""
    return PIDNet(num_classes, width, aux, input)
