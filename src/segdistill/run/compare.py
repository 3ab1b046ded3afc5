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
from segdistill.run.folder import RunFolder, output_folder, write_json
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

_log = logging.getLogger(__name__)
RIVALS = ("kd", "cwd", "idd")


def compare(
    recipe: Recipe,
    methods: Sequence[str] | None = None,
    seeds: int = 3,
    first_seed: int = 0,
    name: str = "compare",
    progress: bool = True,
) -> list[RunSummary]:
    """Train the recipe's student with each method and seed; print and write the comparison.

    For one seed all methods start from the same weights and see the same crops in the same order, for
    the same number of steps. Finished runs are not trained again, so that an interrupted comparison
    goes on with the same command. `supervised` is the control: the student alone.

    Args:
        recipe: Data, student, teacher and training. Its `terms` apply to the methods that have them.
        methods: Names of the catalogue, of which `idd:paper` chooses a preset, and of the recipe's
            `variants`. None: the control and the variants or, where there are none, kd, cwd and idd.
        seeds: How many seeds.
        first_seed: The first of them.
        name: Names the folder of the runs, `runs/<name>`, where the recipe has no `out`.
        progress: Show progress and the table, where the application has set up no logging of its own.

    Returns:
        A summary of each run, the teacher's among them. `comparison.json` in the folder holds what
        the table shows.

    Raises:
        IdentityDiffers: A finished run in the folder was made of something else.
        FolderInUse: Another process writes to the folder.
        ValueError: A method does not exist, a distilled method has no teacher to learn from, a term
            of the recipe belongs to no method, or a variant cannot be built.
    """
    names = methods or ["supervised", *(recipe.variants or RIVALS)]
    chosen = {text: _method(recipe, text) for text in map(str.strip, names)}
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; expected a positive integer")
    if recipe.teacher is None and any(m.name != "supervised" for m in chosen.values()):
        raise ValueError(
            "compare: the recipe has no teacher; add one, or compare supervised variants only"
        )
    _check_terms(recipe, list(chosen.values()))
    if recipe.teacher is not None:
        _check_labels(with_teacher_classes(recipe).data)
    base = Path(recipe.out or f"runs/{name}")
    recipes = [
        one_run(recipe, method, seed, base, text)
        for seed in range(first_seed, first_seed + seeds)
        for text, method in chosen.items()
    ]
    with spoken(progress), writing(output_folder(base)):
        _check_semantics(recipes)
        # Finished runs first: one that was made of something else is refused before anything is trained.
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
    """Refuse to add runs of this version to finished ones that were trained in another way."""
    finished = [run for recipe in recipes if (run := _finished(recipe)) is not None]
    older = [run for run in finished if semantics_of(run) != TRAINING_SEMANTICS]
    if older and len(finished) < len(recipes):
        raise IdentityDiffers(
            f"{older[0].path} was trained under training semantics {semantics_of(older[0])}; expected "
            f"{TRAINING_SEMANTICS}, as new runs could not be compared with it. Choose another out, or "
            "remove the older runs"
        )


def _check_labels(data: DataConfig) -> None:
    if not getattr(open_split(data, "val", labelled=False), "labelled", True):
        raise ValueError(
            f"split {data.val_split!r} has no labels, and compare ranks by mIoU. Name a labelled "
            "data.val_split, or train each method and read its agreement with the teacher"
        )


def _method(recipe: Recipe, text: str) -> MethodConfig:
    """The method of a name of the catalogue or of a variant, checked."""
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


def _check_terms(recipe: Recipe, chosen: Sequence[MethodConfig]) -> None:
    """A term of a method that is not compared now may stand in the recipe; a misspelt one may not."""
    known = {term for method in METHODS for term in method_terms(method)}
    known |= {term for method in chosen for term in method_terms(method.name, method.preset)}
    for name in recipe.terms:
        if name not in known:
            raise ValueError(f"compare: terms.{name}: {unknown('term of a method', name, known)}")


def one_run(
    recipe: Recipe, method: MethodConfig, seed: int, base: Path, name: str | None = None
) -> Recipe:
    """The recipe of one method and seed of a comparison, or of the variant of this name."""
    own = method_terms(method.name, method.preset)
    terms = {name: change for name, change in recipe.terms.items() if name in own}
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
    """Print the table and the verdict of finished runs, and write them as `comparison.json`."""
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
        own = [s for s in summaries if s.label == row.label]
        rows[row.label] = {
            "miou_mean": row.miou,
            "miou_sd": row.miou_sd,
            "miou_by_seed": {str(s.seed): s.miou for s in own},
            "minus_control": row.difference.differences if row.difference else None,
            "seconds_per_step": row.seconds_per_step,
        }
    return {
        "methods": rows,
        "verdict": {v.label: [v.headline, *v.details] for v in verdicts(summaries)},
        "environment": next((dict(s.environment) for s in summaries if s.environment), {}),
    }
