"""DDRNet (Pan et al., 2021, https://arxiv.org/abs/2101.06085): two branches that exchange what they have."""

from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import aux_is_wanted, check_training_batch
from segdistill.models.input import InputSetting, make_input
from segdistill.models.layers.aggregation import AggregationPyramid, Branched, bilinear
from segdistill.models.layers.convolution import conv_norm_act
from segdistill.models.layers.residual import basic_layer, strided_stem, widening


class Exchange(nn.Module):
    """Adds each branch to the other: the fine one by strided 3×3, the coarse one resized.

    Args:
        coarse_channels: Of the branch at the larger stride.
        fine_channels: Of the branch at stride 8.
        widths: Channels after each strided 3×3; the last are `coarse_channels`.
    """

    def __init__(self, coarse_channels: int, fine_channels: int, widths: list[int]) -> None:
        super().__init__()
        self.up = conv_norm_act(coarse_channels, fine_channels)[:2]
        steps = zip([fine_channels, *widths], widths, strict=False)
        down = [layer for step in steps for layer in conv_norm_act(*step, kernel=3, stride=2)]
        self.down = nn.Sequential(*down[:-1])

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        up = bilinear(self.up(coarse.relu()), fine)
        return coarse + self.down(fine.relu()), fine + up


class DDRNet(Branched):
    """DDRNet-23; logits at stride 8.

    As released, with the authors' biases in the stem, but for one rule: where the image is no multiple
    of 8, the coarse branch is resized to the fine one, which rounds up.

    Taps: `logits`; `features`, what the classifier reads, and `features_released`, the same, since there
    is no dropout; `context`, the pyramid's output at stride 64; `aux`, the head on the fine branch after
    the first exchange. Any height and width.

    Args:
        num_classes: Channels of the logits.
        width: Of the stem; 32 is DDRNet-23-slim, 64 is DDRNet-23.
        head_width: Channels that the classifiers read; 64 for the slim network, 128 for the other.
        aux: Whether there is an auxiliary head. It runs in training, or when its tap is open.
        input: First operation.
    """

    def __init__(
        self, num_classes: int, width: int, head_width: int, aux: bool, input: InputSetting
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = False, 1
        self.input = make_input("imagenet" if input is None else input)
        fine = 2 * width
        self.stem = strided_stem(self.in_channels, width)
        self.layer1 = basic_layer(width, width)
        self.layer2 = basic_layer(width, fine, stride=2)
        self.coarse3 = basic_layer(fine, 4 * width, stride=2)
        self.coarse4 = basic_layer(4 * width, 8 * width, stride=2)
        self.coarse5 = widening(8 * width, 8 * width, stride=2)
        self.fine3, self.fine4 = basic_layer(fine, fine), basic_layer(fine, fine)
        self.fine5 = widening(fine, fine)
        self.exchange3 = Exchange(4 * width, fine, [4 * width])
        self.exchange4 = Exchange(8 * width, fine, [4 * width, 8 * width])
        self.context = AggregationPyramid(16 * width, 128, 4 * width)
        self.add_heads(4 * width, fine, head_width, num_classes, aux)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        check_training_batch(self, images)
        x = self.layer2(self.layer1(self.stem(self.input(images))).relu()).relu()
        coarse, fine = self.exchange3(self.coarse3(x), self.fine3(x))
        if self.aux is not None and aux_is_wanted(self, self.aux):
            self.aux(fine)  # read by a hook on it
        coarse, fine = self.exchange4(self.coarse4(coarse.relu()), self.fine4(fine.relu()))
        context = self.context(self.coarse5(coarse.relu()))
        fine = self.fine5(fine.relu())
        logits: Tensor = self.classifier(self.features(fine + bilinear(context, fine)))
        return logits


def ddrnet23_slim(
    num_classes: int,
    *,
    width: int = 32,
    head_width: int = 64,
    aux: bool = True,
    input: InputSetting = None,
) -> DDRNet:
    """DDRNet-23-slim; `width=64` and `head_width=128` make it DDRNet-23. Without pretrained weights."""
    return DDRNet(num_classes, width, head_width, aux, input)
