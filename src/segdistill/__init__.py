"""Distil semantic segmentation networks: a heavy teacher in, a small student nearly as good out.

The public names are loaded on first use, so that `import segdistill` needs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "build_dataset": "segdistill.data",
    "build_loss": "segdistill.distillation.method",
    "build_method": "segdistill.distillation.catalogue",
    "build_model": "segdistill.models",
    "compare": "segdistill.run.compare",
    "distill": "segdistill.run.training.distill",
    "evaluate": "segdistill.run.evaluation.evaluate",
    "export": "segdistill.run.shipping.export",
    "load_predictor": "segdistill.run.shipping.predict",
    "predict": "segdistill.run.shipping.predict",
    "profile": "segdistill.run.evaluation.profile",
    "report": "segdistill.run.reporting.report",
    "train": "segdistill.run.training.train",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'segdistill' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
