"""Claims that a recipe registered before the training, and all other pairs, which are exploratory."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal, cast

from rich.table import Table

from segdistill.data.dataset import list_names
from segdistill.run.reporting.claims.contrasts import Contrast, ReferenceRole, contrasts
from segdistill.run.reporting.claims.scenes import scenes_of
from segdistill.run.reporting.notation import difference_text, p_text, signed
from segdistill.run.reporting.statistics import Paired, holm
from segdistill.run.reporting.summary import (
    RunSummary,
    by_label,
    claims_on,
    judged,
    on_set,
    paired_miou,
    set_names,
    split_of,
)

Tone = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Claim:
    """One registered claim, with its p value after Holm's correction over all registered claims."""

    contrast: Contrast
    p: float | None
    """None for one seed, and for equal settings, which make no claim"""

    @property
    def tone(self) -> Tone:
        """`better` and `worse` need an interval that excludes zero and a corrected p below 0.05."""
        difference = self.contrast.difference
        if self.p is None or self.p >= 0.05 or not difference.clear:
            return "unclear"
        return "better" if difference.mean > 0 else "worse"


def registered_pairs(summaries: Sequence[RunSummary]) -> list[tuple[str, str]]:
    """The claims in the recipes of these runs, as pairs of labels."""
    recipes = [run.recipe for run in summaries if run.recipe is not None and run.role != "teacher"]
    pairs = (pair for recipe in recipes for pair in recipe.contrasts)
    return list(dict.fromkeys((pair[0], pair[1]) for pair in pairs if len(pair) == 2))


def claims(summaries: Sequence[RunSummary]) -> list[Claim]:
    """The registered claims, on the set that they are made on; those without a common seed are left out.

    Holm's correction runs over all registered claims (Holm 1979, A simple sequentially rejective multiple
    test procedure). Those that still wait for runs count as well, with p = 1, so that the runs to come
    cannot raise what is told now.
    """
    runs = judged(summaries)
    roles = {label: group[0].role for label, group in by_label(runs).items()}
    found: list[Contrast] = []
    for label, reference in registered_pairs(runs):
        if label in roles and reference in roles:
            role = cast(ReferenceRole, roles[reference])
            found += contrasts(runs, label, [reference], role)
    p_values = {
        str(place): one.difference.p
        for place, one in enumerate(found)
        if one.difference.p is not None and not one.itself
    }
    # With one seed in common there is no p yet, either.
    missing = _corrected_over(runs, found) - len(p_values)
    corrected = holm(p_values | {f"missing {number}": 1.0 for number in range(missing)})
    return [Claim(one, corrected.get(str(place))) for place, one in enumerate(found)]


def _corrected_over(summaries: Sequence[RunSummary], found: Sequence[Contrast]) -> int:
    """How many claims Holm's correction runs over: all that are registered, but for equal settings."""
    return len(registered_pairs(summaries)) - sum(one.itself for one in found)


def corrected_over(summaries: Sequence[RunSummary]) -> int:
    """How many claims Holm's correction runs over, those that wait among them."""
    return _corrected_over(judged(summaries), [claim.contrast for claim in claims(summaries)])


def waiting_in_words(summaries: Sequence[RunSummary]) -> str | None:
    """Which registered claims wait for runs; None if none does."""
    pairs = [f"{label} − {reference}" for label, reference in waiting(summaries)]
    if not pairs:
        return None
    one = len(pairs) == 1
    start = f"{len(pairs)} registered claim{' waits' if one else 's wait'} for runs"
    return f"{start} and {'counts' if one else 'count'} with p = 1: {list_names(pairs, len(pairs))}"


def waiting(summaries: Sequence[RunSummary]) -> list[tuple[str, str]]:
    """The registered claims whose two sides have no seed in common yet."""
    runs = judged(summaries)
    return [pair for pair in registered_pairs(runs) if paired_miou(runs, *pair) is None]


def exploratory(summaries: Sequence[RunSummary]) -> list[tuple[str, str]]:
    """Every pair of labels that is no registered claim; the later one of the table minus the earlier."""
    known = {frozenset(pair) for pair in registered_pairs(summaries)}
    labels = [label for label in by_label(summaries) if label != "teacher"]
    return [
        (later, earlier)
        for earlier, later in combinations(labels, 2)
        if frozenset((later, earlier)) not in known
    ]


def measured_on(summaries: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """The runs on the set of the claims, then on every other, by the names of columns."""
    runs = list(summaries)
    split = split_of(runs)
    found = {split: runs, **{name: on_set(runs, name) for name in set_names(runs)}}
    first = claims_on(runs) or split
    return {first: found.pop(first, runs), **found}


def pair_rows(
    summaries: Sequence[RunSummary], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Paired | None]]:
    """The difference of each pair on each set."""
    sets = measured_on(summaries)
    return [
        {name: paired_miou(runs, label, reference) for name, runs in sets.items()}
        for label, reference in pairs
    ]


def claims_view(summaries: Sequence[RunSummary]) -> dict[str, Any] | None:
    """Both tables as texts; None without registered claims."""
    if not registered_pairs(summaries):
        return None
    found, others = claims(summaries), exploratory(summaries)
    pairs = [(claim.contrast.label, claim.contrast.reference) for claim in found]
    scenes = [scenes_of(judged(summaries), *pair) for pair in pairs]
    drawn = any(one is not None for one in scenes)
    texts = ["–" if one is None else f"{signed(one.low)} to {signed(one.high)}" for one in scenes]
    return {
        "sets": list(measured_on(summaries)),
        "count": corrected_over(summaries),
        "waiting": waiting_in_words(summaries),
        "more": [*(["over scenes"] if drawn else []), "after Holm", "verdict"],
        "claims": [
            [
                f"{label} − {reference}",
                *_cells(row),
                *([text] if drawn else []),
                _p(claim),
                claim.tone,
            ]
            for (label, reference), row, claim, text in zip(
                pairs, pair_rows(summaries, pairs), found, texts, strict=True
            )
        ],
        "exploratory": [
            [f"{label} − {reference}", *_cells(row)]
            for (label, reference), row in zip(others, pair_rows(summaries, others), strict=True)
        ],
    }


def _cells(row: Mapping[str, Paired | None]) -> list[str]:
    return [difference_text(difference) or "–" for difference in row.values()]


def _p(claim: Claim) -> str:
    return "–" if claim.p is None else p_text(claim.p)


def claim_tables(summaries: Sequence[RunSummary]) -> list[Table]:
    """The claims with their verdicts and the exploratory pairs without, for a terminal."""
    view = claims_view(summaries)
    if view is None:
        return []
    where, *_ = view["sets"]
    tables = [
        (f"Registered claims on {where}; Holm over {view['count']}", "claims", view["more"]),
        ("Exploratory: every other pair, without a verdict", "exploratory", []),
    ]
    return [
        _table(title, [*view["sets"], *more], view[key]) for title, key, more in tables if view[key]
    ]


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def claims_as_json(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """Claims and exploratory pairs as plain values, in points; empty without registered claims."""
    if not registered_pairs(summaries):
        return {}
    found, others = claims(summaries), exploratory(summaries)
    pairs = [(claim.contrast.label, claim.contrast.reference) for claim in found]
    return {
        "claims_on": next(iter(measured_on(summaries))),
        "claims": [
            {
                **one,
                "scenes": scenes and asdict(scenes),
                "p_holm": claim.p,
                "tone": claim.tone,
                "same_settings": claim.contrast.itself,
            }
            for claim, one, scenes in zip(
                found,
                _pairs_as_json(summaries, pairs),
                [scenes_of(judged(summaries), *pair) for pair in pairs],
                strict=True,
            )
        ],
        "claims_waiting": [list(pair) for pair in waiting(summaries)],
        "exploratory": _pairs_as_json(summaries, others),
    }


def _pairs_as_json(
    summaries: Sequence[RunSummary], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "reference": reference,
            "on": {name: one and _difference_as_json(one) for name, one in row.items()},
        }
        for (label, reference), row in zip(pairs, pair_rows(summaries, pairs), strict=True)
    ]


def _difference_as_json(difference: Paired) -> dict[str, Any]:
    return {
        "mean": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p": difference.p,
        "differences": list(difference.differences),
        **({"folds": dict(difference.folds)} if difference.folds else {}),
    }
