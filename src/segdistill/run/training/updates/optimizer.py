"""The optimiser of a training, its groups of parameters and its learning rate."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from segdistill.config import TrainConfig
from segdistill.distillation.distiller import Distiller
from segdistill.models import encoders


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Factor of the base learning rate at a step: linear warm-up, then poly (1 − step/steps)^power."""
    warm = min((step + 1) / config.warmup, 1.0) if config.warmup else 1.0
    return float(warm * (1 - step / config.steps) ** config.power)


def parameter_groups(distiller: Distiller, config: TrainConfig) -> list[dict[str, Any]]:
    """Group parameters by learning rate: the student's encoder at `lr`, all others at
    `lr * head_lr_factor`. Frozen parameters are left out."""
    if config.head_lr_factor == 1:
        trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
        return [{"params": trained, "factor": 1.0, "name": "all"}]
    inside = {id(p) for part in encoders(distiller.student) for p in part.parameters()}
    groups: dict[str, list[nn.Parameter]] = defaultdict(list)
    for parameter in distiller.parameters():
        if parameter.requires_grad:
            groups["encoder" if id(parameter) in inside else "all others"].append(parameter)
    factors = {"encoder": 1.0, "all others": config.head_lr_factor}
    return [{"params": g, "factor": factors[name], "name": name} for name, g in groups.items()]


def build_optimizer(distiller: Distiller, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, for the student, its alignments and the modules of its losses."""
    groups = parameter_groups(distiller, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
