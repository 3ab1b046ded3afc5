"""What a comparison or a tuning is about to train, refused where it cannot be trained."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from segdistill.config import DataConfig, Recipe
from segdistill.distillation.catalogue import METHODS, method_terms
from segdistill.names import unknown
from segdistill.run.comparing import Entry, default_names, entries_of
from segdistill.run.console import quiet
from segdistill.run.identity import TRAINING_SEMANTICS, IdentityDiffers, semantics_of
from segdistill.run.opening import open_split, with_teacher_classes
from segdistill.run.rows.taking import measured_run
from segdistill.run.training.train import open_folder, rehearse


def checked_entries(
    recipe: Recipe, methods: Sequence[str] | None, command: str = "compare"
) -> list[Entry]:
    """The entries with these names, or the default ones, checked against the recipe.

    Args:
        recipe: Data, student, teacher and training.
        methods: As for `compare`.
        command: The command that asks, for messages.

    Raises:
        ValueError: As for `compare`.
    """
    entries = entries_of(recipe, list(map(str.strip, methods or default_names(recipe))))
    if recipe.teacher is None and any(_needs_teacher(entry) for entry in entries):
        raise ValueError(
            f"{command}: the recipe has no teacher. Add one, or {command} only supervised variants"
        )
    _check_terms(recipe, entries, command)
    if recipe.teacher is not None:
        _check_labels(with_teacher_classes(recipe).data, command)
    return entries


def check_runs(entries: Sequence[Entry], recipes: Sequence[Recipe], command: str) -> None:
    """Refuse, before anything is trained, folders of other runs and entries that cannot be trained.

    Args:
        entries: The entries.
        recipes: Their runs: that of each entry in turn, over and over.
        command: The command that asks, for messages.

    Raises:
        IdentityDiffers: Finished runs among them were trained under other semantics.
        ValueError: A folder holds the run of another recipe, or an entry cannot be trained.
    """
    check_semantics(recipes)
    _check_folders(recipes)
    _check_entries(entries, recipes, command)


def _needs_teacher(entry: Entry) -> bool:
    method = entry.recipe.chosen_method()
    return method.name != "supervised" or method.labels != "data"


def _check_folders(recipes: Sequence[Recipe]) -> None:
    """Refuse folders that hold runs of other recipes."""
    for recipe in recipes:
        open_folder(with_teacher_classes(recipe), Path(str(recipe.out)))


def _check_entries(entries: Sequence[Entry], recipes: Sequence[Recipe], command: str) -> None:
    """Build each entry that is still to be trained, and pass two crops through it.

    Raises:
        ValueError: An entry cannot be trained; the message names it.
    """
    count = len(entries)
    for place, entry in enumerate(entries):
        missing = [recipe for recipe in recipes[place::count] if measured_run(recipe) is None]
        if not missing:
            continue
        first = with_teacher_classes(missing[0])
        classes = open_split(first.data, "train", labelled=first.teacher is None).classes
        with quiet():  # each training says the same
            problems = rehearse(first, [str(name) for name in classes])
        if problems:
            raise ValueError(f"{command}: {entry.label}: {problems[0]}")


def check_semantics(recipes: Sequence[Recipe]) -> None:
    """Refuse to add runs to finished ones that were trained under other semantics."""
    finished = [run for recipe in recipes if (run := measured_run(recipe)) is not None]
    older = [run for run in finished if semantics_of(run) != TRAINING_SEMANTICS]
    if older and len(finished) < len(recipes):
        raise IdentityDiffers(
            f"{older[0].path} was trained under training semantics {semantics_of(older[0])}; expected "
            f"{TRAINING_SEMANTICS}, since new runs would not be comparable with it. Set another out, or "
            "remove the older runs"
        )


def _check_labels(data: DataConfig, command: str) -> None:
    if not getattr(open_split(data, "val", labelled=False), "labelled", True):
        raise ValueError(
            f"{command} ranks by mIoU, but split {data.val_split!r} has no labels. Name a labelled "
            "data.val_split, or train each method and read its agreement with the teacher"
        )


def _check_terms(recipe: Recipe, entries: Iterable[Entry], command: str) -> None:
    """Refuse unknown terms in the recipe; terms of methods that are not compared are allowed."""
    known = {term for method in METHODS for term in method_terms(method)}
    for entry in entries:
        method = entry.recipe.chosen_method()
        known |= {*method_terms(method.name, method.preset), *entry.recipe.terms}
    for name in recipe.terms:
        if name not in known:
            raise ValueError(f"{command}: terms.{name}: {unknown('term of a method', name, known)}")
