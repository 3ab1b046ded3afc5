"""The finished runs of a comparison, whether their rows and seeds are compared this time or not."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from segdistill.config import Recipe
from segdistill.run.comparing.entries import Entry, default_names, entry_of, with_tested
from segdistill.run.folder import measured_at


class Finished(NamedTuple):
    """A finished run of a row, whether the row is compared this time or not."""

    label: str
    seed: int
    path: Path
    entry: Entry


def finished_runs(
    recipe: Recipe, entries: Sequence[Entry], folders: Iterable[Path]
) -> list[Finished]:
    """The finished runs in these folders of what the recipe compares by default and of what is compared this time.

    Args:
        recipe: The comparison's.
        entries: What is compared this time.
        folders: Where runs lie: that of the comparison or those of its folds.
    """
    known = list({entry.folder: entry for entry in known_entries(recipe, entries)}.values())
    rows = {entry.folder: _with_tested(entry, recipe, known) for entry in known}
    paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    found = []
    for path in paths:
        name, _, seed = path.name.rpartition("-s")
        if name in rows and seed.isdecimal() and measured_at(path) is not None:
            found.append(Finished(rows[name].label, int(seed), path, rows[name]))
    return found


def _with_tested(entry: Entry, recipe: Recipe, known: Sequence[Entry]) -> Entry:
    try:
        return with_tested(entry, recipe, known)
    except ValueError:  # told where it is compared
        return entry


def known_entries(recipe: Recipe, entries: Sequence[Entry]) -> list[Entry]:
    """What a recipe compares by default, and what is compared this time."""
    return [*(entry_of(recipe, name) for name in default_names(recipe)), *entries]


def seeds_left_out(
    finished: Iterable[Finished], planned: Collection[Path], labels: Iterable[str]
) -> dict[str, list[int]]:
    """Finished seeds of the rows that are compared which are not among those that are, by label.

    Args:
        finished: All finished runs.
        planned: Resolved folders of the runs that are compared.
        labels: The rows that are compared.
    """
    others = [run for run in finished if run.path.resolve() not in planned]
    seeds = {label: sorted({r.seed for r in others if r.label == label}) for label in labels}
    return {label: found for label, found in seeds.items() if found}
