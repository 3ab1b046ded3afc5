"""The peers' networks as written from their code: other names for the modules, plain forward passes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InPlaceABN(nn.Module):
    """In evaluation: normalise, scale by |weight| + eps, shift, activate."""

    def __init__(self, channels: int, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = slope
        self.weight, self.bias = (nn.Parameter(torch.ones(channels)) for _ in range(2))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            t[:, None, None] for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return F.leaky_relu(
            (x - mean) / (var + 1e-5).sqrt() * (weight.abs() + 1e-5) + bias, self.slope
        )


Norm = Callable[[int], nn.Module]


def conv(inside: int, out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, out, kernel, stride, kernel // 2 * dilation, dilation, bias=False)


class Block(nn.Module):
    def __init__(
        self,
        inside: int,
        width: int,
        stride: int,
        dilations: tuple[int, int],
        deep: bool,
        norm: Norm,
    ) -> None:
        super().__init__()
        out = width * 4 if deep else width
        one, two = dilations
        parts = (
            [(inside, width, 1), (width, width, 3, stride, one), (width, out, 1)]
            if deep
            else [(inside, width, 3, stride, one), (width, width, 3, 1, two)]
        )
        for number, part in enumerate(parts, start=1):
            self.add_module(f"conv{number}", conv(*part))
            self.add_module(f"bn{number}", norm(part[1]))
        self.last = len(parts)
        if stride != 1 or inside != out:
            self.downsample = nn.Sequential(conv(inside, out, 1, stride), norm(out))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.last + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = F.relu(y) if number < self.last else y
        return F.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Trunk(nn.Module):
    """A dilated ResNet; `style` says whose."""

    def __init__(
        self, style: str, layers: tuple[int, ...], deep: bool, width: int, norm: Norm
    ) -> None:
        super().__init__()
        self.style = style
        w = width // 2 if style == "mmseg" else width
        stem = [(3, w, 3, 2), (w, w, 3), (w, 2 * w, 3)]
        if style == "mmseg":
            self.stem = nn.Sequential()
            for part in stem:
                self.stem.extend([conv(*part), norm(part[1]), nn.ReLU()])
        else:
            for number, part in enumerate(stem, start=1):
                self.add_module(f"conv{number}", conv(*part))
                self.add_module(f"bn{number}", norm(part[1]))
        inside = 2 * w
        for n, (blocks, dilation) in enumerate(zip(layers, (1, 1, 2, 4), strict=True)):
            made = []
            for b in range(blocks):
                one = max(1, dilation // 2) if b == 0 and style != "skd" else dilation
                two = 1 if style == "mmseg" else dilation
                stride = 2 if (n, b) == (1, 0) else 1
                made.append(Block(inside, width * 2**n, stride, (one, two), deep, norm))
                inside = width * 2**n * (4 if deep else 1)
            self.add_module(f"layer{n + 1}", nn.Sequential(*made))
        self.out = inside

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.style == "mmseg":
            x = self.stem(x)
        else:
            for n in (1, 2, 3):
                x = F.relu(getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(x)))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=self.style == "skd")
        x = self.layer3(self.layer2(self.layer1(x)))
        return x, self.layer4(x)


class ConvModule(nn.Module):
    def __init__(self, inside: int, out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv, self.bn = conv(inside, out, kernel, dilation=dilation), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Head(nn.Module):
    """`PSPHead` or `ASPPHead`."""

    def __init__(self, kind: str, inside: int, width: int, classes: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "psp":
            self.psp_modules = nn.ModuleList(
                nn.Sequential(nn.AdaptiveAvgPool2d(bins), ConvModule(inside, width))
                for bins in (1, 2, 3, 6)
            )
        else:
            self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(inside, width))
            self.aspp_modules = nn.ModuleList(
                [
                    ConvModule(inside, width),
                    *(ConvModule(inside, width, 3, r) for r in (12, 24, 36)),
                ]
            )
        joined = inside + 4 * width if kind == "psp" else 5 * width
        self.bottleneck = ConvModule(joined, width, 3)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        def grown(y: Tensor) -> Tensor:
            return F.interpolate(y, x.shape[-2:], mode="bilinear", align_corners=False)

        if self.kind == "psp":
            maps = [x, *(grown(branch(x)) for branch in self.psp_modules)]
        else:
            maps = [grown(self.image_pool(x)), *(branch(x) for branch in self.aspp_modules)]
        return self.conv_seg(self.bottleneck(torch.cat(maps, 1)))


class FCNHead(nn.Module):
    def __init__(self, inside: int, classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvModule(inside, inside // 4, 3)])
        self.conv_seg = nn.Conv2d(inside // 4, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.convs[0](x))


class MMSeg(nn.Module):
    """mmsegmentation's PSPNet ("psp") or DeepLabV3 ("aspp") with its auxiliary head."""

    def __init__(
        self,
        kind: str,
        layers: tuple[int, ...] = (2, 2, 2, 2),
        deep: bool = False,
        width: int = 64,
        classes: int = 3,
    ) -> None:
        super().__init__()
        self.backbone = Trunk("mmseg", layers, deep, width, nn.BatchNorm2d)
        inside = self.backbone.out
        self.decode_head = Head(kind, inside, inside // 4, classes)
        self.auxiliary_head = FCNHead(inside // 2, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before, last = self.backbone(x)
        return self.decode_head(last), self.auxiliary_head(before)


class PSPModule(nn.Module):
    def __init__(self, inside: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), conv(inside, width, 1), norm(width))
            for bins in (1, 2, 3, 6)
        )
        self.bottleneck = nn.Sequential(
            conv(inside + 4 * width, width, 3), norm(width), nn.Dropout2d(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [
            F.interpolate(stage(x), x.shape[-2:], mode="bilinear", align_corners=True)
            for stage in self.stages
        ]
        return self.bottleneck(torch.cat([*maps, x], 1))


class ResPSPNet(Trunk):
    """The PSPNet of SKD and IFVD, in-place ABN throughout."""

    def __init__(
        self,
        layers: tuple[int, ...] = (2, 2, 2, 2),
        deep: bool = False,
        classes: int = 3,
        norm: Norm | None = None,
    ) -> None:
        super().__init__("skd", layers, deep, 64, norm or (lambda n: InPlaceABN(n, 1.0)))
        leaky = norm or InPlaceABN
        self.pspmodule = PSPModule(self.out, self.out // 4, leaky)
        self.head = nn.Conv2d(self.out // 4, classes, 1)
        half = self.out // 2
        self.dsn = nn.Sequential(
            nn.Conv2d(half, half // 2, 3, padding=1),
            leaky(half // 2),
            nn.Dropout2d(0.1),
            nn.Conv2d(half // 2, classes, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before, last = super().forward(x)
        return self.head(self.pspmodule(last)), self.dsn(before)


class _Branch(nn.Module):
    def __init__(self, name: str, *parts: nn.Module) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(*parts))
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(x)


def _norm_relu(out: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(out), nn.ReLU()]


class CIRKD(nn.Module):
    """CIRKD's DeepLabV3."""

    def __init__(
        self, layers: tuple[int, ...] = (2, 2, 2, 2), deep: bool = False, classes: int = 3
    ) -> None:
        super().__init__()
        self.pretrained = Trunk("cirkd", layers, deep, 64, nn.BatchNorm2d)
        inside, half, w = self.pretrained.out, self.pretrained.out // 2, 512
        aspp = nn.Module()
        aspp.b0 = nn.Sequential(conv(inside, w, 1), *_norm_relu(w))
        for n, rate in ((1, 12), (2, 24), (3, 36)):
            aspp.add_module(
                f"b{n}", _Branch("block", conv(inside, w, 3, dilation=rate), *_norm_relu(w))
            )
        aspp.b4 = _Branch("gap", nn.AdaptiveAvgPool2d(1), conv(inside, w, 1), *_norm_relu(w))
        aspp.project = nn.Sequential(conv(5 * w, w, 1), *_norm_relu(w), nn.Dropout(0.5))
        self.head = nn.Module()
        self.head.aspp = aspp
        self.head.block = nn.Sequential(
            conv(w, w, 3), *_norm_relu(w), nn.Dropout(0.1), nn.Conv2d(w, classes, 1)
        )
        self.auxlayer = _Branch(
            "block",
            conv(half, half // 4, 3),
            *_norm_relu(half // 4),
            nn.Dropout(0.1),
            nn.Conv2d(half // 4, classes, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before, last = self.pretrained(x)
        aspp = self.head.aspp
        maps = [branch(last) for branch in (aspp.b0, aspp.b1, aspp.b2, aspp.b3)]
        image = aspp.b4(last).expand_as(maps[0])
        return self.head.block(aspp.project(torch.cat([*maps, image], 1))), self.auxlayer(before)


def stirred(network: nn.Module) -> nn.Module:
    """Statistics and weights of the norms as after some training, negative weights among them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if hasattr(module, "running_mean"):
                shape = module.running_mean.shape
                module.running_mean.copy_(0.1 * torch.randn(shape, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
                module.weight.copy_(0.3 + torch.randn(shape, generator=generator))
                module.bias.copy_(0.1 * torch.randn(shape, generator=generator))
    return network.eval()
