"""The environment that a run records: versions, machine, devices."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_PACKAGES = ("segdistill", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_environment(device: torch.device, world: int = 1) -> dict[str, Any]:
    """Versions, machine, threads and devices, on which bit-identical resuming depends."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": gpu,
        "processes": world,
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Differences between two environments, as `name: old -> new`."""
    lines = []
    for key in sorted({*old, *new}):
        if key == "packages":
            before, after = old.get(key, {}), new.get(key, {})
            names = sorted({*before, *after})
            lines += [
                f"{n}: {before.get(n)} -> {after.get(n)}"
                for n in names
                if before.get(n) != after.get(n)
            ]
        elif old.get(key) != new.get(key):
            lines.append(f"{key}: {old.get(key)} -> {new.get(key)}")
    return lines
