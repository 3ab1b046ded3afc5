"""The cost of a network: parameters, multiply-adds at a size, and measured latency."""

import copy
import re
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segdistill.escaping import terminal_line
from segdistill.models.contract import device_of
from segdistill.run.evaluation.protocol import (
    Size,
    autocast,
    check_size,
    evaluating,
    in_channels,
    multiple_of,
    padded,
)

Count = Literal["flops", "paper"]


@dataclass(frozen=True)
class Latency:
    """Milliseconds per forward pass of one image, and the number of timed passes."""

    median: float
    p90: float
    repeats: int


@dataclass(frozen=True)
class Profile:
    """The cost of a network on one image.

    Attributes:
        parameters: All parameters, frozen or not, including the auxiliary head, as the papers count. None,
            here and below: an exported file, whose layers cannot be counted.
        parameters_deployed: Parameters without the auxiliary head, as shipped.
        multiply_adds: Multiply-adds of one forward pass at `size`; see `multiply_adds`.
        count: Rule of `multiply_adds`: "flops" or "paper".
        size: Height and width of the image, in pixels.
        latency_ms_median: Median time of a forward pass of one image, in milliseconds; None: not
            measured.
        latency_ms_p90: 90th percentile of the same times.
        repeats: Number of timed passes.
        threads: CPU threads that PyTorch used.
        device: Device that the latency was measured on.
    """

    parameters: int | None
    parameters_deployed: int | None
    multiply_adds: float | None
    count: str
    size: Size
    latency_ms_median: float | None
    latency_ms_p90: float | None
    repeats: int
    threads: int
    device: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "size": list(self.size)}


def profile(
    model: nn.Module,
    size: Size = (512, 1024),
    *,
    count: Count = "flops",
    latency: bool = True,
    repeats: int = 20,
    device: str | torch.device | None = None,
) -> Profile:
    """Count a network's parameters and multiply-adds, and measure its latency.

    Args:
        model: The network; not changed, but moved to `device`.
        size: Height and width of the image; padded to the network's `multiple_of`.
        count: Rule of the multiply-adds; see `multiply_adds`.
        latency: Measure latency, too.
        repeats: Largest number of timed forward passes; see `measure_latency`.
        device: Device to measure on; None: the network's.

    Example:
        >>> profile(nn.Conv2d(3, 8, 3, padding=1), size=(4, 4), latency=False).multiply_adds
        3456.0
    """
    return compare({"": model}, size, count=count, latency=latency, repeats=repeats, device=device)[
        ""
    ]


def compare(
    models: Mapping[str, nn.Module],
    size: Size = (512, 1024),
    *,
    count: Count = "flops",
    latency: bool = True,
    repeats: int = 20,
    device: str | torch.device | None = None,
) -> dict[str, Profile]:
    """Profile several networks at one size, timing their forward passes in turns; see `profile`.

    Of networks of one structure one is timed, since their times would only differ by chance.
    """
    check_size(size)
    counts = {name: _counted(model, size, count) for name, model in models.items()}
    timed: dict[object, str] = {}
    alike = {
        name: timed.setdefault(_structure(model, counts[name], device), name)
        for name, model in models.items()
    }
    few = {name: models[name] for name in timed.values()}
    times = measure_latency(few, size, repeats, device=device) if latency else {}
    return {
        name: Profile(
            **counts[name],
            count=count,
            size=size,
            latency_ms_median=times[alike[name]].median if latency else None,
            latency_ms_p90=times[alike[name]].p90 if latency else None,
            repeats=times[alike[name]].repeats if latency else 0,
            threads=torch.get_num_threads(),
            device=str(_placed(model, device)),
        )
        for name, model in models.items()
    }


def _structure(
    model: nn.Module, counts: Mapping[str, Any], device: str | torch.device | None
) -> object:
    """What two networks of one structure share; a network without weights, such as a file, is one by itself."""
    state = model.state_dict()
    if not state:
        return id(model)
    own = (type(model), repr(model), str(_placed(model, device)))
    tensors = [(name, value.shape, value.dtype, value.stride()) for name, value in state.items()]
    # What a forward pass reads beside modules and weights, such as a number of rounds.
    plain = [
        sorted((key, _told(value)) for key, value in vars(part).items() if not key.startswith("_"))
        for part in model.modules()
    ]
    return (*own, repr(plain), tuple(tensors), tuple(counts.items()))


def _told(value: object) -> str:
    """An attribute as text; of an object that tells only its address the type, but not of a function."""
    return repr(value) if callable(value) else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _counted(model: nn.Module, size: Size, count: Count) -> dict[str, Any]:
    """What a network costs; None for one that says that it cannot be counted."""
    if not getattr(model, "counted", True):
        return dict.fromkeys(("parameters", "parameters_deployed", "multiply_adds"))
    parameters = _parameters(model)
    return {
        "parameters": parameters,
        "parameters_deployed": parameters - _parameters(*_auxiliary_heads(model)),
        "multiply_adds": multiply_adds(model, size, count),
    }


def table(profiles: Mapping[str, Profile]) -> str:
    """Profiles as aligned plain text; the last column is the latency relative to the first network's."""
    profiles = {terminal_line(name): entry for name, entry in profiles.items()}
    width = max(len("network"), *(len(name) for name in profiles))
    lines = [
        f"{'network':<{width}}  {'params':>9}  {'deployed':>9}  {'mult-adds':>9}  "
        f"{'median ms':>9}  {'p90 ms':>9}  {'relative time':>13}"
    ]
    base = next(iter(profiles.values())).latency_ms_median
    for name, entry in profiles.items():
        counts = (
            count_text(entry.parameters, 1e6, "M"),
            count_text(entry.parameters_deployed, 1e6, "M"),
            count_text(entry.multiply_adds, 1e9, "G"),
        )
        cost = "  ".join(f"{text:>9}" for text in counts)
        median, p90 = entry.latency_ms_median, entry.latency_ms_p90
        ratio = median / base if median is not None and base else None
        time_cells = f"{_cell(median, 9, 1)}  {_cell(p90, 9, 1)}  {_cell(ratio, 13, 2)}"
        lines.append(f"{name:<{width}}  {cost}  {time_cells}")
    return "\n".join(lines)


def count_text(value: float | None, unit: float, letter: str) -> str:
    """A count in a unit, such as 13.068M; a dash where there is none."""
    return "-" if value is None else f"{value / unit:.3f}{letter}"


def multiply_adds(model: nn.Module, size: Size, count: Count = "flops") -> float:
    """Multiply-adds of one forward pass of one image.

    "flops": half of what `torch.utils.flop_counter` counts (convolutions, transposed convolutions and
    matrix products), for the network as deployed, in eval mode.

    "paper": as the papers in this field count (inferred from their published numbers): the
    multiply-adds of `nn.Conv2d` plus half of their bias additions, including the auxiliary head;
    transposed convolutions, normalisation, pooling and upsampling are left out.

    Counted on the meta device if the network can run there, without computation or memory; otherwise
    with zeros on the network's own device.

    Args:
        model: The network; not changed.
        size: Height and width of the image; padded to the network's `multiple_of`.
        count: "flops" or "paper".

    Raises:
        ValueError: Unknown `count`.
    """
    check_size(size)
    if count not in ("flops", "paper"):
        raise ValueError(f"count is {count!r}; expected 'flops' or 'paper'")
    run = _count_flops if count == "flops" else _count_paper
    try:
        return run(_on_meta(model), size, torch.device("meta"))
    except (RuntimeError, NotImplementedError, TypeError):
        # The network creates tensors on a fixed device, or depends on values.
        return run(model, size, device_of(model))


def measure_latency(
    models: Mapping[str, nn.Module],
    size: Size,
    repeats: int = 20,
    *,
    warmup: int = 2,
    seconds: float = 60.0,
    device: str | torch.device | None = None,
    precision: str = "32",
    channels_last: bool = False,
) -> dict[str, Latency]:
    """Time forward passes of one image; the networks take turns, so that their ratios are fair.

    In eval mode without gradients, on random images; GPUs are synchronised after each pass. In each
    round every network runs once; the first one changes from round to round.

    Args:
        models: Name -> network; moved to `device`.
        size: Height and width of the image; padded to each network's `multiple_of`.
        repeats: Largest number of timed rounds.
        warmup: Rounds before those, not timed.
        seconds: No round starts after this time, once 3 are timed.
        device: Device to run on; None: each network's own.
        precision: "32", "bf16" or "fp16" (only on GPUs).
        channels_last: Memory format of image and networks (the networks' is changed permanently).

    Raises:
        ValueError: `models` is empty, or `repeats` is below 1.
    """
    if not models or repeats < 1:
        raise ValueError(
            f"there are {len(models)} networks and {repeats} repeats; expected at least one of each"
        )
    check_size(size)
    images = {
        name: _ready(model, size, _placed(model, device), channels_last)
        for name, model in models.items()
    }
    names, times = list(models), {name: list[float]() for name in models}
    began = time.perf_counter()
    for turn in range(warmup + repeats):
        if turn >= warmup + 3 and time.perf_counter() - began > seconds:
            break
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            elapsed = _time(models[name], images[name], precision)
            if turn >= warmup:
                times[name].append(1000 * elapsed)
    return {
        name: Latency(statistics.median(values), _percentile(values, 0.9), len(values))
        for name, values in times.items()
    }


def _count_flops(model: nn.Module, size: Size, device: torch.device) -> float:
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(_image(model, size, device))
    return float(counter.get_total_flops()) / 2


def _count_paper(model: nn.Module, size: Size, device: torch.device) -> float:
    total = 0.0

    def add(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        per_output = module.weight[0].numel() + (0 if module.bias is None else 0.5)
        total += output.numel() * per_output

    def nothing(*_: Any) -> None:
        return None

    hooks = [
        module.register_forward_hook(add)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    # A hook on an auxiliary head opens its tap, so that it runs in eval mode, too.
    hooks += [head.register_forward_hook(nothing) for head in _auxiliary_heads(model)]
    try:
        with evaluating(model):
            model(_image(model, size, device))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy of the network on the meta device, made without copying its weights."""
    tensors: dict[int, Any] = {}
    for parameter in model.parameters():
        tensors[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), requires_grad=False
        )
    for buffer in model.buffers():
        tensors[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, tensors)


def _auxiliary_heads(model: nn.Module) -> list[nn.Module]:
    """The modules at the taps `aux`, `aux_coarse` and the like."""
    taps: Mapping[str, str] = getattr(model, "taps", None) or {}
    paths = {path.partition(":")[0] for name, path in taps.items() if name.startswith("aux")}
    return [model.get_submodule(path) for path in sorted(paths) if path]


def _parameters(*models: nn.Module) -> int:
    return sum(parameter.numel() for model in models for parameter in model.parameters())


def _placed(model: nn.Module, device: str | torch.device | None) -> torch.device:
    return device_of(model) if device is None else torch.device(device)


def _image(model: nn.Module, size: Size, device: torch.device) -> Tensor:
    return torch.zeros(1, in_channels(model), *padded(size, multiple_of(model)), device=device)


def _ready(model: nn.Module, size: Size, device: torch.device, channels_last: bool) -> Tensor:
    model.to(device)
    image = _image(model, size, device).uniform_()
    if channels_last:
        model.to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)
    return image


def _time(model: nn.Module, image: Tensor, precision: str) -> float:
    with evaluating(model), autocast(precision, image.device):
        _wait(image.device)
        began = time.perf_counter()
        model(image)
        _wait(image.device)
        return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"
