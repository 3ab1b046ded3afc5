"""Exponential moving average of the student's weights: what is evaluated and saved in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Averages a network's weights over the steps of its training; false if the decay is 0.

    After each optimizer step every weight `w` updates its average, `a = d a + (1 - d) w`, which starts
    at the weights before step 1. At update `t`, counted from 0, `d = min(decay, (1 + t) / (10 + t))`, as
    in TensorFlow's `ExponentialMovingAverage(num_updates=t)`: the average spans about the last tenth of
    the steps until it spans `1 / (1 - decay)` of them, so that the random start is soon forgotten. A
    step that is skipped as non-finite is no update.

    Floating buffers are averaged like weights, unless they are not finite at the start (a mask of -inf),
    and integers such as batch norm's counters are those of the trained network. The mean of a layer's
    output is linear in the layer's weights, so averaged running statistics fit the averaged weights
    better than a copy, which belongs to the newest weights; this neglects that the layers before
    change, too. Averages are kept in float32 or more.

    `torch.optim.swa_utils.AveragedModel` has the same rule at a constant decay, but owns a deep copy of
    the network. Here the averages take the place of the weights for a while, so that hooks, compiled
    code, wrappers and whoever holds the network remain.

    Args:
        network: The network, on its device, with the weights of its start.
        decay: Upper limit of `d`, in [0, 1); 0: no average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._updates = 0
        self._averages: dict[str, Tensor] = {}
        if decay:
            self._averages = {
                name: _raised(value).clone()
                for name, value in self._weights().items()
                # The mean of two infinities, as in a mask of -inf, is NaN.
                if bool(value.isfinite().all())
            }

    def __bool__(self) -> bool:
        return bool(self._averages)

    def _weights(self) -> dict[str, Tensor]:
        """The floating entries of the network's state, which share its memory."""
        # Read each time, since a network may replace its buffers.
        return {
            name: value.detach()
            for name, value in self._network.state_dict().items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        if not self:
            return
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        own = self._weights()
        weights = [_raised(own[name]) for name in self._averages]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self._averages.values()), weights, self._updates)
        self._updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the network has the averages; afterwards its own weights, to the bit."""
        own = {name: value.clone() for name, value in self._weights().items()} if self else {}
        try:
            self.apply()
            yield
        finally:
            self._copy(own)

    def apply(self) -> None:
        """Give the network the averages for good."""
        self._copy(self._averages)

    def _copy(self, values: Mapping[str, Tensor]) -> None:
        weights = self._weights() if values else {}
        for name, value in values.items():
            weights[name].copy_(value)

    def named_averages(self) -> dict[str, Tensor]:
        """Each average by its name in messages."""
        return {f"the average of student.{name}": value for name, value in self._averages.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state for resuming."""
        return {"updates": self._updates, "averages": self._averages} if self else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values of `state_dict`."""
        if self:
            self._updates = state["updates"]
            for name, value in self._averages.items():
                value.copy_(state["averages"][name])


def _raised(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
