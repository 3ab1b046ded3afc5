"""A network is run once to learn what it returns, leaving no trace in it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from segdistill.models.foreign.outputs import candidates
from segdistill.models.foreign.relabelled import Relabelled
from segdistill.models.foreign.resampled import ResampledInput
from segdistill.models.foreign.wrapped import Wrapped

_ENDINGS = {
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "hardtanh": "hardtanh",
    "clamp": "clamp",
    "clamp_min": "clamp",
    "tanh": "tanh",
    "softplus": "softplus",
    "hardsigmoid": "hardsigmoid",
    "log_sigmoid_forward": "log_sigmoid",
}
"""ATen operations after which values are no logits any more, or only some."""
_KEEPING = {
    *(
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "permute",
        "transpose",
        "t",
        "squeeze",
        "unsqueeze",
    ),
    *(
        "slice",
        "select",
        "index",
        "index_select",
        "split",
        "split_with_sizes",
        "unbind",
        "narrow",
        "as_strided",
    ),
    *(
        "expand",
        "clone",
        "detach",
        "alias",
        "_to_copy",
        "contiguous",
        "lift_fresh",
        "cat",
        "stack",
        "flip",
        "roll",
    ),
    *("constant_pad_nd", "replication_pad2d", "reflection_pad2d", "grid_sampler_2d", "avg_pool2d"),
    *(
        "upsample_bilinear2d",
        "_upsample_bilinear2d_aa",
        "upsample_bicubic2d",
        "_upsample_bicubic2d_aa",
    ),
    *("upsample_nearest2d", "_upsample_nearest_exact2d"),
}
"""Operations that move or resample values, so that they stay of the same kind."""


@dataclass(frozen=True)
class Seen:
    """What a network returned in one run.

    Attributes:
        output: What the user's own network returned, as it is.
        candidates: The tensors in it that may be logits, by path.
        endings: The last operation that made each of them, where that is one of interest, by path.
        taps: The tensors at the module paths asked for.
        tap_endings: As `endings`, of those.
    """

    output: Any
    candidates: Mapping[str, Tensor]
    endings: Mapping[str, str]
    taps: Mapping[str, Tensor]
    tap_endings: Mapping[str, str]


def own_network(model: nn.Module) -> nn.Module:
    """The user's network inside whatever holds it."""
    wrapped = wrapper(model)
    inside = _uncompiled(model) if wrapped is None else wrapped.module
    while isinstance(inside, Relabelled | ResampledInput):
        inside = _uncompiled(inside.module)
    return _uncompiled(inside)


def wrapper(model: nn.Module) -> Wrapped | None:
    """What `wrap` made, inside whatever holds it; None for a network that keeps the contract by itself."""
    return next((module for module in model.modules() if isinstance(module, Wrapped)), None)


def probe(
    model: nn.Module,
    images: Tensor,
    num_classes: int,
    training: bool,
    taps: Mapping[str, nn.Module] | None = None,
) -> Seen:
    """Run a network once, and keep what its own part returned.

    In training it takes the branches of training, but computes as in evaluation (running statistics, no
    dropout), so that the same tensor has the same values in both modes. Modes, buffers and the random
    number generator are as before afterwards; compiled code is neither made nor used.

    Args:
        model: The network.
        images: As it is given them.
        num_classes: Channels of its logits.
        training: Whether it takes the branches of training.
        taps: Further modules whose output is read.
    """
    outputs: dict[str, Any] = {}

    def read(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[name] = output

        return hook

    with ExitStack() as stack:
        for name, module in {**(taps or {}), "": own_network(model)}.items():
            stack.callback(module.register_forward_hook(read(name)).remove)
        stack.enter_context(_as_before(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        _set_mode(model, training)
        trace = stack.enter_context(_Trace())
        _uncompiled(model)(images)
    own = candidates(outputs[""], num_classes)
    tapped = {name: t for name in taps or {} if isinstance(t := outputs.get(name), Tensor)}
    return Seen(
        outputs[""],
        own,
        {path: kind for path, t in own.items() if (kind := trace.kinds.get(id(t)))},
        tapped,
        {name: kind for name, t in tapped.items() if (kind := trace.kinds.get(id(t)))},
    )


@contextmanager
def returned(model: nn.Module, images: Tensor, training: bool) -> Iterator[Any]:
    """What the user's own network returns, with gradients if it takes the branches of training.

    The network is as it was afterwards, so a gradient is computed inside.

    Args:
        model: The network; it is left as it was.
        images: As it is given them; a copy is used.
        training: Whether it takes the branches of training.
    """
    outputs: list[Any] = []
    with ExitStack() as stack:
        hook = own_network(model).register_forward_hook(lambda *seen: outputs.append(seen[2]))
        stack.callback(hook.remove)
        stack.enter_context(_as_before(model))
        stack.enter_context(torch.set_grad_enabled(training))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        _set_mode(model, training)
        _uncompiled(model)(images.clone())
        yield outputs[-1]


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the last operation of interest behind each tensor, and takes dropout for its expectation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kinds: dict[int, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.removesuffix("_")
        if func is torch.ops.aten.bernoulli_.float:
            # Dropout divides by the probability next; 0.5, being the default, is not handed over.
            return args[0].fill_(args[1] if len(args) > 1 else 0.5)
        if name == "native_dropout":
            func, args = torch.ops.aten.native_dropout.default, (*args[:2], False)
        before = [self.kinds.get(id(t)) for t in _flat(args)]
        result = func(*args, **(kwargs or {}))
        kind = _ENDINGS.get(name)
        if kind is None and name in _KEEPING:
            kind = next(filter(None, before), None)
        # Always, since the number of a tensor that is gone is given to another.
        for tensor in _flat([result]):
            self.kinds.pop(id(tensor), None)
            if kind is not None:
                self.kinds[id(tensor)] = kind
        return result


def _flat(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _flat(value)


def _set_mode(model: nn.Module, training: bool) -> None:
    model.train(training)
    if not training:
        return
    roots = {_uncompiled(model), own_network(model)}
    for module in model.modules():
        # Norms and dropout hold no modules; what takes branches does.
        if module not in roots and not any(True for _ in module.children()):
            module.training = False


@contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer.copy_(value)


def _uncompiled(model: nn.Module) -> nn.Module:
    original: nn.Module = getattr(model, "_orig_mod", model)
    return original
