"""The environment that a run records: versions, machine, devices."""

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_PACKAGES = (
    *("segdistill", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow"),
    # Of extras, which decode pictures, draw labels or hold networks.
    *("imagecodecs", "pycocotools", "segmentation-models-pytorch", "transformers"),
)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> str:
    """A short digest of this machine's network name, to tell it from others."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def load() -> float | None:
    """Processes that ran or waited over the last minute, this one included; None where it is not known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def describe_environment(device: torch.device, world: int = 1) -> dict[str, Any]:
    """Versions, machine, threads and devices, on which bit-identical resuming depends."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": machine(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": gpu,
        "processes": world,
    }


_AFTERWARDS = {"load", "resumed"}
"""Keys that are added once a run is finished or resumed."""


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Differences between two environments, as `name: old -> new`; what only one of them records does not count."""
    lines = []
    for key in sorted((old.keys() & new.keys()) - _AFTERWARDS):
        if key == "packages":
            before, after = old[key], new[key]
            lines += [
                f"{name}: {before[name]} -> {after[name]}"
                for name in sorted(before.keys() & after.keys())
                if before[name] != after[name]
            ]
        elif old[key] != new[key]:
            lines.append(f"{key}: {old[key]} -> {new[key]}")
    return lines


_OF_TIMES = ("machine", "system", "processor", "cores", "threads", "device", "gpu", "processes")
_CROWDED = 1.2
"""Ratio of loads, in processes per core but at least 1, from which on times are not compared."""


def timing_differences(one: Mapping[str, Any], *others: Mapping[str, Any]) -> list[str]:
    """Why times measured in several environments cannot be compared; empty if they can.

    Args:
        one: The content of a run's environment.json; empty if it recorded none.
        others: That of other runs, each of which is compared with the first.

    Returns:
        Such as "threads 1 and 2"; a value that only one of two recorded counts as different.
    """
    if not others:
        return []
    if not all((one, *others)):
        return ["environment not recorded"]
    given = [{**e, "torch": (e.get("packages") or {}).get("torch")} for e in (one, *others)]
    found = []
    for key in (*_OF_TIMES, "torch"):
        values = dict.fromkeys(str(_known(each.get(key))) for each in given)
        if len(values) > 1:
            *before, last = values
            found.append(f"{key} {', '.join(before)} and {last}")
    own = _crowd(one)
    if any(max(own, crowd) > _CROWDED * min(own, crowd) for crowd in map(_crowd, others)):
        loads = sorted({each.get("load") for each in given}, key=_rank)
        ends = f"{loads[0]} and {loads[1]}" if len(loads) == 2 else f"{loads[0]} to {loads[-1]}"
        found.append(f"load {ends} on {one.get('cores')} cores")
    if any("resumed" in each for each in given):
        found.append("resumed in another environment")
    return found


def _rank(load: float | None) -> float:
    return -1.0 if load is None else load


def _known(value: Any) -> Any:
    return "unknown" if value is None else value


def _crowd(environment: Mapping[str, Any]) -> float:
    """Processes per core, at least 1: how far others slowed a run down."""
    return max(1.0, (environment.get("load") or 0.0) / (environment.get("cores") or 1))
