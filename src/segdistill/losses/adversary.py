"""What a loss trains against the student: the joint between an adversarial loss and a training loop."""

import torch

from segdistill.losses.base import Loss


class Adversary(Loss):
    """Networks that a loss trains against the student, with an objective and an optimizer of their own.

    A loss that has one keeps it as `self.adversary` from `build` on and declares nothing else. For
    each batch, whoever trains the student then takes two steps:

    1. The student's step, through which the adversary's parameters are frozen (`requires_grad`
       False, as `build` leaves them): gradient passes through them to the student, and none is
       kept in them. The released codes let it accumulate and clear it before step 2, which is
       equivalent.
    2. One step of `optimizer` on `weight` times the adversary's value, its parameters unfrozen,
       at `learning_rate`. The adversary is called with what its loss was called with, by name
       and detached.

    Both are called in training mode. The adversary is part of the loss: its state is resumed with
    the loss's and never enters the student's file. It keeps the promises of any loss, except that
    its gradient goes to its own parameters.

    Attributes:
        weight: factor of its value; with plain gradient descent a factor of the learning rate.
    """

    weight: float = 1.0

    def optimizer(self, weight_decay: float) -> torch.optim.Optimizer:
        """An optimizer for the adversary's parameters.

        Args:
            weight_decay: the student's, for adversaries that share it.
        """
        raise NotImplementedError

    def learning_rate(self, progress: float) -> float:
        """The learning rate at a fraction of the training: 0 at the first step, below 1 at the last."""
        raise NotImplementedError
