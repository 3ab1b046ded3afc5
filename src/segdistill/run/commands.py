"""The short commands: evaluate, predict, profile and reproduce."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from segdistill.config import DataConfig, Recipe, TeacherConfig
from segdistill.names import unknown
from segdistill.run.console import render, say
from segdistill.run.contents import read_json
from segdistill.run.evaluation import Evaluation, Protocol, measure
from segdistill.run.evaluation.agreement import agreement
from segdistill.run.evaluation.evaluate import Absent
from segdistill.run.evaluation.profile import compare as compare_profiles
from segdistill.run.evaluation.profile import table as profile_table
from segdistill.run.evaluation.protocol import check_overlap
from segdistill.run.evaluation.sets import Measuring, Network, teacher_network
from segdistill.run.evaluation.transfer import measure_transfer, transfer_table
from segdistill.run.folder import TRANSFER, RunFolder, write_json
from segdistill.run.identity import check_split, check_teacher
from segdistill.run.identity.data import data_digest
from segdistill.run.identity.seen import check_seen_by
from segdistill.run.lock import writing
from segdistill.run.networks import load_run_model, load_teacher
from segdistill.run.opening import (
    check_set_classes,
    check_set_name,
    open_split,
    refuse_unread_root,
    resolve_device,
    set_data,
)
from segdistill.run.progress import counting
from segdistill.run.recipe import changed_data, parse_recipe
from segdistill.run.shipping.exported import (
    evaluate_exported,
    exported_file,
    recorded_data,
    timed_alone,
)
from segdistill.run.shipping.overwriting.data_folders import refuse_data_folder
from segdistill.run.shipping.predict import load_predictor, predict
from segdistill.run.shipping.server import predict_for_server
from segdistill.trust import from_run

_log = logging.getLogger(__name__)


def evaluate_run(
    path: str,
    weights: str,
    on: str | None,
    changes: Mapping[str, str],
    device: str,
    **protocol: Any,
) -> None:
    """Measure a run's network on a split of its data, or on a further set, and print the table.

    The protocol is that of the run's recipe, except for values given here. On a split without labels the
    agreement with the run's teacher is measured.

    Args:
        path: The run's folder, or what `export` wrote; a file is measured with one view of each image.
        weights: `model` or `best`.
        on: Name of a further set; None: the data alone decides.
        changes: Changes to the recipe's data, by key, as text.
        device: `auto`, `cpu` or `cuda`.
        **protocol: Values that replace the recipe's, and the rule for `absent` classes; None keeps it.
    """
    if (file := exported_file(path)) is not None:
        given = {"weights": None if weights == "model" else weights, "on": on}
        evaluate_exported(file, changes, given, protocol, device)
        return
    run = RunFolder(path)
    model = load_run_model(run, weights)
    data = _data_of(run, on, changes)
    if "root" in changes:
        refuse_unread_root(data)
    device = resolve_device(device)
    check_teacher(run)
    dataset = open_split(data, "val", labelled=on is not None or run.recipe().teacher is None)
    check_set_classes(dataset, run.model_info()["classes"], on or _split_of(data))
    check_seen_by(run.recipe(), on or data.val_split, dataset, _claimed(run, on))
    if on is None:
        result = _on_data(run, model, data, dataset, device, protocol)
    else:
        kept = weights == "model" and all(value is None for value in protocol.values())
        result = _on_set(run, model, on, data, dataset, device, protocol, kept)
    say(result.table())
    networks = {path: model, **_teacher_of(run)}
    size = data.size or tuple(dataset[0]["image"].shape[-2:])
    say(profile_table(compare_profiles(networks, size)))


def _split_of(data: DataConfig) -> str:
    return f"{data.name}, split {data.val_split!r},"


def _claimed(run: RunFolder, on: str | None) -> bool:
    """Whether the claims of a run's comparison are made on this set."""
    return on is not None and on == run.recipe().claims_on


def _data_of(run: RunFolder, on: str | None, changes: Mapping[str, str]) -> DataConfig:
    """The data to measure on: the recipe's or a set's, with changes."""
    recipe = run.recipe()
    if on is None:
        return changed_data(recipe.data, changes)
    check_set_name(on)
    _refuse_changes(on, recipe, changes)
    # A record is read only where nothing else says what the set is: a damaged one is measured again.
    if on in recipe.evaluation:
        data = set_data(recipe.data, recipe.evaluation[on])
    elif changes:
        data = recipe.data
    elif (recorded := run.on_set(on)) is not None:
        data = parse_recipe({"data": recorded["data"]}).data
        data.name = from_run(data.name, str(run.path))
    else:
        known = {*recipe.evaluation, *run.set_names()}
        raise ValueError(
            f"{unknown('evaluation set', on, known)}. Say what it is, such as --data.val_split test"
        )
    return changed_data(data, changes)


def _refuse_changes(on: str, recipe: Recipe, changes: Mapping[str, str]) -> None:
    """Refuse changes to the data of a named set that would replace another set's record, or have no effect."""
    if on == recipe.data.val_split:
        raise ValueError(
            f"evaluate: --on is {on}, the recipe's data.val_split; expected another name, as both are columns. "
            "Choose another"
        )
    if not changes:
        return
    key = next(iter(changes))
    if on in recipe.evaluation:
        raise ValueError(
            f"evaluate: --data.{key} is given with --on {on}, a set of the run's recipe; expected a name of its own "
            "for other data. Choose another name"
        )
    if "size" in changes:
        raise ValueError(
            f"evaluate: --data.size is given with --on {on}; expected none, as sets with a name are measured at the "
            "recipe's data.size. Omit --data.size, or --on"
        )


def _on_data(
    run: RunFolder,
    model: Any,
    data: DataConfig,
    dataset: Any,
    device: str,
    protocol: dict[str, Any],
) -> Evaluation:
    recipe = run.recipe()
    settings, absent = _protocol(replace(recipe, data=data), protocol)
    if data == replace(recipe.data, size=data.size):  # the same images, whatever their size
        check_split(run, dataset)
    if recipe.teacher is None or getattr(dataset, "labelled", True):
        return measure(model, dataset, settings, absent=absent, device=device)
    known, _ = load_teacher(recipe.teacher, dataset.classes)
    return agreement(model, dataset, known, settings, absent=absent, device=device)


def _on_set(
    run: RunFolder,
    model: Any,
    name: str,
    data: DataConfig,
    dataset: Any,
    device: str,
    protocol: dict[str, Any],
    kept: bool,
) -> Evaluation:
    """The metrics on a further set, taken over from the run or measured and, if `kept`, written there."""
    info, recipe = run.model_info(), run.recipe()
    settings, absent = _protocol(recipe, protocol)
    ways = partial(measure, protocol=settings, absent=absent, device=device, gather=list)
    if not kept:
        return ways(model, dataset)
    student = Network(lambda: model, model, info.get("sha256"))
    teacher = _loaded_teacher(run)
    with writing(run.path):
        record = Measuring(run.path, settings, absent, student, teacher, ways).on(
            name, dataset, data, data_digest(dataset, name)
        )
    if "teacher" in record:
        say(f"teacher: {100 * record['teacher']['miou']:.2f} mIoU on {name}")
    return Evaluation.from_json(record)


def measure_transfer_of_run(
    path: str,
    teacher: str | None,
    on: str | None,
    changes: Mapping[str, str],
    given: Mapping[str, Any],
    device: str,
) -> None:
    """Measure what a run's network has of its teacher, keep it in the run, and print it.

    What was measured before of the same weights, teacher, data and protocol is taken over.

    Args:
        path: The run's folder.
        teacher: A run to compare with; None: the teacher of the run's recipe.
        on: Name of a further set; None: the evaluation split.
        changes: Changes to the recipe's data, by key, as text.
        given: Options of `evaluate` that do not apply here; None: not given.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ValueError: The data is changed and has no name, or an option does not apply.
    """
    if asked := [key for key, value in given.items() if value is not None]:
        raise ValueError(
            f"evaluate: --{asked[0]} is given beside --transfer, which measures the last weights under the "
            "recipe's protocol; expected only one of them"
        )
    if exported_file(path) is not None:
        raise ValueError(
            f"evaluate: --transfer is true for {path}, an exported file, whose features cannot be read; expected "
            "a run. Name the run"
        )
    if on is None and changes:
        raise ValueError(
            "evaluate: --transfer is kept in the run by the name of the set, and the changed data has none. "
            "Name it with --on"
        )
    run = RunFolder(path)
    info, recipe = run.model_info(), run.recipe()
    model, data = load_run_model(run), _data_of(run, on, changes)
    dataset, name = open_split(data, "val"), on or data.val_split
    check_set_classes(dataset, info["classes"], name)
    if on is None:
        check_split(run, dataset)
    check_seen_by(recipe, name, dataset, _claimed(run, on))
    check_teacher(run)
    protocol, _ = _protocol(recipe, {})
    known = _compared_with(recipe, teacher, info["classes"])
    of = {
        "weights": info.get("sha256"),
        "teacher": None if known is None else known.weights,
        "data": data_digest(dataset, name),
        "protocol": protocol.describe(model),
    }
    with writing(run.path):
        records = read_json(run.path / TRANSFER) or {}
        before = records.get(name, {})
        # Of an older version, which did not measure where features tell a place.
        lacks = "position" not in before.get("student", {})
        if before.get("of") != of or lacks or None in (of["weights"], of["data"]):
            network = None if known is None else known.model()
            found = measure_transfer(
                model, network, dataset, len(info["classes"]), protocol, resolve_device(device)
            )
            records[name] = {**found.to_json(), "of": of}
            write_json(run.path / TRANSFER, records)
    say(transfer_table(records[name]))


def _compared_with(recipe: Recipe, teacher: str | None, classes: Sequence[str]) -> Network | None:
    """The teacher of a recipe, or the run that is named in its place."""
    config = recipe.teacher if teacher is None else TeacherConfig(run=teacher)
    return None if config is None else teacher_network(*load_teacher(config, classes))


def _loaded_teacher(run: RunFolder) -> Network | None:
    """A run's teacher, to be measured beside it; None, and the log says why, where it is not at hand."""
    config = run.recipe().teacher
    if config is None or config.random:
        return None
    try:
        return teacher_network(*load_teacher(config, run.model_info()["classes"]))
    except (OSError, ValueError) as error:
        _log.warning("the teacher is not measured: %s", error)
        return None


def _protocol(recipe: Recipe, changes: dict[str, Any]) -> tuple[Protocol, Absent]:
    given = {key: value for key, value in changes.items() if key != "absent"}
    protocol = Protocol.of(recipe, **given)
    check_overlap(given.get("overlap"), protocol)
    return protocol, changes.get("absent") or recipe.evaluate.absent


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
        ValueError: Both images and a split are given, or files would be overwritten that `predict` did not write.
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
        refuse_data_folder(_recipe_of(path), out)
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


def _recipe_of(path: str) -> Recipe:
    """The recipe of a run, or what is known of it where the run was exported."""
    if (file := exported_file(path)) is None:
        return RunFolder(path).recipe()
    data = recorded_data(file)
    return Recipe() if data is None else Recipe(data=data)


def _masks_for_server(
    run: RunFolder, split: str, out: str, weights: str, device: str
) -> list[Path]:
    recipe = run.recipe()
    refuse_data_folder(recipe, out)
    recipe.data.val_split = split
    dataset = open_split(recipe.data, "val", labelled=False)
    model = load_run_model(run, weights)
    check_set_classes(dataset, run.model_info()["classes"], _split_of(recipe.data))
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
    """Profile runs, exported files and networks side by side, or count the paper's networks, and print the table.

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

    def network(name: str) -> Any:
        if (file := exported_file(name)) is not None:
            return timed_alone(file, size)
        return load_run_model(name) if Path(name).is_dir() else build_model(name, classes)

    models = {name: network(name) for name in names}
    say(profile_table(compare_profiles(models, size, count=count, latency=latency)))  # type: ignore[arg-type]


def reproduce_exhibit(what: str, runs: Sequence[str], out: str) -> None:
    """Print runs as a table or figure of the paper."""
    from segdistill.run.paper.reproduce import reproduce

    say(reproduce(what, runs, out))
