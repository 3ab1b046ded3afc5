"""Settings of a recipe that do nothing beside the others, which a training warns of before its first step."""

from segdistill.config import EvaluationConfig, Recipe, TrainConfig
from segdistill.distillation.distiller import Distiller


def idle_settings(recipe: Recipe, distiller: Distiller) -> list[str]:
    """What has no effect on this training, one line for each, with what to do.

    Args:
        recipe: The recipe.
        distiller: Its student and the terms that train it.
    """
    found = [
        (
            recipe.teacher is not None and distiller.teacher is None,
            f"nothing learns from the teacher: no term of method {recipe.chosen_method().name} reads it, so this is "
            "plain training. Set method, such as kd, or remove teacher",
        ),
        *_training(recipe.train),
        *_evaluation(recipe.evaluate),
    ]
    return [line for applies, line in found if applies]


def _training(config: TrainConfig) -> list[tuple[bool, str]]:
    of = f"of {config.steps} steps"
    return [
        (config.lr == 0, "train.lr is 0: the student keeps its initial weights. Raise it"),
        (
            config.warmup >= config.steps,
            f"train.warmup is {config.warmup} {of}: the learning rate never reaches train.lr. Lower it",
        ),
        (
            config.val_every > config.steps,
            f"train.val_every is {config.val_every} {of}: the student is evaluated only at the end. Lower it",
        ),
        (
            config.optimizer != "sgd" and config.momentum != TrainConfig.momentum,
            f"train.momentum is {config.momentum:g}, which adamw does not read. Leave it out, or set train.optimizer "
            "to sgd",
        ),
    ]


def _evaluation(config: EvaluationConfig) -> list[tuple[bool, str]]:
    return [
        (
            config.window is None and config.overlap != EvaluationConfig.overlap,
            f"evaluate.overlap is {config.overlap:g}, but there are no windows to overlap. Set evaluate.window",
        )
    ]
