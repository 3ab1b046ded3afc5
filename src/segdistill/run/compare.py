"""`segdistill compare`: methods × seeds from the same start, and a plain verdict."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segdistill.config import DataConfig, MethodConfig, Recipe
from segdistill.distillation.catalogue import METHODS, method_terms
from segdistill.distillation.method import override
from segdistill.names import unknown
from segdistill.run.console import log_table, spoken
from segdistill.run.folder import RunFolder, discarded_if_empty, output_folder, write_json
from segdistill.run.identity import TRAINING_SEMANTICS, IdentityDiffers, semantics_of
from segdistill.run.lock import writing
from segdistill.run.opening import open_split, with_teacher_classes
from segdistill.run.reporting import (
    RunSummary,
    comparison_rows,
    comparison_table,
    context,
    default_subject,
    find_runs,
    gist,
    summarise,
    verdicts,
)
from segdistill.run.training.train import train
from segdistill.trust import trusting

_log = logging.getLogger(__name__)
RIVALS = ("kd", "cwd", "idd")


def compare(
    recipe: Recipe,
    methods: Sequence[str] | None = None,
    seeds: int = 3,
    first_seed: int = 0,
    name: str = "compare",
    progress: bool = True,
    trust: bool = False,
) -> list[RunSummary]:
    """Train the recipe's student with each method and seed; print and write the comparison.

    With the same seed, all methods start from the same weights and see the same crops in the same order,
    for the same number of steps. Finished runs are reused, so the same command resumes an interrupted
    comparison. `supervised` is the control: the student without a teacher.

    Args:
        recipe: Data, student, teacher and training. Its `terms` apply to the methods that have them.
        methods: Names of methods (`idd:paper` selects a preset) and of the recipe's `variants`. None:
            the control and the variants or, without variants, kd, cwd and idd.
        seeds: Number of seeds.
        first_seed: First of the seeds.
        name: Names the folder of the runs, `runs/<name>`, if the recipe has no `out`.
        progress: Show progress and the table, unless the application has set up logging.
        trust: As for `train`.

    Returns:
        A summary of each run, including the teacher's. `comparison.json` in the folder holds the content
        of the table.

    Raises:
        IdentityDiffers: A finished run in the folder has another student, teacher or data set.
        FolderInUse: Another process writes to the folder.
        ValueError: A method does not exist, a distillation method has no teacher, a term of the recipe
            belongs to no method, or a variant cannot be built.
    """
    names = methods or ["supervised", *(recipe.variants or RIVALS)]
    selected = {text: _method(recipe, text) for text in map(str.strip, names)}
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; expected a positive integer")
    if recipe.teacher is None and any(m.name != "supervised" for m in selected.values()):
        raise ValueError(
            "compare: the recipe has no teacher. Add one, or compare only supervised variants"
        )
    _check_terms(recipe, list(selected.values()))
    if recipe.teacher is not None:
        _check_labels(with_teacher_classes(recipe).data)
    base = Path(recipe.out or f"runs/{name}")
    recipes = [
        one_run(recipe, method, seed, base, text)
        for seed in range(first_seed, first_seed + seeds)
        for text, method in selected.items()
    ]
    with spoken(progress), trusting(trust), discarded_if_empty(base), writing(output_folder(base)):
        _check_semantics(recipes)
        # Finished runs first: a mismatch is refused before anything is trained.
        order = sorted(range(len(recipes)), key=lambda place: _finished(recipes[place]) is None)
        runs = {place: train(recipes[place], progress=progress) for place in order}
        return conclude([runs[place] for place in range(len(recipes))], base)


def _finished(recipe: Recipe) -> RunFolder | None:
    try:
        run = RunFolder(str(recipe.out))
    except FileNotFoundError:
        return None
    return run if run.finished else None


def _check_semantics(recipes: Sequence[Recipe]) -> None:
    """Refuse to add runs to finished ones that were trained under other semantics."""
    finished = [run for recipe in recipes if (run := _finished(recipe)) is not None]
    older = [run for run in finished if semantics_of(run) != TRAINING_SEMANTICS]
    if older and len(finished) < len(recipes):
        raise IdentityDiffers(
            f"{older[0].path} was trained under training semantics {semantics_of(older[0])}; expected "
            f"{TRAINING_SEMANTICS}, since new runs would not be comparable with it. Set another out, or "
            "remove the older runs"
        )


def _check_labels(data: DataConfig) -> None:
    if not getattr(open_split(data, "val", labelled=False), "labelled", True):
        raise ValueError(
            f"compare ranks by mIoU, but split {data.val_split!r} has no labels. Name a labelled "
            "data.val_split, or train each method and read its agreement with the teacher"
        )


def _method(recipe: Recipe, text: str) -> MethodConfig:
    """The method with this name, from the catalogue or the recipe's variants, checked."""
    if text in recipe.variants:
        return _variant_method(recipe, text)
    name, _, preset = text.partition(":")
    method = MethodConfig(name, preset or "default")  # type: ignore[arg-type]
    if name != "supervised":
        method.labels = recipe.chosen_method().labels
    if recipe.variants and name not in METHODS:
        raise ValueError(unknown("method or variant", name, {**METHODS, **recipe.variants}))
    method_terms(method.name, method.preset)
    return method


def _variant_method(recipe: Recipe, name: str) -> MethodConfig:
    variant = recipe.variants[name]
    if not re.fullmatch(r"[\w+.-]+", name):
        raise ValueError(
            f"variants: {name!r} names a folder; use only letters, digits, '_', '+', '.' and '-'"
        )
    method = variant.method
    method = method if isinstance(method, MethodConfig) else MethodConfig(method)
    try:
        changes = {term: vars(change) for term, change in variant.terms.items()}
        override(method_terms(method.name, method.preset), changes)
    except ValueError as error:
        raise ValueError(f"variants.{name}: {error}") from None
    return method


def _check_terms(recipe: Recipe, compared: Sequence[MethodConfig]) -> None:
    """Refuse unknown terms in the recipe; terms of methods that are not compared are allowed."""
    known = {term for method in METHODS for term in method_terms(method)}
    known |= {term for method in compared for term in method_terms(method.name, method.preset)}
    for name in recipe.terms:
        if name not in known:
            raise ValueError(f"compare: terms.{name}: {unknown('term of a method', name, known)}")


def one_run(
    recipe: Recipe, method: MethodConfig, seed: int, base: Path, name: str | None = None
) -> Recipe:
    """The recipe of one run of a comparison: a method, or the variant with this name, and a seed."""
    specs = method_terms(method.name, method.preset)
    terms = {name: change for name, change in recipe.terms.items() if name in specs}
    label = method.name if method.preset == "default" else f"{method.name}-{method.preset}"
    variant = name if name in recipe.variants else None
    plain = method.name == "supervised" and method.labels == "data"
    if variant is not None:
        terms, label = {**terms, **recipe.variants[variant].terms}, variant
    return replace(
        recipe,
        method=method,
        teacher=None if plain else recipe.teacher,
        terms=terms,
        variants={},
        train=replace(recipe.train, seed=seed),
        out=str(base / f"{label}-s{seed}"),
        label=variant,
    )


def conclude(runs: Sequence[RunFolder], base: Path) -> list[RunSummary]:
    """Log the table and the verdict of finished runs, and write them to `comparison.json`."""
    summaries = summarise(find_runs([run.path for run in runs]))
    log_table(_log, comparison_table(summaries))
    _log.info("%s", context(summaries))
    for verdict in verdicts(summaries):
        _log.info("%s. %s", verdict.headline, " ".join(verdict.details))
    if (saved := gist(summaries, default_subject(summaries))) is not None:
        _log.info("%s", saved)
    write_json(base / "comparison.json", as_json(summaries))
    return summaries


def as_json(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """The comparison as plain values: mIoU in points, by method and seed."""
    rows = {}
    for row in comparison_rows(summaries):
        runs = [s for s in summaries if s.label == row.label]
        rows[row.label] = {
            "miou_mean": row.miou,
            "miou_sd": row.miou_sd,
            "miou_by_seed": {str(s.seed): s.miou for s in runs},
            "minus_control": row.difference.differences if row.difference else None,
            "seconds_per_step": row.seconds_per_step,
        }
    return {
        "methods": rows,
        "verdict": {v.label: [v.headline, *v.details] for v in verdicts(summaries)},
        "environment": next((dict(s.environment) for s in summaries if s.environment), {}),
    }
