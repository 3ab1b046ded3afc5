"""Weights from a file into a network, with an account of every tensor."""

import argparse
import logging
import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from segdistill.models.contract import network

_log = logging.getLogger(__name__)
KeyRules = tuple[tuple[str, str], ...]
"""Pattern and replacement, applied in this order; a name that ends up empty belongs to nothing here."""


class ClassesDiffer(ValueError):
    """Weights that fit the network but for the number of classes.

    Attributes:
        file: Classes of the weights.
        network: Classes of the network.
    """

    def __init__(self, message: str, file: int, network: int) -> None:
        super().__init__(message)
        self.file, self.network = file, network


@dataclass
class LoadReport:
    """What became of each tensor, by the network's own names.

    Attributes:
        source: The file.
        matched: Loaded.
        missing: In the network, not in the file. Batch norm's counters of batches do not count: old
            files have none, and nothing here reads them.
        unexpected: In the file, not in the network, and nothing explains them (under the file's
            names).
        mismatched: Name -> (shape in the file, shape in the network).
        left_out: In the file and known not to belong here, such as an ImageNet classifier.
    """

    source: str = ""
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all of the network was loaded and all of the file is accounted for."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        shapes = [
            f"{name} {list(file)} in the file, {list(ours)} in the network"
            for name, (file, ours) in self.mismatched.items()
        ]
        return (
            f"{self.source}: {len(self.matched)} tensors matched; missing {_some(self.missing)}; "
            f"unexpected {_some(self.unexpected)}; of another shape {_some(shapes)}; "
            f"left out as not part of this network {_some(self.left_out)}"
        )


def _some(names: list[str], most: int = 3) -> str:
    if not names:
        return "0"
    more = ", …" if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{more})"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file or one that `torch.save` wrote, on the CPU. Runs no code from the file.

    A checkpoint that holds its weights under `state_dict`, `model` or `model_state_dict` is unpacked; under
    `state_dict_ema`, `model_ema` or `ema`, averages of them, if it has none of these; under another name if that is
    the only one with nothing but tensors. Which of several is read is logged. The prefixes `module.`
    and `_orig_mod.`, which DistributedDataParallel and torch.compile leave on every key, are taken off.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: the file cannot be read safely, or holds no tensors, or several sets of them under names
            that say nothing.
    """
    return unprefixed(read_tensors(path))


_SAVED = (".pt", ".pth", ".ckpt", ".pth.tar", ".bin")
"""Ends of files of `torch.save`, those of Lightning, timm and transformers among them."""
_DEEPEST = 5
"""Mappings inside each other that are opened."""
_HOLDERS = ("state_dict", "model", "model_state_dict")
_AVERAGES = ("state_dict_ema", "model_ema", "ema")
"""Read only where a file has none of the others. A file that has both is read with a warning."""
_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of DistributedDataParallel and torch.compile."""
_ATTRIBUTES = ("model.", "net.")
"""Prefixes of a network inside another module, such as a LightningModule."""


def unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of wrappers that all of them have."""
    return _stripped(state, _WRAPPERS)[-1]


def _stripped(state: dict[str, Tensor], prefixes: tuple[str, ...]) -> list[dict[str, Tensor]]:
    """`state`, then without one prefix that all names have, without two, .."""
    for prefix in prefixes:
        if all(key.startswith(prefix) for key in state):
            rest = {key.removeprefix(prefix): value for key, value in state.items()}
            return [state, *_stripped(rest, prefixes)]
    return [state]


def _fitting(
    net: nn.Module, state: dict[str, Tensor], source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """`state` by the network's own names, with as few prefixes taken off as it takes to fit any; see `translated`."""
    values: Any = getattr(net, "released_values", dict)
    own = net.state_dict().keys()
    tried = _stripped(state, _WRAPPERS + _ATTRIBUTES)
    # A prefix may be an attribute of the network's own.
    for one in tried:
        if own & one.keys():
            return translated(net, values(one))
    if (prefix := _prefix_of(own, state, source)) is not None:
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        named, left_out = translated(net, values(inside))
        return named, left_out + [key for key in state if not key.startswith(prefix)]
    found = translated(net, values(unprefixed(state)))
    stripped = translated(net, values(tried[-1]))
    return stripped if own & stripped[0].keys() and not own & found[0].keys() else found


def _prefix_of(own: Collection[str], state: Mapping[str, Tensor], source: str) -> str | None:
    """The prefix under which a file has all of a network among other things, such as a loss's buffers.

    Raises:
        ValueError: It has the network under several.
    """
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    if not names:
        return None
    ends = [key.removesuffix(names[0]) for key in state if key.endswith(f".{names[0]}")]
    fitting = [start for start in ends if all(start + name in state for name in names)]
    if len(fitting) > 1:
        raise ValueError(
            f"{source} has the network under {' and '.join(fitting)}; expected one. Save one of them as a file of its "
            "own"
        )
    return fitting[0] if fitting else None


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """As `read_weights`, with the prefixes."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}. Check the path")
    if not path.name.endswith((".safetensors", *_SAVED)):
        raise ValueError(
            f"the weights file is {path.name}; expected .safetensors, {', '.join(_SAVED[:-1])} or {_SAVED[-1]}. "
            "Save model.state_dict() as one of these"
        )
    try:
        # A Namespace, as argparse makes it, holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: Any = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        cause = _not_weights(path) or str(error).strip().partition("\n")[0] or type(error).__name__
        if other := re.search(r"GLOBAL (\S+)", str(error)):
            cause = f"it also holds a {other[1]}"
        elif "weights_only" in cause:  # torch would advise to run what is in the file
            cause = "it is not in PyTorch's format"
        raise ValueError(
            f"{path} cannot be read as a file of plain tensors ({cause}). "
            "Save only model.state_dict(): pickled modules are not opened"
        ) from error
    content = _unpacked(path, content)
    state = (
        {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not state:
        raise ValueError(
            f"{path} holds no tensors; expected tensors by name. Save model.state_dict()"
        )
    return state


def _not_weights(path: Path) -> str:
    """What a file is that was downloaded wrongly; "" if it may hold weights."""
    with open(path, "rb") as file:
        start = file.read(200).lstrip().lower()
    if not start:
        return "it is empty: download it again"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page: download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs: run git lfs pull"
    return ""


def _unpacked(path: Path, content: Any) -> Any:
    """What a checkpoint holds as weights; if it holds several, the choice is logged."""
    for _ in range(_DEEPEST):  # a file may hold itself
        held = _held(content)
        if len(held) > 1:
            _log.warning(
                "%s holds weights under %s; those under %s are read. To read others, save them as a file of their own",
                path,
                " and ".join(held),
                held[0],
            )
        held = held or _only_tensors(path, content)
        if not held:
            break
        content = content[held[0]]
    return content


def _only_tensors(path: Path, content: Any) -> list[str]:
    """The name under which a checkpoint without any tensor of its own holds nothing but tensors; none: [].

    Raises:
        ValueError: There are several.
    """
    if not isinstance(content, Mapping) or any(isinstance(v, Tensor) for v in content.values()):
        return []
    found = [str(key) for key, value in content.items() if _are_tensors(value)]
    if len(found) > 1:
        raise ValueError(
            f"{path} holds tensors under {' and '.join(found)}; expected those of one network. Save one of them as a "
            "file of its own"
        )
    return found


def _are_tensors(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _held(content: Any, depth: int = _DEEPEST) -> list[str]:
    """Under which names a checkpoint holds tensors, and not settings of the same name."""
    if not isinstance(content, Mapping) or not depth:
        return []
    found = [key for key in (*_HOLDERS, *_AVERAGES) if isinstance(content.get(key), Mapping)]
    return [
        key
        for key in found
        if any(isinstance(value, Tensor) for value in content[key].values())
        or _held(content[key], depth - 1)
    ]


def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    strict: bool = True,
    source: str = "weights",
    left_out: Iterable[str] = (),
) -> LoadReport:
    """Copies `state` into `model`; `load_weights` with the tensors at hand.

    Args:
        left_out: Names to list as known not to belong here; they are not in `state`.
    """
    own = model.state_dict()
    report = LoadReport(source=source, left_out=sorted(left_out))
    for name, tensor in state.items():
        if name not in own:
            report.unexpected.append(name)
        elif own[name].shape != tensor.shape:
            report.mismatched[name] = (tuple(tensor.shape), tuple(own[name].shape))
        else:
            report.matched.append(name)
    report.missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    if strict and not report.complete:
        raise _refusal(model, report)
    _refuse_unsound({name: state[name] for name in report.matched}, own, source)
    model.load_state_dict({name: state[name] for name in report.matched}, strict=False)
    return report


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _refuse_unsound(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that would be copied as something else than the network's weights, or spoil its output."""
    found = {name: reason for name in state if (reason := _unsound(name, state[name], own[name]))}
    if found:
        name, (is_now, expected) = next(iter(found.items()))
        more = f" ({len(found)} of {len(state)} tensors are unsound)" if len(found) > 1 else ""
        raise ValueError(
            f"{source}: {name} {is_now}{more}; expected {expected}. Save the weights of a sound network, in floating "
            "point"
        )


def _unsound(name: str, tensor: Tensor, own: Tensor) -> tuple[str, str] | None:
    """What is wrong with a tensor of a file and what was expected; None for a sound one."""
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta:
        kind = "quantised" if tensor.is_quantized else "meta" if tensor.is_meta else "sparse"
        return f"is a {kind} tensor", "plain tensors"
    if not own.is_floating_point():
        return None
    if tensor.dtype not in _FLOATS:
        return f"is {str(tensor.dtype).removeprefix('torch.')}", "floating point of 16 bits or more"
    # A buffer may be infinite by design, such as a mask of attention.
    if not bool(torch.isfinite(tensor).all()) and bool(torch.isfinite(own).all()):
        return "is not finite", "finite values"
    if name.endswith("running_var") and bool((tensor < 0).any()):
        return "is negative", "variances of at least 0"
    return None


def load_weights(model: nn.Module, path: str | Path, strict: bool = True) -> LoadReport:
    """Loads a file into a network (into the user's own module, where it is wrapped).

    Names that are not the network's own are translated by its `released_keys`, if it has any, after its
    `released_values` has seen to the tensors. Where a file has the whole network under one prefix, what lies
    outside it is left out and reported.

    Args:
        model: Any module.
        path: As for `read_weights`.
        strict: Refuse unless every tensor on either side has its partner. Otherwise load what fits
            and leave the rest of the network as it is; the report says what.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: unreadable; the whole network under several prefixes; a tensor that is quantised, sparse, not in
            floating point or not finite, or a negative variance; or `strict` and something does not fit. The network
            is then untouched. `ClassesDiffer` where that is the number of classes alone.
    """
    return load_tensors(model, read_tensors(path), str(path), strict)


def load_tensors(
    model: nn.Module, tensors: dict[str, Tensor], source: str, strict: bool = True
) -> LoadReport:
    """As `load_weights`, from tensors that `read_tensors` has read from the file `source`."""
    net = network(model)
    state, left_out = _fitting(net, tensors, source)
    return load_state(net, state, strict, source=source, left_out=left_out)


def further_outputs(outputs: int, num_classes: int) -> int:
    """How many outputs a file has after the classes: 0, or 1 (void or background).

    Raises:
        ValueError: Any other number: the file is of another data set.
    """
    if outputs - num_classes not in (0, 1):
        raise ValueError(
            f"the file has {outputs} outputs; expected {num_classes} (or one more, for void or background). "
            "Use a network that was trained on the classes of the data"
        )
    return outputs - num_classes


def translated(model: nn.Module, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """`state` by the network's own names, and the names in the file that are known to belong to nothing."""
    rules: KeyRules = getattr(model, "released_keys", ())
    own = model.state_dict().keys()
    found, left_out = {}, []
    for key, tensor in state.items():
        name = key
        if key not in own:
            for pattern, ours in rules:
                name = re.sub(pattern, ours, name)
        if not name:
            left_out.append(key)
        else:
            # What still fits nothing is reported as the file calls it.
            found[name if name in own else key] = tensor
    return found, left_out


_IN_PYTHON = "in Python load_weights(.., strict=False) loads what fits"


def _refusal(model: nn.Module, report: LoadReport) -> ValueError:
    expected = len(report.matched) + len(report.missing) + len(report.mismatched)
    message = f"the weights do not fit all {expected} tensors of the network: {report}"
    remedy = f"build the network this file was made from; {_IN_PYTHON}"
    others = {name.partition(".")[0] for name in report.unexpected}
    if others == {"aux_classifier"} and not report.missing:
        remedy = f"set options: {{aux_loss: true}} for torchvision's auxiliary head; {_IN_PYTHON}"
    classes = _class_counts(model, report)
    if classes and not (report.missing or report.unexpected):
        remedy = (
            f"the file has {classes[0]} classes, the network {classes[1]}: "
            f"build it with num_classes={classes[0]}; {_IN_PYTHON}"
        )
        return ClassesDiffer(f"{message}; {remedy}", *classes)
    if classes:
        remedy += f" (the file also has {classes[0]} classes, the network {classes[1]})"
    return ValueError(f"{message}; {remedy}")


def _class_counts(model: nn.Module, report: LoadReport) -> tuple[int, int] | None:
    """Classes of the file and of the network, where that is all in which shapes differ."""
    found = {
        (file[0], ours[0])
        for file, ours in report.mismatched.values()
        if file and ours and file[1:] == ours[1:]
    }
    ours = getattr(model, "num_classes", None)
    if len(found) == 1 and (ours is None or next(iter(found))[1] == ours):
        return next(iter(found))
    return None
