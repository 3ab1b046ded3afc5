"""What a foreign network returns: where its logits are, and how they are made of its final activation."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

FinalActivation = Literal["none", "softmax", "log_softmax", "sigmoid"]
FINAL_ACTIVATIONS: tuple[str, ...] = get_args(FinalActivation)
_DEEPEST = 4


def candidates(output: Any, num_classes: int) -> dict[str, Tensor]:
    """The tensors of an output that may be logits, by their path in it: "", "out", "1", "heads.0".

    They are `b k h w`, or of one channel where two classes have none with two.
    """
    found = dict(_tensors(output))
    fitting = {p: t for p, t in found.items() if t.ndim == 4 and t.shape[1] == num_classes}
    if not fitting and num_classes == 2:
        return {p: t for p, t in found.items() if t.ndim == 4 and t.shape[1] == 1}
    return fitting


def logits_path(output: Any, num_classes: int, declared: str | None = None) -> str:
    """The path of the logits in what a network returned.

    Args:
        output: What it returned.
        num_classes: Channels of the logits; 2 where there may be one.
        declared: Their path; it need not exist where only one tensor can be meant, as for a network that
            returns several in training and one in evaluation.

    Raises:
        ValueError: There are no logits there.
    """
    path = _usual(output) if declared is None else declared
    if path is not None and _fits(follow(output, path), num_classes):
        return path
    there = candidates(output, num_classes)
    if declared is not None and len(there) == 1:
        return next(iter(there))
    raise ValueError(_missing(output, there, num_classes, declared))


def _fits(found: Any, num_classes: int) -> bool:
    return (
        isinstance(found, Tensor)
        and found.ndim == 4
        and (found.shape[1] == num_classes or (found.shape[1], num_classes) == (1, 2))
    )


def follow(output: Any, path: str) -> Any:
    """What is at a path of an output; None where there is nothing."""
    for step in path.split(".") if path else ():
        if isinstance(output, Mapping):
            output = output.get(step, output.get(int(step)) if step.isdecimal() else None)
        elif isinstance(output, tuple | list) and step.isdecimal():
            output = output[int(step)] if int(step) < len(output) else None
        else:
            output = None if isinstance(output, Tensor) else getattr(output, step, None)
    return output


def as_logits(found: Tensor, num_classes: int, final_activation: str | None) -> Tensor:
    """Logits of `num_classes` channels from what a network's last layer gives.

    Log-probabilities are logits as they are; of probabilities p the logits are log p, and of a sigmoid's
    p log p - log(1 - p). One logit z stands for the two (0, z).
    """
    if final_activation == "softmax":
        found = _single(found)
        found = found.clamp_min(torch.finfo(found.dtype).tiny).log()
    elif final_activation == "sigmoid":
        found = _single(found)
        edge = torch.finfo(found.dtype).eps
        found = found.clamp(edge, 1 - edge)
        found = found.log() - (1 - found).log()
    if (found.shape[1], num_classes) == (1, 2):
        found = torch.cat([torch.zeros_like(found), found], dim=1)
    return found


def _single(found: Tensor) -> Tensor:
    """In single precision at least: half precision has no 1 - 1e-7, and no 1e-9."""
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def _usual(output: Any) -> str | None:
    """Where logits are by convention; None where there is none."""
    if isinstance(output, Tensor):
        return ""
    if isinstance(output, Mapping):
        return next((key for key in ("out", "logits") if output.get(key) is not None), None)
    if hasattr(output, "logits"):
        return "logits"
    return "0" if isinstance(output, tuple | list) and output else None


def _items(output: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a container by name or number; nothing for a tensor."""
    if isinstance(output, Mapping):
        yield from ((str(key), value) for key, value in output.items())
    elif isinstance(output, tuple | list):
        yield from ((str(number), value) for number, value in enumerate(output))
    elif is_dataclass(output):
        yield from ((field.name, getattr(output, field.name, None)) for field in fields(output))
    elif not isinstance(output, Tensor) and hasattr(output, "__dict__"):
        yield from vars(output).items()


def _tensors(output: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield path, output
    elif depth < _DEEPEST:
        for key, value in _items(output):
            yield from _tensors(value, f"{path}.{key}" if path else key, depth + 1)


def _missing(
    output: Any, there: Mapping[str, Tensor], num_classes: int, declared: str | None
) -> str:
    if declared is not None:
        return (
            f"output is {declared!r}; expected the place of logits of {num_classes} channels in what the "
            f"network returns: {', '.join(there) or 'it returns none'}"
        )
    found = follow(output, _usual(output) or "")
    came = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
    remedy = f", set output to one of {', '.join(there)}" if there else ""
    return (
        f"the output is {came}; expected logits of shape b {num_classes} h w (a tensor, 'out' or 'logits' of "
        f"a mapping, or first of a tuple). Check num_classes{remedy}, or wrap a module that returns its logits"
    )
