"""The measurements of a report that run networks: images, class distances, position masks, latency."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from segdistill.config import Recipe
from segdistill.data.channels import in_unit_range, visible
from segdistill.data.samples import read_sample
from segdistill.labels import IGNORED
from segdistill.losses.readout import fit_readout, ramps, score
from segdistill.run.evaluation import Protocol, evaluating, multiple_of, segment, shown
from segdistill.run.evaluation.distances import class_statistics, read_tap
from segdistill.run.evaluation.profile import compare as compare_profiles
from segdistill.run.folder import RunFolder
from segdistill.run.identity import IdentityDiffers, check_split
from segdistill.run.networks import load_run_model, load_teacher
from segdistill.run.opening import open_split
from segdistill.run.reporting.findings import Distances, Findings, Panel, PositionMasks
from segdistill.run.reporting.summary import RunSummary, seed_pairs
from segdistill.run.reporting.verdict import control_of

_log = logging.getLogger(__name__)
_TAP = "features"
_READOUT_STEPS = 300
_READOUT_BYTES = 2**27


@dataclass(frozen=True)
class PictureOptions:
    """Options of the measurements; see `report`."""

    panels: int = 4
    images: int = 100
    latency: bool = True
    dataset: Any = None
    models: Mapping[str, nn.Module] = field(default_factory=dict)
    device: str = "cpu"


@dataclass(frozen=True)
class _Scene:
    """Networks of one seed by label, and the images to run them on.

    `dataset` is the validation set, of which `indices` are used; `training` is None if unknown.
    """

    networks: Mapping[str, nn.Module]
    dataset: Any
    training: Any
    indices: list[int]
    protocol: Protocol
    seed: int | None
    device: torch.device

    def tapped(self) -> dict[str, nn.Module]:
        """The networks that have the tap."""
        return {n: m for n, m in self.networks.items() if _TAP in getattr(m, "taps", {})}

    def chosen_from(self) -> str:
        shown, all_images = len(self.indices), len(self.dataset)
        return f"{shown}" if shown == all_images else f"{shown} (evenly spread over {all_images})"


def measure(
    summaries: Sequence[RunSummary],
    folders: Mapping[str, RunFolder],
    classes: Sequence[str],
    subject: str,
    options: PictureOptions,
) -> Findings:
    """Run the networks of one seed on the images; networks that cannot be rebuilt are left out and noted.

    Args:
        summaries: The runs.
        folders: Folders of the runs, by run name.
        classes: Names of the classes.
        subject: Label of the method shown in the pictures.
        options: Options of the measurements.
    """
    try:
        scene = _scene(summaries, folders, classes, subject, options)
    except IdentityDiffers:
        raise
    except (ValueError, OSError, ImportError, TypeError) as error:
        _log.warning("the report has no pictures: %s", error)
        return Findings(notes=[f"There are no pictures and no class distances: {error}."])
    for network in scene.networks.values():
        network.to(scene.device)
    profiles = _profiles(scene) if options.latency else {}
    panels, panel_rule = _panels(scene, options.panels)
    distances, distances_note = _distances(scene, len(classes))
    positions, positions_note = (
        _positions(scene) if _learns_position(summaries, subject) else ([], "")
    )
    return Findings(
        panels,
        panel_rule,
        distances,
        distances_note,
        positions,
        positions_note,
        profiles,
    )


def _learns_position(summaries: Sequence[RunSummary], subject: str) -> bool:
    rows = (row for run in summaries if run.label == subject for row in run.train_rows)
    return any("position" in term for row in rows for term in row.get("terms", ()))


def _scene(
    summaries: Sequence[RunSummary],
    folders: Mapping[str, RunFolder],
    classes: Sequence[str],
    subject: str,
    options: PictureOptions,
) -> _Scene:
    pairs = seed_pairs(summaries, subject, control_of(summaries, subject))
    own = [run for run in summaries if run.label == subject]
    shown = {run.label: run for run in (reversed(pairs[0]) if pairs else own[:1])}
    first = next(iter(shown.values()))
    recipe = first.recipe or Recipe()
    own_data = options.dataset is not None
    dataset = options.dataset if own_data else open_split(recipe.data, "val")
    train_set = None if own_data else open_split(recipe.data, "train")
    if first.name in folders:
        check_split(folders[first.name], dataset)
        if train_set is not None:
            check_split(folders[first.name], train_set, "train")
    networks = _teacher(summaries, folders, classes, options)
    networks |= {label: _network(run.name, folders, options) for label, run in shown.items()}
    return _Scene(
        networks,
        dataset,
        train_set,
        spread_evenly(len(dataset), options.images),
        Protocol.of(recipe),
        first.seed,
        torch.device(options.device),
    )


def _teacher(
    summaries: Sequence[RunSummary],
    folders: Mapping[str, RunFolder],
    classes: Sequence[str],
    options: PictureOptions,
) -> dict[str, nn.Module]:
    """The teacher by its label; empty without a teacher."""
    name = next((run.name for run in summaries if run.role == "teacher"), None)
    if name is None:
        return {}
    if name in folders:
        return {"teacher": _network(name, folders, options)}
    recipes = [run.recipe for run in summaries if run.recipe is not None]
    known = [recipe.teacher for recipe in recipes if recipe.teacher is not None]
    config = next(teacher for teacher in known if not teacher.random)
    return {"teacher": load_teacher(config, classes)[0]}


def _network(name: str, folders: Mapping[str, RunFolder], options: PictureOptions) -> nn.Module:
    return load_run_model(folders[name], model=options.models.get(name))


def spread_evenly(length: int, count: int) -> list[int]:
    """At most `count` indices below `length`, evenly spread, starting at 0."""
    count = min(length, count)
    return [place * length // count for place in range(count)]


def _profiles(scene: _Scene) -> dict[str, dict[str, Any]]:
    image = _sample(scene.dataset, 0)["image"]
    size = scene.protocol.size or (image.shape[-2], image.shape[-1])
    measured = compare_profiles(scene.networks, size, device=scene.device)
    return {label: profile.to_json() for label, profile in measured.items()}


def _panels(scene: _Scene, count: int) -> tuple[list[Panel], str]:
    compared = [label for label in scene.networks if label != "teacher"]
    if len(compared) < 2:
        indices = [scene.indices[place] for place in spread_evenly(len(scene.indices), count)]
        rule = f"{len(indices)} validation images, evenly spread."
    else:
        indices = _most_disputed(scene, compared, count)
        rule = (
            f"The {len(indices)} of {scene.chosen_from()} validation images on which {compared[0]} "
            f"and {compared[1]} disagree on the most pixels, regardless of which is right. "
            f"Seed {scene.seed}."
        )
    if len(indices) == len(scene.dataset):
        rule = f"Every validation image. Seed {scene.seed}."
    panels = []
    for index in indices:
        sample = _sample(scene.dataset, index)
        seen = {
            label: _prediction(network, sample, scene).numpy().astype(np.uint8)
            for label, network in scene.networks.items()
        }
        image = (
            (visible(in_unit_range(sample["image"])).clamp(0, 1) * 255)
            .round()
            .byte()
            .permute(1, 2, 0)
            .numpy()
        )
        label = sample["label"].numpy().astype(np.uint8)
        panels.append(Panel(sample["name"], image, label, seen))
    return panels, rule


def _prediction(network: nn.Module, sample: Mapping[str, Any], scene: _Scene) -> Tensor:
    with evaluating(network):
        return segment(network, sample, scene.protocol).cpu()


def _most_disputed(scene: _Scene, labels: Sequence[str], count: int) -> list[int]:
    disputed = {}
    for index in scene.indices:
        sample = _sample(scene.dataset, index)
        one, other = (_prediction(scene.networks[label], sample, scene) for label in labels[:2])
        counted = sample["label"] != IGNORED
        disputed[index] = float(((one != other) & counted).sum()) / max(int(counted.sum()), 1)
    return sorted(sorted(disputed, key=lambda index: -disputed[index])[:count])


def _distances(scene: _Scene, num_classes: int) -> tuple[list[Distances], str]:
    tables = []
    subset: Subset[Any] = Subset(scene.dataset, scene.indices)
    for label, network in scene.tapped().items():
        statistics = class_statistics(
            network,
            subset,
            _TAP,
            num_classes=num_classes,
            protocol=scene.protocol,
            device=scene.device,
        )
        tables.append(Distances(label, statistics.distances(), statistics.within_between()))
    note = f"Tap {_TAP}, mean over {scene.chosen_from()} validation images, seed {scene.seed}."
    return tables, note


def _positions(scene: _Scene) -> tuple[list[PositionMasks], str]:
    """Fit a new readout to each network, to measure the position encoded in its features.

    The readout used in training would favour the student, since it was applied after its alignment.
    """
    if scene.training is None:
        return [], ""
    first = _sample(scene.dataset, scene.indices[0])
    masks, r2 = {}, {}
    where: Tensor | None = None
    for label, network in scene.tapped().items():
        shown = _features(network, [first], scene)[0]
        if min(shown.shape[-2:]) < 4:
            return [], ""
        count = int(np.clip(_READOUT_BYTES // (shown.numel() * 4), 4, 32))
        fitting, held_out = (
            [_sample(part, index) for index in spread_evenly(len(part), count)]
            for part in (scene.training, scene.dataset)
        )
        readout = fit_readout(_features(network, fitting, scene), _READOUT_STEPS, seed=0)
        r2[label], _ = score(readout, _features(network, held_out, scene))
        with torch.no_grad():
            masks[label] = readout(shown)[0].cpu().numpy()
        where = ramps(shown)[0].cpu() if where is None else where
    if where is None:
        return [], ""
    note = (
        "A new readout is fitted to each network's frozen features on whole training images, "
        "and scored (R²) on validation images."
    )
    return [PositionMasks(first["name"], where.numpy(), masks, r2)], note


def _sample(dataset: Any, index: int) -> dict[str, Any]:
    image, label, name = read_sample(dataset, index)
    return {"image": image, "label": label.long(), "name": name}


def _features(
    network: nn.Module, samples: Iterable[Mapping[str, Any]], scene: _Scene
) -> list[Tensor]:
    features = []
    with evaluating(network):
        for sample in samples:
            image = sample["image"].to(scene.device)
            images = shown(image, scene.protocol, multiple_of(network))
            features.append(read_tap(network, images, _TAP).float())
    return features
