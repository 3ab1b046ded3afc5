"""Means over the same classes for all runs that are measured on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segdistill.data.dataset import list_names
from segdistill.run.reporting.summary import RunSummary, mean_of_known, set_names, split_of

KEY = "left_out"
"""Key of an evaluation with the names of the classes that its mean leaves out for the sake of a comparison."""


def with_labelled_classes(summaries: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs, with classes that a set does not label left out of every mean on it.

    Such a class counts as 0 for a run that predicts a single pixel of it and is left out for another, so
    that their means would be over different classes. Where `absent` is "zero", all classes count for all runs.
    """
    main = _made_alike([run.evaluation for run in summaries])
    runs = [replace(run, evaluation=one) for run, one in zip(summaries, main, strict=True)]
    for name in set_names(runs):
        alike = _made_alike([run.sets.get(name) for run in runs])
        runs = [
            run if one is None else replace(run, sets={**run.sets, name: one})
            for run, one in zip(runs, alike, strict=True)
        ]
    return runs


def left_out(summaries: Sequence[RunSummary]) -> dict[str, list[str]]:
    """Names of the classes that the means leave out, by the set whose images do not label them."""
    found: dict[str, list[str]] = {}
    split = split_of(summaries)
    for run in summaries:
        for name, one in {"": run.evaluation or {}, **run.sets}.items():
            names = found.setdefault(name or split, [])
            names += [each for each in one.get(KEY, ()) if each not in names]
    return {name: names for name, names in found.items() if names}


def left_out_in_words(summaries: Sequence[RunSummary]) -> str:
    """As `left_out`, in a sentence; "" if none is."""
    told = [f"{list_names(names)} (on {name})" for name, names in left_out(summaries).items()]
    if not told:
        return ""
    return (
        f"Left out of all means, since no label has it: {'; '.join(told)}. `evaluate` counts such a class as 0 for "
        "runs that predict it."
    )


def _made_alike(
    evaluations: Sequence[Mapping[str, Any] | None],
) -> list[Mapping[str, Any] | None]:
    """The evaluations of one set, each without the classes that its images do not label."""
    unlabelled = {
        _images(one): _unlabelled(one) for one in evaluations if one and one.get("confusion")
    }
    # A teacher that was measured with its students has no confusion matrix of its own.
    only = next(iter(unlabelled.values())) if len(unlabelled) == 1 else {}
    return [
        None if one is None else _without(one, unlabelled.get(_images(one), only))
        for one in evaluations
    ]


def _images(evaluation: Mapping[str, Any]) -> str | None:
    """The digest of the images that were measured."""
    found: str | None = evaluation.get("val_data") or (evaluation.get("of") or {}).get("data")
    return found


def _unlabelled(evaluation: Mapping[str, Any]) -> dict[int, str]:
    """Classes without a pixel in the labels, by number; none where they count as 0 for every run."""
    if (evaluation.get("protocol") or {}).get("absent") == "zero":
        return {}
    rows = zip(evaluation["classes"], evaluation["confusion"], strict=True)
    return {number: name for number, (name, row) in enumerate(rows) if not any(row)}


def _without(evaluation: Mapping[str, Any], unlabelled: Mapping[int, str]) -> Mapping[str, Any]:
    """The evaluation with the mean over the labelled classes, if it counted any other."""
    iou = evaluation.get("iou") or []
    others = [name for number, name in unlabelled.items() if iou and iou[number] is not None]
    if not others:
        return evaluation
    kept = [None if number in unlabelled else value for number, value in enumerate(iou)]
    counted = sum(value is not None for value in kept)
    mean = {"iou": kept, "miou": mean_of_known(kept), "classes_counted": counted}
    return {**evaluation, **mean, KEY: others}
