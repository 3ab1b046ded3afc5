"""The report's table of what students have of their teachers."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from segdistill.run.reporting.notation import spread
from segdistill.run.reporting.summary import RunSummary, by_label, by_teacher

_COLUMNS = (
    ("distances", "edge_correlation", 1, 3),
    ("within / between", "within_between", 1, 2),
    ("agrees", "agreement", 100, 1),
    ("where it is right", "agreement_where_right", 100, 1),
    ("where it is wrong", "agreement_where_wrong", 100, 1),
    ("boundary", "boundary_miou", 100, 1),
    ("interior", "interior_miou", 100, 1),
    ("ECE", "ece", 100, 1),
    ("x", "x", 1, 2),
    ("y", "y", 1, 2),
)
"""heading, key, factor and decimals"""


def transfer_view(summaries: Sequence[RunSummary]) -> dict[str, Any] | None:
    """A table for each set that any run was measured on, with a row for each label; None for no set.

    Measurements beside another network than the teacher of the methods, or on other images than the rest, are left
    out and named: they stand for something else than the others in their column.
    """
    runs = list(summaries)
    names = dict.fromkeys(name for run in runs for name in run.transfer)
    if not names:
        return None
    other = {name: _other(runs, name) for name in names}
    return {
        "headings": [heading for heading, *_ in _COLUMNS],
        "tables": [
            (name, _rows([run for run in runs if run.name not in other[name]], name))
            for name in names
        ],
        "left_out": {name: ", ".join(found) for name, found in other.items() if found},
    }


def _other(runs: Sequence[RunSummary], name: str) -> list[str]:
    """Names of the runs whose measurement on a set is of another teacher, or of other images."""
    measured = {run.name: run.transfer[name]["of"] for run in runs if name in run.transfer}
    teachers, images = {*by_teacher(runs)}, _images(runs, name)
    images = images or {next(iter(measured.values())).get("data")}
    return [
        run
        for run, of in measured.items()
        if (teachers and of["teacher"] is not None and of["teacher"] not in teachers)
        or of.get("data") not in images
    ]


def _images(runs: Sequence[RunSummary], name: str) -> set[str | None]:
    """Digests of the images of a set, as the runs' metrics on it were measured."""
    found = [(run.sets[name].get("of") or {}).get("data") for run in runs if name in run.sets]
    figures = [run.evaluation or {} for run in runs if run.role != "teacher"]
    found += [one.get("val_data") for one in figures if one.get("split") == name]
    return {digest for digest in found if digest is not None}


def _rows(summaries: Sequence[RunSummary], name: str) -> list[tuple[str, list[str]]]:
    measured = {
        label: [run.transfer[name] for run in runs if name in run.transfer]
        for label, runs in by_label(summaries).items()
    }
    students = {
        label: [{**record, **_flat(record["student"])} for record in records]
        for label, records in measured.items()
        if records
    }
    # Every student of a teacher has the teacher's figures beside its own.
    teachers = {
        record["of"]["teacher"]: _flat(record["teacher"])
        for records in measured.values()
        for record in records
        if record["teacher"] is not None
    }
    rows = {**({"teacher": list(teachers.values())} if teachers else {}), **students}
    return [(label, [_cell(values, *c[1:]) for c in _COLUMNS]) for label, values in rows.items()]


def _flat(network: Mapping[str, Any]) -> dict[str, Any]:
    """A network's figures with the R² of x and y, of the interior: padding alone tells them at the border."""
    place = (network.get("position") or {}).get("interior") or (None, None)
    return {**network, "x": place[0], "y": place[1]}


def _cell(records: Sequence[Mapping[str, Any]], key: str, factor: int, digits: int) -> str:
    values = [factor * record[key] for record in records if record.get(key) is not None]
    if not values:
        return "–"
    return spread(mean(values), stdev(values) if len(values) > 1 else None, digits)
