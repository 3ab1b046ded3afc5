"""Train the critics of losses against the student, each with its own optimizer."""

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
    """the adversary as set up by Fabric, which averages its gradient over the processes"""
    optimizer: Any
    seen: list[dict[str, Tensor]] = field(default_factory=list)
    """detached inputs of its loss since the last step, one entry per part of the batch"""


class Adversaries:
    """Steps the adversaries after the student; false if no loss has one.

    A hook on each loss records the adversary's inputs. Gradient clipping applies only to the student.

    Args:
        fabric: Device, precision and processes.
        distiller: Distiller after its dry pass and Fabric's setup, so that the frozen adversaries are not
            among the parameters it trains.
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
        """Accumulate the gradients of one step; return this process's part of the unweighted values."""
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
        """Drop the inputs and gradients of a skipped step."""
        for side in self._sides.values():
            side.seen = []
            side.optimizer.zero_grad(set_to_none=True)

    def step(self, step: int) -> None:
        """Update the parameters with the gradients of `backward`, at this step's learning rate."""
        for side in self._sides.values():
            rate = side.adversary.learning_rate(step / self.config.steps)
            for group in side.optimizer.param_groups:
                group["lr"] = rate
            side.optimizer.step()
            side.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizers; the networks' state is saved with the distiller."""
        return {name: side.optimizer.state_dict() for name, side in self._sides.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the optimizers from a state."""
        for name, side in self._sides.items():
            side.optimizer.load_state_dict(state[name])


def _reader(side: _Side) -> Any:
    def hook(loss: nn.Module, _args: Any, inputs: dict[str, Any], _value: Any) -> None:
        if loss.training:
            side.seen.append({name: tensor.detach() for name, tensor in inputs.items()})

    return hook
