"""Build the networks of a run, save them and load them."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from segdistill.config import ModelConfig, TeacherConfig
from segdistill.distillation.taps import tap_paths
from segdistill.models import build_model, build_trained, network, wrap
from segdistill.models.files.weights import ClassesDiffer
from segdistill.models.foreign.relabelled import Relabelled, resolve_labels
from segdistill.models.foreign.resampled import ResampledInput
from segdistill.models.foreign.wrapped import read_as
from segdistill.models.untrained import untrain
from segdistill.run.folder import WEIGHTS, RunFolder, file_sha256, write_atomically
from segdistill.run.identity import check_network

_log = logging.getLogger(__name__)


def build_student(config: ModelConfig, num_classes: int, seed: int) -> nn.Module:
    """Build the network to train; its initial weights depend only on the seed.

    Args:
        config: Name, weights, options and additional taps.
        num_classes: Classes of the data.
        seed: Seeds torch's generator before the weights are drawn.

    Raises:
        ValueError: As for `build_model`, or the weights do not fit.
    """
    torch.manual_seed(seed)
    if config.weights is None:
        model = build_model(config.model, num_classes, factory=config.factory, **config.options)
        report = model.weights_report
    else:
        try:
            model, report = build_trained(
                config.model,
                num_classes,
                config.weights,
                factory=config.factory,
                **config.options,
            )
        except ClassesDiffer as error:
            raise ValueError(
                f"student.weights: {config.weights} has {error.file} classes; expected {num_classes}, as in the "
                "data. Name a file for these classes, or change data.options.classes"
            ) from error
    if report is not None:
        _log.info("student weights: %s", report)
    add_taps(model, config.taps)
    return model


def add_taps(model: nn.Module, taps: dict[str, str]) -> None:
    """Add taps to a network, or change the paths of existing ones."""
    if taps:
        setattr(model, "taps", {**tap_paths(model), **taps})  # noqa: B010  a plain attribute, no tensor


def load_teacher(config: TeacherConfig, classes: Sequence[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Load the teacher of a recipe; return it with a record of its source.

    With `random`, what has been loaded gets random weights instead; without trained ones it need not
    be complete.

    Args:
        config: The teacher as the recipe states it.
        classes: Names of the data's classes.

    Raises:
        ValueError: Neither a run nor a model is named, the weights are missing or do not fit, or the
            teacher has another number of classes and `labels` does not map them.
    """
    labels, known = config.labels, None
    num_classes = len(classes) if labels is None else len(labels)
    if config.run is not None:
        folder = RunFolder(config.run)
        if not folder.finished:
            raise ValueError(
                f"teacher.run {config.run} is not finished. Resume it with `segdistill train`"
            )
        model = load_run_model(folder)
        known = folder.model_info()["classes"]
        origin: dict[str, Any] = {"run": str(folder.path), "load": "every key matched"}
        origin["sha256"] = folder.model_info().get("sha256")
    elif config.model is not None:
        origin = {"model": config.model, "weights": config.weights}
        if config.weights is None:
            model = build_model(config.model, num_classes, factory=config.factory, **config.options)
            report = model.weights_report
            if report is None and "weights" not in config.options and not config.random:
                raise ValueError(
                    "teacher.weights is null; expected a file of trained weights. Name one, or set teacher.run"
                )
            if report is not None and not report.complete and not config.random:
                raise ValueError(
                    f"teacher.model is partly untrained ({report}). Set teacher.weights"
                )
        else:
            try:
                model, report = build_trained(
                    config.model,
                    num_classes,
                    config.weights,
                    factory=config.factory,
                    **config.options,
                )
            except ClassesDiffer as error:
                raise ValueError(_other_classes(config, error.file, num_classes)) from error
            origin["sha256"] = _file_digest(config.weights)
        if report is not None:
            _log.info("teacher weights: %s", report)
            origin["load"] = str(report)
    else:
        raise ValueError(
            "teacher has no run and no model. Set teacher.run, or a model and its weights"
        )
    if config.random:
        untrain(model, int(getattr(model, "in_channels", 3)))
        origin = {**origin, "random": True, "load": "random weights"}
        # That of a file that does not teach.
        origin.pop("sha256", None)
    add_taps(model, config.taps)
    if config.channels is not None or config.scale != 1:
        origin["shown"] = {"channels": config.channels, "scale": config.scale}
        count = getattr(model, "num_classes", num_classes)
        model = ResampledInput(wrap(model, count), config.channels, config.scale)
    if labels is not None:
        origin["labels"] = {str(theirs): ours for theirs, ours in labels.items()}
        return relabelled(model, labels, classes, known), origin
    count = getattr(model, "num_classes", num_classes)
    if count != num_classes:
        raise ValueError(
            f"the teacher has {count} classes; expected {num_classes}, as in the data. Map its classes with "
            "teacher.labels, or use a teacher trained on these classes"
        )
    return model, origin


def _file_digest(path: str) -> str | None:
    return file_sha256(Path(path)) if Path(path).is_file() else None


def _other_classes(config: TeacherConfig, file: int, expected: int) -> str:
    if config.labels is not None:
        return f"teacher.labels maps {expected} classes; expected {file}, as in {config.weights}. Map each once"
    return (
        f"teacher.weights: {config.weights} has {file} classes; expected {expected}, as in the data. Map "
        "its classes with teacher.labels, or change data.options.classes"
    )


def relabelled(
    model: nn.Module,
    labels: Mapping[Any, Any],
    classes: Sequence[str],
    known: Sequence[str] | None = None,
) -> Relabelled:
    """Map a teacher's classes to those of the data; arguments as for `resolve_labels`.

    Raises:
        ValueError: As there, or the numbers of classes of the teacher and `labels` differ.
    """
    assigned = resolve_labels(labels, classes, known)
    count = getattr(model, "num_classes", len(assigned))
    if count != len(assigned):
        raise ValueError(
            f"teacher.labels maps {len(assigned)} classes; expected {count}, as in the teacher. Map each once"
        )
    return Relabelled(wrap(model, count), assigned, len(classes))


def weights_bytes(model: nn.Module) -> bytes:
    """The network's state as safetensors, without wrapper, alignment or teacher.

    Tensors that share memory, such as tied weights, are stored under each of their names.
    """
    state: dict[str, torch.Tensor] = {}
    stored: set[int] = set()
    for name, value in network(model).state_dict().items():
        plain = value.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        state[name] = plain.clone() if place in stored else plain
        stored.add(place)
    return bytes(save(state))


def save_network(model: nn.Module, folder: Path, weights: str = "model") -> str:
    """Save the network's weights in a run; the SHA-256 of the file, in hexadecimal."""
    content = weights_bytes(model)
    write_atomically(folder / WEIGHTS[weights], content)
    return hashlib.sha256(content).hexdigest()


def load_run_model(
    run: RunFolder | str | Path, weights: str = "model", model: nn.Module | None = None
) -> nn.Module:
    """Load the network of a run strictly, in `eval()` mode.

    Args:
        run: The run or its folder.
        weights: `model` for the last weights, `best` for the best on validation.
        model: The network, if the run trained a module that cannot be rebuilt by name.

    Raises:
        FileNotFoundError: The run has no such weights.
        ValueError: The network cannot be rebuilt by name and `model` is None, it is code that the user
            does not trust, the weights do not fit `model`, `model` reads or computes otherwise than in
            training, or the training did not write the weights.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    info = folder.model_info()
    given = model is not None
    if model is None:
        if not info.get("rebuild", True):
            raise ValueError(
                f"{folder.path} trained a custom module ({info['name']}), which cannot be rebuilt by name. Pass "
                "it as model="
            )
        options = {k: v for k, v in info["options"].items() if k not in ("weights", "factory")}
        factory = info.get("factory") is True
        model = build_model(info["name"], info["num_classes"], factory=factory, **options)
    elif (told := info.get("read_as", {})) != read_as(model):
        settings = ", ".join(f"{key}={value!r}" for key, value in told.items()) or "neither"
        raise ValueError(
            f"model= was wrapped with another output or final_activation than that of {folder.path}; expected "
            f"{settings}. Pass segdistill.wrap(module, ..) as in training"
        )
    path = folder.weights_path(weights)
    folder.check_weights(weights)
    try:
        network(model).load_state_dict(load_file(path), strict=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such weights in that run") from None
    except (RuntimeError, SafetensorError) as error:
        cause = " ".join(str(error).split())
        raise ValueError(
            f"{path} does not fit {type(network(model)).__name__}: {cause:.300}"
        ) from None
    # Afterwards, since other shapes are told more plainly.
    check_network(folder, model, info["num_classes"], given)
    return model.eval()
