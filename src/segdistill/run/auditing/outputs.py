"""What a foreign network returns: logits, and in training those that evaluation reads."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.distillation.taps import tap_paths, uncompiled
from segdistill.models.foreign.outputs import as_logits, follow, logits_path
from segdistill.models.foreign.probing import Seen, own_network, probe, returned, wrapper
from segdistill.models.foreign.wrapped import Wrapped

_WORDS = {
    "softmax": "probabilities (softmax)",
    "sigmoid": "probabilities (sigmoid)",
    "log_softmax": "log-probabilities (log_softmax)",
}
_EXACT = 1e-3
_OBLONG = 1.5
"""Ratio of the two strides from which on rows and columns are not those of the image."""
_SPREAD = 0.5
"""Outputs in 0..1 that differ by more are hardly logits."""


@dataclass
class Judgement:
    """Why a network is refused ("" if it is not), and what to say of it in the log."""

    refused: str = ""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Network:
    """A network under audit: who it is, what holds it, and what it returned in each mode."""

    owner: Literal["student", "teacher"]
    wrapped: Wrapped | None
    classes: int
    runs: Mapping[str, Seen]
    taps: Mapping[str, str]

    @property
    def declared(self) -> str | None:
        """The final activation that it declares."""
        return None if self.wrapped is None else self.wrapped.final_activation

    @property
    def output(self) -> str | None:
        """Where it declares its logits."""
        return None if self.wrapped is None else self.wrapped.output

    def logits(self, mode: str) -> tuple[str, Tensor]:
        """Path and tensor that are taken for its logits."""
        returned = self.runs[mode].output
        path = logits_path(returned, self.classes, self.output)
        return path, follow(returned, path)

    @property
    def place(self) -> str:
        """Where options of `wrap` are set for it."""
        return f"({self.owner}.options, or segdistill.wrap)"


def judged_outputs(
    owner: Literal["student", "teacher"],
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    num_classes: int,
) -> Judgement:
    """Whether a network returns logits, and a student the same ones in both modes.

    The network is run on a few images as in evaluation, and a student as in training, too: with the same
    weights and statistics, so that the same tensor has the same values. What made a tensor is read off
    its last operation, and off its range and its sums over the channels. Networks of this package are
    not run.

    Args:
        owner: Who it is.
        model: The network.
        images: Some to show it.
        num_classes: Channels of its logits, unless it knows better.

    Raises:
        ValueError: It returns no logits.
    """
    own = own_network(model)
    if type(own).__module__.startswith("segdistill."):
        return Judgement()
    wrapped = wrapper(model)
    classes = int(getattr(wrapped or own, "num_classes", num_classes))
    paths = _tapped_logits(model)
    modules = dict(uncompiled(model).named_modules())
    taps = {name: modules[path] for name, path in paths.items() if path in modules}
    modes = {"training": True, "evaluation": False} if owner == "student" else {"evaluation": False}
    before = images.clone()
    runs = {m: probe(model, images, classes, training, taps) for m, training in modes.items()}
    network = _Network(owner, wrapped, classes, runs, paths)
    refused = _wrong_values(network) or _wrong_activation(network) or _wrong_tap(network)
    if not refused and not torch.equal(images, before):
        images.copy_(before)
        refused = (
            f"the {owner} changes its images in place; expected them unchanged. Work on a copy"
        )
    refused = refused or _wrong_map(network, model, images)
    if refused:
        return Judgement(refused)
    found = Judgement(warnings=_odd_ending(network))
    _judge_choice(network, found)
    return found


def _tapped_logits(model: nn.Module) -> dict[str, str]:
    """Taps on logits that are not the network's output."""
    paths = tap_paths(model)
    named = {n: p for n, p in paths.items() if n.startswith(("logits", "aux"))}
    return {name: path for name, path in named.items() if path and ":" not in path}


def _ending(tensor: Tensor, traced: str) -> str:
    """What stands at the end of a network: one of `_WORDS`, another function, "range" or ""."""
    values = tensor.float()
    least, most = float(values.min()), float(values.max())
    within = least >= -_EXACT and most <= 1 + _EXACT
    several = values.shape[1] > 1
    # Two logits of a fresh network may add up to about 1.
    exact = _EXACT if tensor.dtype in (torch.float16, torch.bfloat16) else _EXACT / 100
    if several and within and bool(((values.sum(1) - 1).abs() < exact).all()):
        return "softmax"
    if several and most <= exact and bool((values.logsumexp(1).abs() < exact).all()):
        return "log_softmax"
    if traced:
        return traced
    return "range" if within and most - least > _SPREAD else ""


def _wrong_values(network: _Network) -> str:
    """A network that gives no real numbers."""
    for mode in network.runs:
        dtype = network.logits(mode)[1].dtype
        if not dtype.is_floating_point:
            return (
                f"the {network.owner} returns {str(dtype).removeprefix('torch.')} in {mode}; expected logits "
                "in floating point. Leave what rounds or transforms them out of its forward"
            )
    return ""


def _wrong_map(network: _Network, model: nn.Module, images: Tensor) -> str:
    """A network whose rows are the image's columns, or a student that passes no gradient on.

    Seen on images that are about twice as long as they are high or the other way round; square ones do not
    tell rows from columns. A network of one fixed size is only asked for its gradient.
    """
    student = network.owner == "student"
    for shown in (_oblong(images, int(getattr(model, "multiple_of", 1))), images):
        # Whatever a network of a fixed size raises at another one.
        with suppress(Exception), returned(model, shown, training=student) as output:
            logits = follow(output, logits_path(output, network.classes, network.output))
            if _transposed(logits, shown):
                return (
                    f"the {network.owner} returns {tuple(logits.shape)} for images {tuple(shown.shape)}; "
                    "expected b k h w. Transpose rows and columns back"
                )
            return _wrong_gradient(model, logits) if student else ""
    return ""


def _wrong_gradient(model: nn.Module, logits: Tensor) -> str:
    """A student that cannot be trained."""
    if not logits.requires_grad:
        return (
            "the student's logits carry no gradient, so nothing would be trained. Remove detach() and "
            "no_grad() from its forward, and requires_grad_(False)"
        )
    try:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        torch.autograd.grad(logits.sum(), trained, allow_unused=True)
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        return f"the student fails when its gradient is computed ({cause:.200}). Change its forward"
    return ""


def _oblong(images: Tensor, multiple: int) -> Tensor:
    """The upper or left half of images, so that one side is about twice as long as the other."""
    height, width = images.shape[-2:]
    side = max(multiple, min(height, width) // 2 // multiple * multiple)
    return images[..., :side, :] if height <= width else images[..., :side]


def _transposed(logits: Tensor, images: Tensor) -> bool:
    rows, columns = logits.shape[-2:]
    height, width = images.shape[-2:]
    straight = rows * width / (columns * height)
    turned = rows * height / (columns * width)
    return max(straight, 1 / straight) > _OBLONG > max(turned, 1 / turned)


def _endings(network: _Network) -> dict[str, str]:
    """The ending of the logits in each mode."""
    found = {}
    for mode, seen in network.runs.items():
        path, tensor = network.logits(mode)
        found[mode] = _ending(tensor, seen.endings.get(path, ""))
    return found


def _wrong_activation(network: _Network) -> str:
    endings = {m: e if e in _WORDS else "" for m, e in _endings(network).items()}
    declared, owner = network.declared, network.owner
    if declared == "none":
        return ""
    if declared is not None:
        return _contradicted(network, endings)
    kinds = set(endings.values())
    if kinds == {""}:
        return ""
    if len(kinds) > 1:
        each = " and ".join(f"{_WORDS.get(e, 'logits')} in {mode}" for mode, e in endings.items())
        return f"the {owner} returns {each}; expected logits in both. Change its forward"
    (kind,) = kinds
    remedy = f", or set final_activation to {kind} {network.place}"
    return (
        f"the {owner} returns {_WORDS[kind]}; expected logits. Leave the {kind} out of its forward"
        f"{remedy if network.wrapped is not None else ''}"
    )


def _contradicted(network: _Network, endings: Mapping[str, str]) -> str:
    """How what a network returns differs from the final activation that it declares; "" if it does not."""
    declared = network.declared
    for mode, ending in endings.items():
        values = network.logits(mode)[1]
        low, high = (-torch.inf, 0.0) if declared == "log_softmax" else (0.0, 1.0)
        fits = bool(((values >= low - _EXACT) & (values <= high + _EXACT)).all())
        if fits and ending in ("", declared):
            continue
        what = f"returns {_WORDS.get(ending, 'logits')} in {mode}"
        remedy = f"Set it to {ending}" if ending else "Leave it out"
        return (
            f"final_activation of the {network.owner} is {declared}; expected what it ends in, as it {what}. "
            f"{remedy} {network.place}"
        )
    return ""


def _wrong_tap(network: _Network) -> str:
    if network.declared == "none":
        return ""
    for seen in network.runs.values():
        for name, tensor in seen.taps.items():
            if tensor.ndim != 4:
                continue
            ending = _ending(tensor, seen.tap_endings.get(name, ""))
            if ending in _WORDS:
                return (
                    f"the {network.owner}'s tap {name!r} ({network.taps[name]!r}) reads {_WORDS[ending]}; "
                    "expected logits. Tap the module before it"
                )
    return ""


def _odd_ending(network: _Network) -> list[str]:
    """A warning about a last function that leaves only some logits possible."""
    if network.declared is not None:
        return []
    ending = _endings(network)["evaluation"]
    least = float(network.logits("evaluation")[1].min())
    # A wide clamp guards against overflow only.
    wide = ending in ("clamp", "hardtanh") and least not in (0.0, -1.0)
    if ending in _WORDS or not ending or wide:
        return []
    silent = f"set final_activation to none {network.place}"
    if ending == "range":
        return [
            f"the {network.owner} returns values in 0..1 only; expected logits. If they are probabilities, "
            f"set final_activation to softmax or sigmoid; if they are logits, {silent}"
        ]
    return [
        f"the {network.owner} ends in {ending}; expected logits, of either sign and any size. Leave it out "
        f"of its forward, or, if it is meant so, {silent}"
    ]


def _judge_choice(network: _Network, found: Judgement) -> None:
    """Name the tensor that was chosen among several; refuse one that evaluation does not read."""
    evaluated, expected = network.logits("evaluation")
    several = max(network.runs.values(), key=lambda seen: len(seen.candidates)).candidates
    if network.owner == "student":
        _judge_modes(network, expected, found)
    if len(several) > 1 and not found.refused:
        path = network.logits("training")[0] if network.owner == "student" else evaluated
        usual = network.output is not None or not path.isdecimal()
        remedy = f". To use another, set output {network.place}" if network.wrapped else ""
        (found.notes if usual else found.warnings).append(
            f"the {network.owner} returns {len(several)} tensors of {expected.shape[1]} channels "
            f"({', '.join(several)}); {path or 'its output'} is used{remedy}"
        )


def _judge_modes(network: _Network, expected: Tensor, found: Judgement) -> None:
    chosen, trained = network.logits("training")
    there = network.runs["training"].candidates
    if "logits" in network.taps:
        _judge_tapped_logits(network, expected, found)
        return
    if _same(trained, expected):
        return
    read = [path for path, tensor in there.items() if _same(tensor, expected)]
    several = (
        f"{len(there)} tensors of {expected.shape[1]} channels in training ({', '.join(there)})"
    )
    if read:
        found.refused = (
            f"the student returns {several}, of which {chosen} would be trained; expected {read[0]}, the one "
            f"that evaluation reads. {_choice_of(network, read)}"
        )
        return
    what = f"returns {several}, none of which is" if len(there) > 1 else "does not train"
    line = f"the student {what} what evaluation reads, with equal weights and statistics"
    if network.output is not None or network.wrapped is None:
        found.warnings.append(line)
        return
    found.refused = (
        f"{line}; expected the same logits in both modes. Change its forward, or, if it is meant so, set output "
        f"to {chosen or 0} {network.place}"
    )


def _choice_of(network: _Network, read: Sequence[str]) -> str:
    """What makes both modes read the same."""
    there = network.runs["training"].candidates
    fitting = [path for path in there if _settles(network, path)]
    # Rather those that evaluation reads now.
    fitting = [path for path in fitting if path in read] or fitting
    if fitting and network.wrapped is not None:
        return f"Set output to {' or '.join(fitting)} {network.place}"
    return "Return the same logits in both modes, in the same place"


def _judge_tapped_logits(network: _Network, expected: Tensor, found: Judgement) -> None:
    """A tap on inner logits is the user's word, and may have another size; it is only warned about."""
    tapped = network.runs["training"].taps.get("logits")
    if tapped is None or tapped.ndim != 4 or tapped.shape[1] not in (1, network.classes):
        return
    evaluated = as_logits(expected, network.classes, network.declared)
    if not _same(as_logits(tapped, network.classes, None), evaluated):
        found.warnings.append(
            f"the student's tap 'logits' ({network.taps['logits']!r}) does not read what evaluation does; "
            "check that its output is computed from it"
        )


def _settles(network: _Network, path: str) -> bool:
    """Whether both modes would read the same if this path were declared."""
    training, evaluation = (network.runs[mode].output for mode in ("training", "evaluation"))
    try:
        read = follow(evaluation, logits_path(evaluation, network.classes, path))
    except ValueError:
        return False
    return _same(follow(training, path), read)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two maps hold the same logits, up to their size and a constant per pixel."""
    if one.shape[:2] != other.shape[:2]:
        return False
    one, other = one.float(), other.float()
    if one.shape == other.shape:
        return _distance(one, other) < 0.02
    small, large = sorted((one, other), key=lambda t: t.shape[-2] * t.shape[-1])
    resized = [
        nn.functional.interpolate(small, large.shape[-2:], mode="bilinear", align_corners=align)
        for align in (False, True)
    ]
    # How they were resized is not known; of another head the distance is about 1.
    return min(_distance(each, large) for each in resized) < 0.3


def _distance(one: Tensor, other: Tensor) -> float:
    if one.shape[1] > 1:
        one, other = (t - t.mean(1, keepdim=True) for t in (one, other))
    size = max(float(one.norm()), float(other.norm()))
    return float((one - other).norm()) / size if size > 1e-6 else 0.0
