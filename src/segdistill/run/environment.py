"""The environment that a run records: versions, machine, devices."""

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_PACKAGES = ("segdistill", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")


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
    """Differences between two environments, as `name: old -> new`; keys of only one version do not count."""
    lines = []
    for key in sorted((old.keys() & new.keys()) - _AFTERWARDS):
        if key == "packages":
            before, after = old[key], new[key]
            names = sorted({*before, *after})
            lines += [
                f"{n}: {before.get(n)} -> {after.get(n)}"
                for n in names
                if before.get(n) != after.get(n)
            ]
        elif old[key] != new[key]:
            lines.append(f"{key}: {old[key]} -> {new[key]}")
    return lines


_OF_TIMES = ("machine", "system", "processor", "cores", "threads", "device", "gpu", "processes")
_CROWDED = 1.2
"""Ratio of loads, in processes per core but at least 1, from which on times are not compared."""


def timing_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why times measured in two environments cannot be compared; empty if they can.

    Args:
        one: The content of a run's environment.json; empty if it recorded none.
        other: That of another run.

    Returns:
        Such as "threads 1 and 2"; a value that only one of them recorded counts as different.
    """
    if not one or not other:
        return ["environment not recorded"]
    first, second = ({**e, "torch": (e.get("packages") or {}).get("torch")} for e in (one, other))
    found = [
        f"{key} {_known(first.get(key))} and {_known(second.get(key))}"
        for key in (*_OF_TIMES, "torch")
        if first.get(key) != second.get(key)
    ]
    crowds = _crowd(one), _crowd(other)
    if max(crowds) > _CROWDED * min(crowds):
        found.append(f"load {one.get('load')} and {other.get('load')} on {one.get('cores')} cores")
    if "resumed" in one or "resumed" in other:
        found.append("resumed in another environment")
    return found


def _known(value: Any) -> Any:
    return "unknown" if value is None else value


def _crowd(environment: Mapping[str, Any]) -> float:
    """Processes per core, at least 1: how far others slowed a run down."""
    return max(1.0, (environment.get("load") or 0.0) / (environment.get("cores") or 1))
