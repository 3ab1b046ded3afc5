"""The short commands: evaluate, predict, profile and reproduce."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segdistill.run.console import render, say
from segdistill.run.evaluation import Protocol, measure
from segdistill.run.evaluation.agreement import agreement
from segdistill.run.evaluation.profile import compare as compare_profiles
from segdistill.run.evaluation.profile import table as profile_table
from segdistill.run.folder import RunFolder
from segdistill.run.identity import check_split, check_teacher
from segdistill.run.networks import load_run_model, load_teacher
from segdistill.run.opening import open_split, resolve_device
from segdistill.run.progress import counting
from segdistill.run.shipping.predict import load_predictor, predict
from segdistill.run.shipping.server import predict_for_server

_log = logging.getLogger(__name__)


def evaluate_run(path: str, weights: str, split: str | None, device: str, **protocol: Any) -> None:
    """Measure a run's network on a split of its data and print the table.

    The protocol is that of the run's recipe, except for values given here. On a split without labels the
    agreement with the run's teacher is measured.
    """
    run = RunFolder(path)
    model = load_run_model(run, weights)
    recipe = run.recipe()
    data, teacher = recipe.data, recipe.teacher
    if split is not None:
        data.val_split = split
    absent = protocol.pop("absent") or recipe.evaluate.absent
    settings = Protocol.of(recipe, **protocol)
    device = resolve_device(device)
    dataset = open_split(data, "val", labelled=teacher is None)
    check_teacher(run)
    if data.val_split == run.recipe().data.val_split:
        check_split(run, dataset)
    if teacher is None or getattr(dataset, "labelled", True):
        result = measure(model, dataset, settings, absent=absent, device=device)
    else:
        known, _ = load_teacher(teacher, dataset.classes)
        result = agreement(model, dataset, known, settings, absent=absent, device=device)
    say(result.table())
    networks = {path: model, **_teacher_of(run)}
    size = data.size or tuple(dataset[0]["image"].shape[-2:])
    say(profile_table(compare_profiles(networks, size)))


def _teacher_of(run: RunFolder) -> dict[str, Any]:
    """The network of a run's teacher, to be timed beside it; empty if the teacher has no run."""
    teacher = run.recipe().teacher
    path = None if teacher is None else teacher.run
    if path is None or not (Path(path) / "model.json").is_file():
        return {}
    return {f"{path} (teacher)": load_run_model(path)}


def predict_run(
    path: str, images: Sequence[str], out: str, weights: str, device: str, server: str | None
) -> None:
    """Segment images with a run's network or an exported one, or write masks for a benchmark's server.

    A run's network is evaluated under the protocol of its recipe.

    Raises:
        ValueError: Both images and a split are given.
    """
    if server is not None:
        if images:
            raise ValueError(
                "predict: both images and --server are given; expected only one of them"
            )
        masks = _masks_for_server(RunFolder(path), server, out, weights, device)
        _log.info("%d masks in %s", len(masks), out)
    else:
        source = load_predictor(path, weights)
        with counting("predicting") as progress:
            written = predict(
                source.network,
                list(images),
                out,
                classes=source.classes,
                palette=source.palette,
                size=source.size,
                device=resolve_device(device),
                progress=progress,
                **source.protocol,
            )
        _log.info("%d masks, their overlays and classes.json in %s", len(written) // 2, out)


def _masks_for_server(
    run: RunFolder, split: str, out: str, weights: str, device: str
) -> list[Path]:
    recipe = run.recipe()
    recipe.data.val_split = split
    dataset = open_split(recipe.data, "val", labelled=False)
    model = load_run_model(run, weights)
    with counting("predicting") as progress:
        return predict_for_server(
            model,
            dataset,
            out,
            Protocol.of(recipe),
            device=resolve_device(device),
            progress=progress,
        )


def profile_networks(
    names: Sequence[str],
    size: tuple[int, int],
    classes: int,
    count: str,
    latency: bool,
    paper: bool,
) -> None:
    """Profile runs and networks side by side, or count the paper's networks, and print the table.

    Raises:
        ValueError: Neither networks nor the paper's table are requested, or both.
    """
    from segdistill.models import build_model
    from segdistill.run.paper.costs import cost_table

    if bool(names) == paper:
        raise ValueError("profile: expected runs or networks, or --table paper, but not both")
    if paper:
        say(render(cost_table(), 160))
        return

    models = {
        name: load_run_model(name) if Path(name).is_dir() else build_model(name, classes)
        for name in names
    }
    say(profile_table(compare_profiles(models, size, count=count, latency=latency)))  # type: ignore[arg-type]


def reproduce_exhibit(what: str, runs: Sequence[str], out: str) -> None:
    """Print runs as a table or figure of the paper."""
    from segdistill.run.paper.reproduce import reproduce

    say(reproduce(what, runs, out))
