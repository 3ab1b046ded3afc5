"""Distil semantic segmentation networks: a heavy teacher in, a small student nearly as good out.

The public names are loaded on first use, so that `import segdistill` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which cannot see through `__getattr__`
    from segdistill.config import Recipe as Recipe
    from segdistill.data import build_dataset as build_dataset
    from segdistill.distillation.catalogue import build_method as build_method
    from segdistill.distillation.method import build_loss as build_loss
    from segdistill.models import build_model as build_model
    from segdistill.models import wrap as wrap
    from segdistill.run.compare import compare as compare
    from segdistill.run.evaluation.evaluate import evaluate as evaluate
    from segdistill.run.evaluation.profile import profile as profile
    from segdistill.run.recipe import load_recipe as load_recipe
    from segdistill.run.reporting.report import report as report
    from segdistill.run.shipping.export import export as export
    from segdistill.run.shipping.predict import load_predictor as load_predictor
    from segdistill.run.shipping.predict import predict as predict
    from segdistill.run.training.distill import distill as distill
    from segdistill.run.training.train import train as train
    from segdistill.run.tuning.tune import tune as tune

__version__ = "0.1.0"

_PUBLIC = {
    "Recipe": "segdistill.config",
    "build_dataset": "segdistill.data",
    "build_loss": "segdistill.distillation.method",
    "build_method": "segdistill.distillation.catalogue",
    "build_model": "segdistill.models",
    "compare": "segdistill.run.compare",
    "distill": "segdistill.run.training.distill",
    "evaluate": "segdistill.run.evaluation.evaluate",
    "export": "segdistill.run.shipping.export",
    "load_predictor": "segdistill.run.shipping.predict",
    "load_recipe": "segdistill.run.recipe",
    "predict": "segdistill.run.shipping.predict",
    "profile": "segdistill.run.evaluation.profile",
    "report": "segdistill.run.reporting.report",
    "train": "segdistill.run.training.train",
    "tune": "segdistill.run.tuning.tune",
    "wrap": "segdistill.models",
}

__all__ = sorted([*_PUBLIC, "__version__"])


if not TYPE_CHECKING:  # a type checker would take every misspelt name for Any

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'segdistill' has no attribute {name!r}")
        return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
