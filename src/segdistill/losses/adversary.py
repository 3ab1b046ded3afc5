"""What a loss trains against the student: the joint between an adversarial loss and a training loop."""

import torch

from segdistill.losses.base import Loss


class Adversary(Loss):
    """Networks that a loss trains against the student, with an objective and an optimiser of their own.

    A loss that has one keeps it as `self.adversary` from `build` on. That is all it declares; who
    trains the student then owes the adversary, for each batch:

    1. The student's step, through which the adversary's parameters are frozen (`requires_grad`
       False, as `build` leaves them): gradient passes through them to the student and none stays
       in them. Released codes let it gather and clear it before step 2, which is the same.
    2. One step of `optimizer` on `weight` times the adversary's value, its parameters thawed,
       at `learning_rate`. The adversary is called with what its loss was called with, by name
       and detached.

    Both are called in training mode. The adversary is part of the loss: its state is resumed with
    the loss's and never enters the student's file. It promises what any loss promises, but that its
    gradient goes to its own parameters.

    Attributes:
        weight: factor of its value; with plain gradient descent a factor of the learning rate.
    """

    weight: float = 1.0

    def optimizer(self, weight_decay: float) -> torch.optim.Optimizer:
        """An optimiser of the adversary's parameters.

        Args:
            weight_decay: the student's, for those that take it over.
        """
        raise NotImplementedError

    def learning_rate(self, progress: float) -> float:
        """The rate at a share of the training, from 0 at the first step to below 1 at the last."""
        raise NotImplementedError
