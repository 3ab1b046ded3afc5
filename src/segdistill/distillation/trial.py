"""Losses of somebody's own are tried on the first crops, so that one that cannot train is refused before long work."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from segdistill.distillation.distiller import Distiller, untouched


def try_losses(distiller: Distiller, images: Tensor, labels: Tensor) -> None:
    """Call each loss that is not of this package once, on a copy; nothing is trained or changed.

    Losses that are prepared, or given the pixels of each class, before step 1 are left out, and so are those that
    need more images than there are.

    Args:
        distiller: After its dry pass, on the device of the images.
        images: As for `Distiller.forward`.
        labels: As for `Distiller.forward`.

    Raises:
        ValueError: A loss fails, gives no real number, has parameters that would not be trained, or passes no
            gradient on to the student. The message names the term.
    """
    waiting = distiller.terms_to_prepare()
    losses = {
        name: term.loss
        for name, term in distiller.method.terms.items()
        if not type(term.loss).__module__.startswith("segdistill.")
        and name not in waiting
        and getattr(term.loss, "least_images", 1) <= len(images)
        and not getattr(term.loss, "wants_class_pixels", False)
    }
    if not losses:
        return
    with torch.random.fork_rng(devices=[]):
        given = distiller.arguments(images, labels, losses)
        for name, loss in losses.items():
            if reason := _untrainable(name, loss, given[name]):
                raise ValueError(f"term {name!r}: {reason}")


def _untrainable(name: str, loss: nn.Module, given: Mapping[str, Tensor]) -> str:
    """Why a loss cannot train the student; "" if it can, cannot be copied, or finds nothing to learn in these crops."""
    if unshaped := [key for key, parameter in loss.named_parameters() if is_lazy(parameter)]:
        return f"its loss has parameters without a shape ({unshaped[0]}). {_MAKE}"
    try:
        copied = deepcopy(loss)
    except Exception:  # of a loss that holds an open file, say
        return ""
    student = given["student"].detach().requires_grad_() if "student" in given else None
    # A clone, as a leaf could not be changed in place, which has a message of its own.
    arguments = dict(given) if student is None else {**given, "student": student.clone()}
    try:
        with untouched(name, arguments):
            value = copied(**arguments)
    except torch.OutOfMemoryError:
        raise
    except (
        RuntimeError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        AssertionError,
    ) as error:
        if "device" in str(error):  # its constants are where it trains; the crops are not there yet
            return ""
        return f"its loss fails on the first crops ({_in_one_line(error)}). Change its forward"
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        return f"its loss gives {_in_words(value)}; expected one real number as a tensor. Return a mean or a sum"
    made = dict(copied.named_parameters()).keys() - dict(loss.named_parameters()).keys()
    if made:
        return f"its loss makes parameters in forward ({min(made)}), which would not be trained. {_MAKE}"
    return _without_gradient(value, student)


_MAKE = "Make them in __init__, or in build(student_shape, teacher_shape)"


def _without_gradient(value: Tensor, student: Tensor | None) -> str:
    gradient = None
    if value.requires_grad and student is not None:
        try:
            (gradient,) = torch.autograd.grad(value, student, allow_unused=True)
        except RuntimeError as error:
            return f"its loss fails when its gradient is computed ({_in_one_line(error)}). Change its forward"
    # A plain 0 is what a loss may give where no pixel of these crops counts.
    if gradient is not None or (float(value.detach()) == 0 and not value.requires_grad):
        return ""
    return (
        "no gradient of its loss reaches the student, which would learn nothing from it. Compute it from `student` "
        "in torch, without detach(), no_grad() or argmax(), or set its weight to 0"
    )


def _in_words(value: object) -> str:
    if isinstance(value, Tensor):
        shape = f" of shape {tuple(value.shape)}" if value.ndim else ""
        return f"{str(value.dtype).removeprefix('torch.')}{shape}"
    return "None" if value is None else f"a {type(value).__name__}"


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
