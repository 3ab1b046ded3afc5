"""What is not finite, found before it spoils the weights and every later checkpoint."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segdistill.distillation.distiller import Distiller
from segdistill.distillation.taps import first_tensor


class NonFiniteLoss(ValueError):
    """A term, a gradient or a weight is infinite or NaN."""


def nonfinite_in_words(values: Mapping[str, float]) -> str:
    """The terms whose values are not finite."""
    bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    return ", ".join(bad) or "a term of another process"


def check_gradient(distiller: Distiller, step: int, files: Sequence[str]) -> None:
    """Refuse a gradient that would corrupt the weights, and with them every later checkpoint.

    Args:
        distiller: Its parameters have the gradients.
        step: The step that they are of, from 1.
        files: Names of the images, for the message.

    Raises:
        NonFiniteLoss: A gradient, or the norm of all, is not finite.
    """
    gradients = [p.grad for p in distiller.parameters() if p.grad is not None]
    if not gradients or bool(torch.isfinite(nn.utils.get_total_norm(gradients))):
        return
    named = distiller.named_parameters()
    bad = [n for n, p in named if p.grad is not None and not bool(p.grad.isfinite().all())]
    where = f"of {bad[0]}" if bad else "as a whole"
    raise NonFiniteLoss(
        f"step {step}: the gradient {where} is not finite on {', '.join(files)}. Lower train.lr, set "
        "train.clip or train.skip_nonfinite, or inspect these files; the last checkpoint is kept"
    )


def not_finite(tensors: Mapping[str, Any]) -> list[str]:
    """Names of the floating tensors with a value that is infinite or NaN."""
    state = {
        name: value
        for name, value in tensors.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    if bool(torch.stack([torch.isfinite(value).all() for value in state.values()]).all()):
        return []
    return [name for name, value in state.items() if not bool(torch.isfinite(value).all())]


def check_state(tensors: Mapping[str, Any], step: int, but: Collection[str] = ()) -> None:
    """Refuse to save weights, running statistics or averages of them that are not finite.

    Args:
        tensors: The state.
        step: The step that it is of.
        but: Names of those that were not finite before step 1, such as a mask of -inf.

    Raises:
        NonFiniteLoss: One is not; up to three are named.
    """
    bad = [name for name in not_finite(tensors) if name not in but]
    if not bad:
        return
    raise NonFiniteLoss(
        f"step {step}: {', '.join(bad[:3])}{' and more' * (len(bad) > 3)} not finite. Lower train.lr or set "
        "train.clip; the last checkpoint is kept"
    )


@torch.no_grad()
def first_nonfinite(distiller: Distiller, images: Tensor, own: Tensor) -> str:
    """Name the first layer of student or teacher with a non-finite output, to append to a message.

    Args:
        distiller: Student and teacher.
        images: What the teacher sees, B x 3 x H x W.
        own: What the student sees.
    """
    if not bool(torch.isfinite(images).all()):
        return "; the images themselves are not finite"
    networks = {"student": distiller.student, "teacher": distiller.teacher}
    for (owner, model), seen in zip(networks.items(), (own, images), strict=True):
        layer = None if model is None else _nonfinite_layer(model, seen)
        if layer is not None:
            return f"; the first layer that is not finite is {layer or 'the output'} of the {owner}"
    return ""


def _nonfinite_layer(model: nn.Module, images: Tensor) -> str | None:
    """Path of the first module with a non-finite output, in order of computation."""
    found: list[str] = []

    def look(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None and not found and not bool(torch.isfinite(tensor).all()):
                found.append(path)

        return hook

    hooks = [module.register_forward_hook(look(path)) for path, module in model.named_modules()]
    training = model.training
    try:
        model.eval()
        model(images)
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()
    return found[0] if found else None
