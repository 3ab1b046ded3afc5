"""The position network: reads the coordinates of a feature map's cells from its features."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segdistill.geometry import Cells

_IMAGES_PER_STEP = 2


class Readout(nn.Module):
    """A 3x3 convolution without padding to two channels, x and y, batch normalisation, sigmoid.

    Islam et al., "How Much Position Information Do Convolutional Neural Networks Encode?" (ICLR
    2020, https://arxiv.org/abs/2001.08248), who train one such network per coordinate.
    """

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        # Created without values: torch's own initialisation would draw from the global generator.
        # It needs no bias: batch normalisation has one.
        self.conv = nn.Conv2d(channels, 2, 3, bias=False, device="meta").to_empty(device="cpu")
        nn.init.xavier_uniform_(self.conv.weight, generator=generator)
        self.norm = nn.BatchNorm2d(2)

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        kernel: Float[Tensor, "2 c 3 3"] | None = None,
    ) -> Float[Tensor, "b 2 hi wi"]:
        """The x and y mask at the inner cells, in 0..1.

        Args:
            features: a map, at least 3x3.
            kernel: what it is read by, for features of another network: the readout's own kernel with a
                1x1 map folded in. None: the readout's own.
        """
        kind, own = features.dtype, self.conv.weight
        kernel = own if kernel is None else kernel.to(own)
        masks: Tensor = self.norm(convolved(features.to(own), kernel))
        return masks.sigmoid().to(kind)


def convolved(
    features: Float[Tensor, "b c h w"], kernel: Float[Tensor, "o c 3 3"]
) -> Float[Tensor, "b o hi wi"]:
    """A 3x3 convolution without padding to a few channels.

    As a 1x1 convolution to the nine products of each output channel, which are shifted and added: the
    features are read once, and 9·o channels fill the lanes of a processor that o = 2 leave empty.
    """
    out, channels = kernel.shape[:2]
    pointwise = kernel.permute(2, 3, 0, 1).reshape(9 * out, channels, 1, 1)
    products = F.conv2d(features, pointwise)
    products = products.reshape(len(features), 3, 3, out, *features.shape[2:])
    return _shifted_sum(_shifted_sum(products, -2), -1)


def _shifted_sum(products: Float[Tensor, "b 3 ..."], axis: int) -> Float[Tensor, "b ..."]:
    """The sum of three maps, each read one cell further along an axis than the one before."""
    size = products.shape[axis] - 2
    first, second, third = (one.narrow(axis, i, size) for i, one in enumerate(products.unbind(1)))
    return first + second + third


def new_readout(channels: int, seed: int) -> Readout:
    """A readout for this many channels; the same seed gives the same readout."""
    return Readout(channels, torch.Generator().manual_seed(seed))


def ramps(
    features: Float[Tensor, "b c h w"], cells: Cells | None = None
) -> Float[Tensor, "1 2 hi wi"]:
    """The true x and y mask of the inner cells: where they lie on the image, which spans 0..1.

    Args:
        features: a map, at least 3x3.
        cells: where its cells lie. None: corners on corners, so that inner cell i lies at
            (i + 1) / (side - 1).
    """
    size = (features.shape[2], features.shape[3])
    found = cells or Cells.by_corners(size, size)
    rows, columns = (
        (line.centres() / max(line.pixels - 1, 1)).clamp(0, 1)[1:-1].to(features)
        for line in (found.rows, found.columns)
    )
    x = columns.expand(len(rows), len(columns))
    y = rows[:, None].expand(len(rows), len(columns))
    return torch.stack([x, y])[None]


def fit_readout(
    batches: Sequence[Float[Tensor, "b c h w"]],
    steps: int,
    seed: int,
    rate: float = 0.01,
    cells: Cells | None = None,
) -> Readout:
    """Fit a readout to the ramps with Adam, two images per step and a cosine schedule down to 0.

    The channels are standardised for the fit, which is folded into the kernel afterwards: features
    of any scale are fitted alike and the result reads them as they are. The running statistics are
    finally taken over all batches, so that the frozen readout is the one that was fitted.

    Args:
        batches: feature maps, float32 or float64, larger than 3x3.
        steps: Adam steps.
        seed: of the initial weights and of the order.
        rate: initial learning rate.
        cells: as for `ramps`.

    Returns:
        The readout in `eval` mode, on the features' device.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, scale = _channel_statistics(batches)
    readout = Readout(batches[0].shape[1], generator).to(batches[0].device)
    optimizer = torch.optim.Adam(readout.parameters(), lr=rate)
    # A few images per step are enough, and many times cheaper than a batch of wide features.
    pieces = [piece for batch in batches for piece in torch.split(batch, _IMAGES_PER_STEP)]
    order: list[int] = []
    with torch.enable_grad():
        for step in range(steps):
            order = order or torch.randperm(len(pieces), generator=generator).tolist()
            piece = pieces[order.pop()]
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad()
            loss = (readout((piece - mean) * scale) - ramps(piece, cells)).square().mean()
            loss.backward()
            optimizer.step()
    return _settled(readout, batches, mean, scale)


def score(
    readout: Readout,
    batches: Sequence[Float[Tensor, "b c h w"]],
    cells: Cells | None = None,
) -> tuple[tuple[float, float], float]:
    """R² of the readout in x and in y over all cells of the batches, and its mean squared error."""
    error = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        wrong = (readout(batch) - ramps(batch, cells)).square()
        error += wrong.sum((0, 2, 3)).detach().cpu().double()
    spread, count = _ramp_spread(batches, cells)
    r2 = [1 - float(e / s) if s > 0 else 0.0 for e, s in zip(error, spread, strict=True)]
    return (r2[0], r2[1]), float(error.mean() / count)


def chance_error(batches: Sequence[Float[Tensor, "b c h w"]], cells: Cells | None = None) -> float:
    """Mean squared error of the best constant mask, about 1/2: about 1/12 on large maps."""
    spread, count = _ramp_spread(batches, cells)
    return float(spread.mean() / count)


def _ramp_spread(batches: Sequence[Tensor], cells: Cells | None) -> tuple[Tensor, int]:
    """Summed squared deviation of each ramp from its mean over all cells, and their number."""
    spread = torch.zeros(2, dtype=torch.float64)
    count = 0
    for batch in batches:
        truth = ramps(batch, cells).cpu().double()
        middle = truth.mean((0, 2, 3), keepdim=True)
        spread += (truth - middle).square().sum((0, 2, 3)) * len(batch)
        count += len(batch) * truth[0, 0].numel()
    return spread, count


def _channel_statistics(batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of each channel, `1 c 1 1`; 0 where it is constant."""
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)[:, None, None]
    variance = torch.stack([(batch - mean).square().mean((0, 2, 3)) for batch in batches]).mean(0)
    varies = variance > 1e-12 * mean.flatten().square().clamp_min(1e-12)
    scale = torch.where(varies, torch.where(varies, variance, 1.0).rsqrt(), 0.0)
    return mean[None], scale[None, :, None, None]


@torch.no_grad()
def _settled(readout: Readout, batches: Sequence[Tensor], mean: Tensor, scale: Tensor) -> Readout:
    conv, norm = readout.conv, readout.norm
    conv.weight.mul_(scale.to(conv.weight))
    # What the mean contributes is a constant, which the running mean, taken next, removes.
    norm.reset_running_stats()
    norm.momentum = None
    readout.train()
    for batch in batches:
        readout(batch)
    return readout.eval()
