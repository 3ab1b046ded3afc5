"""The operators that PyTorch's ONNX exporter knows, listed once in a process and not by each export."""

from functools import lru_cache
from typing import Any

import pytest
import torch

export = torch.onnx.export
"""How PyTorch exports."""


def remember(patch: pytest.MonkeyPatch) -> None:
    """Hand each export the list for its opset, which depends on nothing else."""

    def exported(*args: Any, **options: Any) -> Any:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        if "from_torchlib" not in patched:
            patched.append("from_torchlib")
            listed = staticmethod(lru_cache(ONNXRegistry.from_torchlib))
            patch.setattr(ONNXRegistry, "from_torchlib", listed)
        return export(*args, **options)

    patched: list[str] = []
    patch.setattr(torch.onnx, "export", exported)
