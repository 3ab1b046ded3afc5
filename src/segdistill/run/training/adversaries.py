"""What the losses train against the student, each with an optimiser of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from segdistill.config import TrainConfig
from segdistill.distillation.distiller import Distiller
from segdistill.losses import Adversary


@dataclass
class _Side:
    adversary: Adversary
    module: Any
    """the adversary as Fabric set it up, so that its gradient is averaged over the processes"""
    optimizer: Any
    seen: list[dict[str, Tensor]] = field(default_factory=list)
    """what its loss was called with since the last step, detached; one entry a part of the batch"""


class Adversaries:
    """Takes the adversaries' step after the student's; false where no loss has one.

    What an adversary is called with is read by a hook on its loss. Nothing of it is clipped: that is
    the student's business.

    Args:
        fabric: Device, precision and processes.
        distiller: Its dry pass is done, and it is set up already, so that the frozen adversaries are no
            part of what it trains.
        config: How the student is trained.
    """

    def __init__(self, fabric: Fabric, distiller: Distiller, config: TrainConfig) -> None:
        self.fabric, self.config = fabric, config
        self._sides: dict[str, _Side] = {}
        for name, term in distiller.method.terms.items():
            adversary = getattr(term.loss, "adversary", None)
            if adversary is None:
                continue
            adversary.requires_grad_(True)
            module, optimizer = fabric.setup(adversary, adversary.optimizer(config.weight_decay))
            adversary.requires_grad_(False)
            side = _Side(adversary, module, optimizer)
            term.loss.register_forward_hook(_reader(side), with_kwargs=True)
            self._sides[f"{name}_adversary"] = side

    def __bool__(self) -> bool:
        return bool(self._sides)

    @property
    def weights(self) -> dict[str, float]:
        """Factor of each adversary's value, by the name of its log lines: `<term>_adversary`."""
        return {name: side.adversary.weight for name, side in self._sides.items()}

    def backward(self) -> dict[str, Tensor]:
        """Gather the gradients of one step and give this process's part of the values, unweighted."""
        return {name: self._backward(side) for name, side in self._sides.items()}

    def _backward(self, side: _Side) -> Tensor:
        parts, side.seen = side.seen, []
        images = sum(len(inputs["student"]) for inputs in parts)
        side.adversary.requires_grad_(True)
        total = parts[0]["student"].new_zeros(())
        for index, inputs in enumerate(parts, start=1):
            fraction = len(inputs["student"]) / images
            with self.fabric.no_backward_sync(side.module, enabled=index < len(parts)):
                value = side.module(**inputs)
                self.fabric.backward(side.adversary.weight * value * fraction)
            total = total + value.detach() * fraction
        side.adversary.requires_grad_(False)
        # All processes have as many images, and each shows its part of the value.
        return total / self.fabric.world_size

    def forget(self) -> None:
        """Drop what a step that is left out had gathered."""
        for side in self._sides.values():
            side.seen = []
            side.optimizer.zero_grad(set_to_none=True)

    def step(self, step: int) -> None:
        """Change the parameters by what `backward` gathered, at the rate of this step."""
        for side in self._sides.values():
            rate = side.adversary.learning_rate(step / self.config.steps)
            for group in side.optimizer.param_groups:
                group["lr"] = rate
            side.optimizer.step()
            side.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The optimisers' state; the networks' own is the distiller's."""
        return {name: side.optimizer.state_dict() for name, side in self._sides.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for name, side in self._sides.items():
            side.optimizer.load_state_dict(state[name])


def _reader(side: _Side) -> Any:
    def hook(loss: nn.Module, _args: Any, inputs: dict[str, Any], _value: Any) -> None:
        if loss.training:
            side.seen.append({name: tensor.detach() for name, tensor in inputs.items()})

    return hook
