"""`segdistill tune`: choose each entry's learning rate and weights by equally many trials."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segdistill.config import DataConfig, Recipe, TeacherConfig, TuningConfig, check_keys, to_dict
from segdistill.run.comparing import entry_of
from segdistill.run.console import log_table, spoken
from segdistill.run.contents import read_json
from segdistill.run.folder import discarded_if_empty, output_folder, write_atomically, write_json
from segdistill.run.lock import writing
from segdistill.run.opening import open_split, with_precision, with_teacher_classes
from segdistill.run.recipe import joined, parse_recipe, tell_dropped
from segdistill.run.rows import check_runs, checked_entries, measured_run, obtain
from segdistill.run.training.checks import check_recipe
from segdistill.run.training.updates.finite import NonFiniteLoss
from segdistill.run.tuning.chosen import FILE, earlier, tuned_recipe
from segdistill.run.tuning.grid import Grid
from segdistill.run.tuning.outcome import RULE, Outcome, Tuned, as_json, table, tuned
from segdistill.run.tuning.trials import Trial, trials_of
from segdistill.run.tuning.unreported import check_unreported
from segdistill.trust import trusting

_log = logging.getLogger(__name__)
TRIALS = 9
_UNREPORTED: dict[str, Any] = {"evaluation": {}, "contrasts": [], "claims_on": None, "folds": {}}
"""Trials are neither measured on what is reported, nor make claims."""


@dataclass(frozen=True)
class _Run:
    """One training: a trial with one of the seeds."""

    trial: Trial
    place: int
    seed: int
    recipe: Recipe


def tune(
    recipe: Recipe,
    methods: Sequence[str] | None = None,
    trials: int = TRIALS,
    name: str = "tune",
    source: str | Path | None = None,
    progress: bool = True,
    trust: bool = False,
) -> list[Tuned]:
    """Choose learning rate and weights of each method, by equally many trials on data of their own.

    Every entry of the comparison, controls and placebos included, is trained on the same grid: factors of
    the learning rate times factors of all its distillation weights together; entries without such weights
    vary the weight decay instead. The trials lie on the data and with the teacher and seeds that the
    recipe's `tuning` names. Each is a run of its own, and finished ones are reused, so the same command
    resumes, and more trials add to fewer.

    Args:
        recipe: Data, student, teacher, training, variants and `tuning`.
        methods: As for `segdistill.compare`.
        trials: Number of trials of each entry, at most the settings of the grid.
        name: Names the folder of the runs, `runs/<name>-tuning`, if the recipe has no `out`.
        source: File of the recipe, which the written recipe names as its `base`. None: it holds the whole
            recipe.
        progress: Show progress and the table, unless the application has set up logging.
        trust: As for `train`.

    Returns:
        Each entry with its trials and the chosen one. `tuned.yaml` in the folder holds the chosen settings
        as a recipe for `compare`, and `tuning.json` all trials.

    Raises:
        IdentityDiffers: A finished trial in the folder has another student, teacher or data set.
        FolderInUse: Another process writes to the folder.
        ValueError: The recipe's `tuning` is missing or wrong, or evaluates on images that the recipe
            reports; an entry does not exist or cannot be trained; all trials of an entry diverged. All but
            the last are raised before anything is trained.
    """
    tuning = with_precision(on_tuning_data(recipe))
    config = recipe.tuning or TuningConfig()
    entries = checked_entries(tuning, methods, "tune")
    places = Grid.of(config).places(trials)
    if len(set(config.seeds)) != len(config.seeds) or not config.seeds:
        raise ValueError(f"tuning.seeds is {config.seeds}; expected one or several different seeds")
    check_unreported(with_teacher_classes(recipe), with_teacher_classes(tuning))
    classes = len(open_split(with_teacher_classes(tuning).data, "train", labelled=False).classes)
    searched = [trials_of(entry, Grid.of(config), places, classes) for entry in entries]
    base = Path(recipe.out or f"runs/{name}-tuning")
    runs = [
        _Run(trial, place, seed, trial.run(seed, base))
        for place in range(trials)
        for seed in config.seeds
        for trial in (found[place] for found in searched)
    ]
    with spoken(progress), trusting(trust), discarded_if_empty(base), writing(output_folder(base)):
        for run in runs:
            check_recipe(run.recipe)
        check_runs(entries, [run.recipe for run in runs], "tune")
        miou = _train(runs, progress)
        rows = [
            tuned([_outcome(trial, config.seeds, miou) for trial in found]) for found in searched
        ]
        _write(base, recipe, tuning, rows, None if source is None else Path(source))
        return rows


def on_tuning_data(recipe: Recipe) -> Recipe:
    """The recipe with the data and teacher of its `tuning`.

    Raises:
        ValueError: `tuning` names no data, or a key or value in it is wrong.
    """
    config = recipe.tuning
    if config is None or not config.data:
        raise ValueError(
            "the recipe has no tuning.data; expected changes to data that no reported figure uses, such as "
            "tuning: {data: {options: {seed: 11}}}. Add them"
        )
    kinds: dict[str, type] = {"data": DataConfig, "teacher": TeacherConfig}
    changes = {part: getattr(config, part) for part in kinds}
    for part, kind in kinds.items():
        check_keys(changes[part], kind, f"tuning.{part}.")
    if recipe.teacher is None and config.teacher:
        raise ValueError(
            "tuning.teacher changes the teacher, but the recipe has no teacher. Add one"
        )
    parts = {part: to_dict(recipe)[part] for part in kinds}
    tell_dropped(parts, changes, "tuning")
    try:
        made = parse_recipe(joined(parts, {k: v for k, v in changes.items() if v}))
    except ValueError as error:
        raise ValueError(f"tuning.{str(error).removeprefix('recipe: ')}") from None
    return replace(
        recipe, data=made.data, teacher=made.teacher, tuning=None, evaluation={}, out=None
    )


def _train(runs: Sequence[_Run], progress: bool) -> dict[tuple[str, int], float | None]:
    """mIoU of each trial and seed, in points; None where the training diverged.

    Finished runs come first, so that a mismatch is refused before anything is trained; then one trial of
    every entry after the other, those with a teacher first.
    """
    done = {run.recipe.out: measured_run(run.recipe) is not None for run in runs}
    _log.info("tune: %d runs, of which %d are finished", len(runs), sum(done.values()))

    def rank(run: _Run) -> tuple[bool, int, bool]:
        return not done[run.recipe.out], run.place, run.recipe.teacher is None

    return {(r.trial.name, r.seed): _miou(r.recipe, progress) for r in sorted(runs, key=rank)}


def _miou(recipe: Recipe, progress: bool) -> float | None:
    try:
        figures = obtain(recipe, progress).evaluation()
    except NonFiniteLoss as error:
        _log.warning("%s diverged and is not chosen: %s", recipe.out, error)
        return None
    assert figures is not None
    return 100 * float(figures["miou"])


def _outcome(
    trial: Trial, seeds: Sequence[int], miou: Mapping[tuple[str, int], float | None]
) -> Outcome:
    return Outcome(trial, {seed: miou[trial.name, seed] for seed in seeds})


def _write(
    base: Path, recipe: Recipe, tuning: Recipe, rows: Sequence[Tuned], source: Path | None
) -> None:
    """Log the table and the edges, and write the recipe and all trials."""
    log_table(_log, table(rows))
    for row in rows:
        for edge in row.edges():
            _log.info(
                "%s: the chosen trial has the %s of those tried, so a better one may lie beyond. Add trials, or "
                "factors to tuning",
                row.label,
                edge,
            )
    on = {part: to_dict(tuning)[part] for part in ("data", "teacher")}
    kept = earlier(recipe, rows, base, on)
    content: dict[str, Any] = {
        "rule": RULE,
        **on,
        "methods": {**_earlier_trials(base, recipe, kept["trials"]), **as_json(rows)},
    }
    write_json(base / "tuning.json", content)
    write_atomically(base / FILE, tuned_recipe(recipe, rows, base, source, kept))
    _log.info("%s holds the chosen settings: segdistill compare %s", base / FILE, base / FILE)


def _earlier_trials(base: Path, recipe: Recipe, names: Collection[str]) -> dict[str, Any]:
    """The trials in tuning.json of rows that were tuned before, by label."""
    before = (read_json(base / "tuning.json") or {}).get("methods", {})
    labels = [entry_of(recipe, name).label for name in names if name in recipe.variants]
    labels += ["control" if name == "supervised" else name.replace("-", ":") for name in names]
    return {label: trials for label, trials in before.items() if label in labels}
