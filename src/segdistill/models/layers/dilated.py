"""What OCNet, OCRNet and ANN have in common: a dilated deep-stem ResNet under a head of their own."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel, aux_is_wanted, convolved_cells, level_taps
from segdistill.models.input import InputNormalisation, InputSetting, make_input
from segdistill.models.layers.auxiliary import AuxiliaryHead
from segdistill.models.layers.convolution import classifier
from segdistill.models.layers.resnet import Bottleneck, DeepStemResNet, load_deep_stem


class DilatedNetwork(SegmentationModel):
    """Encoder at stride 8, context head, channel dropout, classifier; deep supervision from `layer3`.

    Taps: `logits`; `features`, the head's output; `features_released`, the same after the channel
    dropout; `aux`, the auxiliary logits; `layer1`..`layer4`, the encoder's levels.

    Any height and width from 16 on. Logits are to be resized with `align_corners=True`.

    Args:
        encoder: Its two deepest levels are what the head reads.
        context: Head; called with the second-deepest and the deepest level.
        features: Channels of the head's output.
        num_classes: Channels of the logits.
        aux: Whether there is an auxiliary head. It runs in training, or when its tap is open.
        dropout: Share of whole channels dropped before the classifiers in training.
        input: First operation.
    """

    def __init__(
        self,
        encoder: DeepStemResNet,
        context: nn.Module,
        features: int,
        num_classes: int,
        aux: bool,
        dropout: float,
        input: InputNormalisation,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 1
        self.input = input
        self.encoder = encoder
        self.context = context
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(features, num_classes)
        self.aux = AuxiliaryHead(encoder.channels[-2], num_classes, dropout) if aux else None
        self.taps = {"logits": "", "features": "context", "features_released": "dropout"}
        if aux:
            self.taps["aux"] = "aux"
        self.taps |= level_taps(encoder.levels)
        self.cells = convolved_cells(self.taps, encoder.reductions)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        levels = self.encoder(self.input(images))
        if self.aux is not None and aux_is_wanted(self, self.aux):
            self.aux(levels[-2])  # read by a hook on it
        logits: Tensor = self.classifier(self.dropout(self.context(levels[-2], levels[-1])))
        return logits


def build_dilated(
    head: Callable[[Sequence[int], int], nn.Module],
    num_classes: int,
    layers: Sequence[int],
    width: int,
    aux: bool,
    dropout: float,
    input: InputSetting,
    weights: str | None,
) -> DilatedNetwork:
    """A network on a deep-stem ResNet of bottlenecks, a quarter as wide as its deepest level.

    Args:
        head: Makes the context head from the encoder's channels and the width of its output (512 on
            a ResNet of full width).
        num_classes: As for `DilatedNetwork`, likewise `aux`, `dropout`, `input`.
        layers: As for `DeepStemResNet`, likewise `width`.
        weights: None, "imagenet" (timm's download, for ResNet-101 of full width), or a file.
    """
    encoder = DeepStemResNet(Bottleneck, layers, width)
    whole = (tuple(layers), width) == ((3, 4, 23, 3), 64)
    report = load_deep_stem(encoder, weights, "resnet101s" if whole else None)
    features = encoder.channels[-1] // 4
    normalisation = make_input("imagenet" if input is None else input)
    context = head(encoder.channels, features)
    model = DilatedNetwork(encoder, context, features, num_classes, aux, dropout, normalisation)
    model.weights_report = report
    return model
