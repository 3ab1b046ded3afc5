"""`segdistill compare`: methods × seeds from the same start, and a plain verdict."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from segdistill.config import DataConfig, MethodConfig, Recipe
from segdistill.data.dataset import list_names
from segdistill.run.comparing import (
    Entry,
    Finished,
    claims_of,
    finished_runs,
    fold_recipes,
    method_entry,
    register,
    registered,
    same_settings,
    seeds_left_out,
    tuning_remarks,
)
from segdistill.run.console import log_table, spoken
from segdistill.run.contents import read_json
from segdistill.run.folder import (
    RunFolder,
    discarded_if_empty,
    is_in_config,
    keep_in_config,
    output_folder,
    write_json,
)
from segdistill.run.identity.shared import shared_images
from segdistill.run.lock import writing
from segdistill.run.opening import open_split, set_data, with_precision, with_teacher_classes
from segdistill.run.reporting import (
    OnSet,
    RunSummary,
    by_seed,
    by_teacher,
    claim_tables,
    claims_as_json,
    comparison_rows,
    comparison_table,
    context,
    default_subject,
    find_runs,
    further_table,
    gist,
    left_out,
    left_out_in_words,
    summarise,
    teacher_figures,
    teachers_differ,
    times_differ,
    verdicts,
    waiting_in_words,
)
from segdistill.run.rows import (
    Budget,
    check_runs,
    check_semantics,
    checked_entries,
    complete_seeds,
    equal_time,
    frozen,
    measured_run,
    obtain,
)
from segdistill.run.training.updates.finite import NonFiniteLoss
from segdistill.trust import trusting

_log = logging.getLogger(__name__)
READING = ("contrasts", "claims_on", "thin_classes", "scene_frames")
"""Keys of a recipe that later reports of its finished runs read."""


@dataclass(frozen=True)
class _Plan:
    """What is trained in one fold: the entries, and a recipe for each seed and entry, in this order."""

    entries: Sequence[Entry]
    recipes: Sequence[Recipe]
    pairs: Sequence[list[str]]


def compare(
    recipe: Recipe,
    methods: Sequence[str] | None = None,
    seeds: int = 3,
    first_seed: int = 0,
    name: str = "compare",
    progress: bool = True,
    trust: bool = False,
    budget: Budget = "steps",
) -> list[RunSummary]:
    """Train the recipe's student with each method and seed; print and write the comparison.

    With the same seed, all methods start from the same weights and see the same crops in the same order,
    for the same number of steps. Finished runs are reused, so the same command resumes an interrupted
    comparison. `supervised` is the control: the student without a teacher. With `folds` in the recipe, all of
    this happens in each fold, on its own data and with its own teacher, and the folds are pooled.

    Args:
        recipe: Data, student, teacher and training. Its `terms` apply to the methods that have them.
        methods: Names of methods (`idd:paper` selects a preset) and of the recipe's `variants`. None:
            the control and the variants or, without variants, kd, cwd and idd. A variant's changes are
            merged with the recipe's; it may be a control or a placebo.
        seeds: Number of seeds.
        first_seed: First of the seeds.
        name: Names the folder of the runs, `runs/<name>`, if the recipe has no `out`.
        progress: Show progress and the table, unless the application has set up logging.
        trust: As for `train`.
        budget: `steps`: all rows train for `train.steps`. `time`: all train for as long as the slowest row with
            these steps. Costs of steps are measured side by side before the first training, and frozen in
            `costs.json`; without `out` the folder is `runs/<name>-time`.

    Returns:
        A summary of each run, including the teacher's. `comparison.json` in the folder holds the content
        of the table.

    Raises:
        IdentityDiffers: A finished run in the folder has another student, teacher or data set.
        FolderInUse: Another process writes to the folder.
        NonFiniteLoss: A training diverged; raised after the others, with the table of what is finished.
        ValueError: A method does not exist, a distillation method has no teacher, a term of the recipe
            belongs to no method, two entries share a label, or one cannot be trained. Raised before
            anything is trained.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; expected a positive integer")
    if budget not in get_args(Budget):
        raise ValueError(f"budget is {budget!r}; expected {' or '.join(get_args(Budget))}")
    base = Path(recipe.out or (f"runs/{name}" if budget == "steps" else f"runs/{name}-time"))
    folds = fold_recipes(recipe, base)
    with spoken(progress), trusting(trust), discarded_if_empty(base), writing(output_folder(base)):
        folds = {fold: with_precision(one) for fold, one in folds.items()}
        steps: Mapping[str, int] = {}
        if budget == "time":
            if frozen(base) is None:  # nothing is measured for a comparison that is refused
                _check_plans(_plans(folds, methods, range(first_seed, first_seed + 1), {}))
            steps = equal_time(_rows(next(iter(folds.values())), methods, first_seed), base)
        plans = _plans(folds, methods, range(first_seed, first_seed + seeds), steps)
        _check_plans(plans)
        return _compared(recipe, plans, base, steps, progress)


def _compared(
    recipe: Recipe,
    plans: Mapping[str, _Plan],
    base: Path,
    steps: Mapping[str, int],
    progress: bool,
) -> list[RunSummary]:
    """Train what plans name, register claims before it, and write the comparison of what is finished."""
    plan = next(iter(plans.values()))
    seeds = {run.train.seed for one in plans.values() for run in one.recipes}
    for remark in tuning_remarks(recipe, plan.entries, seeds):
        _log.warning("%s", remark)
    finished = _finished(recipe, plans)
    planned = {Path(str(run.out)).resolve() for one in plans.values() for run in one.recipes}
    others = seeds_left_out(finished, planned, [entry.label for entry in plan.entries])
    _tell_seeds(others)
    counts = Counter(run.label for run in finished)
    register(base, plan.pairs, recipe.claims_on, counts)
    diverged: dict[Path, NonFiniteLoss] = {}
    trained = {fold: _trained(one, progress, diverged) for fold, one in plans.items()}
    _name_others(finished, plans)
    runs = {fold: found for fold, found in trained.items() if found}
    if not runs:
        _refuse_diverged(diverged)
    summaries = conclude(runs[""], base) if "" in runs else _conclude_folds(runs, base)
    names = [out.relative_to(base).as_posix() for out in diverged]
    _add(base, equal_time=dict(steps), seeds_left_out=others, diverged=names)
    _refuse_diverged(diverged)
    return summaries


def _add(base: Path, **further: Any) -> None:
    """Add what is not empty to comparison.json."""
    if given := {key: value for key, value in further.items() if value}:
        content = read_json(base / "comparison.json") or {}
        write_json(base / "comparison.json", {**content, **given})


def _rows(recipe: Recipe, methods: Sequence[str] | None, seed: int) -> dict[str, Recipe]:
    """The recipe of one run of each row, by label."""
    entries = checked_entries(recipe, methods)
    return {entry.label: entry.run(seed, Path(str(recipe.out))) for entry in entries}


def _plans(
    folds: Mapping[str, Recipe],
    methods: Sequence[str] | None,
    seeds: range,
    steps: Mapping[str, int],
) -> dict[str, _Plan]:
    return {fold: _plan(recipe, methods, seeds, steps) for fold, recipe in folds.items()}


def _plan(
    recipe: Recipe, methods: Sequence[str] | None, seeds: range, steps: Mapping[str, int]
) -> _Plan:
    """What is trained with a recipe; `steps` are by label, where they are not the recipe's."""
    entries = checked_entries(recipe, methods)
    pairs = claims_of(recipe, entries)
    out = Path(str(recipe.out))

    def row(entry: Entry, seed: int) -> Recipe:
        made = entry.run(seed, out)
        train = replace(made.train, steps=steps.get(entry.label, made.train.steps))
        return replace(made, train=train, contrasts=pairs)

    def rows(seed: int) -> list[Recipe]:
        return [row(entry, seed) for entry in entries]

    chosen = complete_seeds(rows, seeds.start, len(seeds))
    return _Plan(entries, [recipe for seed in chosen for recipe in rows(seed)], pairs)


def _check_plans(plans: Mapping[str, _Plan]) -> None:
    """Refuse what cannot be trained in any fold, before anything is trained."""
    # Over all folds, since they are pooled.
    check_semantics([recipe for plan in plans.values() for recipe in plan.recipes])
    for plan in plans.values():
        check_runs(plan.entries, plan.recipes, "compare")
    _check_apart({fold: plan.recipes[0] for fold, plan in plans.items()})
    _tell_equal(next(iter(plans.values())).entries)
    _tell_random(next(iter(plans.values())).entries)


def _check_apart(folds: Mapping[str, Recipe]) -> None:
    """Refuse folds whose claims are made on the same images, which pooling would count twice."""
    if len(folds) < 2:
        return
    used = {fold: open_split(_claimed_on(recipe), "val") for fold, recipe in folds.items()}
    for one, other in combinations(used, 2):
        if shared := shared_images(used[one], used[other]):
            raise ValueError(
                f"folds.{one} and folds.{other} are both judged on {len(shared)} images "
                f"({list_names(shared)}); expected none in common, as folds are pooled. Change the data or "
                "evaluation of one of them"
            )


def _claimed_on(recipe: Recipe) -> DataConfig:
    """The data that claims and verdicts are made on."""
    further = recipe.evaluation.get(recipe.claims_on or "")
    return with_teacher_classes(recipe).data if further is None else set_data(recipe.data, further)


def _finished(recipe: Recipe, plans: Mapping[str, _Plan]) -> list[Finished]:
    """All finished runs of the comparison, of other rows and seeds as well."""
    folders = [Path(str(plan.recipes[0].out)).parent for plan in plans.values()]
    return finished_runs(recipe, next(iter(plans.values())).entries, folders)


def _tell_seeds(left_out: Mapping[str, Sequence[int]]) -> None:
    if left_out:
        told = [f"{', '.join(map(str, seeds))} of {label}" for label, seeds in left_out.items()]
        _log.warning(
            "left out, though finished: seeds %s. Seeds that are chosen by their results prove nothing",
            list_names(told),
        )


def _trained(plan: _Plan, progress: bool, diverged: dict[Path, NonFiniteLoss]) -> list[RunFolder]:
    """The runs of a plan, trained or taken over, with their labels and roles; others are added to `diverged`."""
    recipes = plan.recipes
    runs: dict[int, RunFolder] = {}
    for place in _order(recipes):
        out = Path(str(recipes[place].out))
        try:
            runs[place] = obtain(recipes[place], progress)
        except NonFiniteLoss as error:
            diverged[out] = error
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # the other processes wait for this one
                _refuse_diverged(diverged)
            _log.warning("%s diverged: %s", out, error)
    for place, run in runs.items():
        _name(run, recipes[place])
    return [runs[place] for place in sorted(runs)]


def _refuse_diverged(diverged: Mapping[Path, NonFiniteLoss]) -> None:
    if diverged:
        names, error = list_names([str(out) for out in diverged]), next(iter(diverged.values()))
        one = len(diverged) == 1
        raise NonFiniteLoss(
            f"{names} diverged and {'is' if one else 'are'} not in the table: {error}"
        )


def _order(recipes: Sequence[Recipe]) -> list[int]:
    """Finished runs first, so that a mismatch is refused before anything is trained.

    Of each seed, runs with a teacher come first: a teacher that is too poor is found before their step 1.
    """

    def rank(place: int) -> tuple[bool, int, bool]:
        recipe = recipes[place]
        return measured_run(recipe) is None, recipe.train.seed, recipe.teacher is None

    return sorted(range(len(recipes)), key=rank)


def _tell_equal(entries: Sequence[Entry]) -> None:
    for one, other in combinations(entries, 2):
        if same_settings(one.recipe, other.recipe):
            _log.warning(
                "%s and %s have the same settings, so any difference between them is chance",
                one.label,
                other.label,
            )


def _tell_random(entries: Sequence[Entry]) -> None:
    random = [entry.label for entry in entries if entry.recipe.random_teacher]
    if random:
        _log.info(
            "%s: a placebo whose teacher has random weights; all other rows share one teacher",
            list_names(random),
        )


def _name_others(finished: Sequence[Finished], plans: Mapping[str, _Plan]) -> None:
    """Give finished runs that are not compared this time the claims and names of now, which a report reads, too."""
    plan = next(iter(plans.values()))
    compared = {entry.folder for entry in plan.entries}
    reading = {key: getattr(plan.recipes[0], key) for key in READING}
    for run in finished:
        if run.entry.folder not in compared:
            _name(RunFolder(run.path), replace(run.entry.recipe, **reading))


def _name(run: RunFolder, recipe: Recipe) -> None:
    """Give a finished run the label and role of this comparison, which later reports read."""
    names = {key: getattr(recipe, key) for key in ("label", "role", "tests")}
    reading = {key: getattr(recipe, key) for key in READING}
    if os.environ.get("RANK", "0") != "0" or is_in_config(run, names | reading):
        return
    told = ", ".join(f"{key}: {name}" for key, name in names.items() if name is not None)
    if not is_in_config(run, names):
        _log.info("%s is named anew in its config.yaml (%s)", run.path, told or "no label")
    with writing(run.path):
        keep_in_config(run, names | reading)


def one_run(recipe: Recipe, method: MethodConfig, seed: int, base: Path) -> Recipe:
    """The recipe of one run of a comparison: a method of the catalogue and a seed."""
    return method_entry(recipe, method).run(seed, base)


def conclude(runs: Sequence[RunFolder], base: Path) -> list[RunSummary]:
    """Log table, verdict and gist of finished runs, and write them to `comparison.json`."""
    summaries = tabulate(runs, base)
    if (saved := gist(summaries, default_subject(summaries))) is not None:
        _log.info("%s", saved)
    return summaries


def tabulate(runs: Sequence[RunFolder], base: Path) -> list[RunSummary]:
    """As `conclude`, without the gist, which a report logs."""
    summaries = summarise(find_runs([run.path for run in runs]))
    _tell(summaries, base)
    return summaries


def _conclude_folds(folds: Mapping[str, Sequence[RunFolder]], base: Path) -> list[RunSummary]:
    """Conclude each fold in its own folder, then all of them with the fold as block."""
    together: list[RunSummary] = []
    for fold, runs in folds.items():
        _log.info("fold %s", fold)
        summaries = conclude(runs, base / fold)
        together += [replace(one, fold=fold, name=f"{fold}/{one.name}") for one in summaries]
    _log.info("all %d fold%s", len(folds), "s" * (len(folds) != 1))
    _tell(together, base)
    return together


def _tell(summaries: Sequence[RunSummary], base: Path) -> None:
    tables = [comparison_table(summaries), further_table(summaries), *claim_tables(summaries)]
    for table in filter(None, tables):
        log_table(_log, table)
    if (waits := waiting_in_words(summaries)) is not None:
        _log.info("%s", waits)
    _log.info("%s", context(summaries))
    for note in filter(None, (teachers_differ(summaries), left_out_in_words(summaries))):
        _log.info("%s", note)
    for verdict in verdicts(summaries):
        _log.info("%s. %s", verdict.headline, " ".join(verdict.details))
    values = as_json(summaries)
    if (before := registered(base)) is not None and "claims" in values:
        values["claims_registered_after"] = before["finished_before"]
    write_json(base / "comparison.json", values)


def as_json(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """The comparison as plain values: mIoU in points, by label and seed.

    `minus_control` is the difference from the first control; `contrasts` has all controls and placebos.
    """
    rows = {}
    for row in comparison_rows(summaries):
        runs = [s for s in summaries if s.label == row.label]
        rows[row.label] = {
            "role": row.role,
            **({"tests": row.tests} if row.tests else {}),
            "miou_mean": row.miou,
            "miou_sd": row.miou_sd,
            "miou_by_seed": by_seed(runs),
            "minus_control": row.difference.differences if row.difference else None,
            "seconds_per_step": row.seconds_per_step,
            **({"sets": _sets_as_json(row.sets)} if row.sets else {}),
            **({"thin_classes": _sets_as_json(row.thin)} if row.thin else {}),
        }
    judged = verdicts(summaries)
    differ = times_differ(summaries)
    several = teachers_differ(summaries)
    return {
        "methods": rows,
        "teacher": teacher_figures(summaries),
        **({"teachers": by_teacher(summaries)} if several else {}),
        **({"left_out_classes": without} if (without := left_out(summaries)) else {}),
        "verdict": {v.label: [v.headline, *v.details] for v in judged},
        "tone": {v.label: v.tone for v in judged},
        "control": {v.label: v.control for v in judged},
        **claims_as_json(summaries),
        "contrasts": [asdict(contrast) for v in judged for contrast in v.contrasts],
        "times": {"comparable": not differ, "differ": differ},
        "environment": next((dict(s.environment) for s in summaries if s.environment), {}),
    }


def _sets_as_json(sets: Mapping[str, OnSet]) -> dict[str, Any]:
    return {
        name or "val": {
            "miou_mean": found.miou,
            "miou_sd": found.miou_sd,
            "miou_by_seed": dict(found.by_seed),
            "minus_control": found.difference.differences if found.difference else None,
        }
        for name, found in sets.items()
    }
