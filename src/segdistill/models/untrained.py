"""A network with random weights in place of its trained ones, the same for everybody."""

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

_SEED = 0
_SIDE = 64
_COARSE = (1, 2, 4, 8, 16, 32)
"""Sides of the random maps that drawn images are enlarged from: from nearly even to nearly noise."""


def untrain(model: nn.Module, in_channels: int = 3) -> None:
    """Replace all weights of a network by random ones, drawn with a fixed seed; in place.

    A module that initialises itself (`reset_parameters`, as torch's layers do) does so. Any other
    parameter, such as a table of positions, gets its own entries in random order. The running
    statistics of batch norms are then those of smooth random images, without which a deep network of
    random weights would give almost nothing, or overflow. They are measured in float64 and rounded to
    8 bits, so that every machine gets the same network. Other buffers stay.

    Args:
        model: The network, on the CPU. Torch's global generator is left as it was.
        in_channels: Channels of its images.

    Raises:
        ValueError: It has batch norms and cannot compute in float64.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        drawn: set[int] = set()
        for module in model.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
                drawn |= {id(parameter) for parameter in module.parameters(recurse=False)}
        for parameter in model.parameters():
            if id(parameter) not in drawn:
                order = torch.randperm(parameter.numel())
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        _settle(model, _images(in_channels, int(getattr(model, "multiple_of", 1))))


def _images(channels: int, multiple_of: int) -> Tensor:
    """Two images of each coarseness, `b c h w` in 0..1."""
    side = -(-_SIDE // multiple_of) * multiple_of
    maps = (torch.rand(2, channels, coarse, coarse, dtype=torch.float64) for coarse in _COARSE)
    return torch.cat([F.interpolate(one, (side, side), mode="bilinear") for one in maps])


def _norms(model: nn.Module) -> Iterator[_BatchNorm]:
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            yield module


def _settle(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of batch norms to those of these images."""
    if next(_norms(model), None) is None:
        return
    measuring = deepcopy(model).double().eval()
    for norm in _norms(measuring):
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    try:
        measuring(images)
    except (RuntimeError, TypeError) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{type(model).__name__} cannot compute in float64 ({cause:.200}), in which the statistics of its "
            "batch norms are measured for random weights. Choose another network"
        ) from error
    for norm, measured in zip(_norms(model), _norms(measuring), strict=True):
        assert norm.running_mean is not None and measured.running_mean is not None
        assert norm.running_var is not None and measured.running_var is not None
        norm.running_mean.copy_(measured.running_mean.bfloat16())
        norm.running_var.copy_(measured.running_var.bfloat16())
