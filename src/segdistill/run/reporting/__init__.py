"""Reports on runs: tables, charts and an HTML page."""

from segdistill.run.reporting.claims.gist import gist
from segdistill.run.reporting.claims.registered import (
    claim_tables,
    claims_as_json,
    waiting_in_words,
)
from segdistill.run.reporting.claims.standing import context, teacher_figures
from segdistill.run.reporting.claims.table import (
    OnSet,
    by_seed,
    comparison_rows,
    comparison_table,
    further_table,
    times_differ,
)
from segdistill.run.reporting.notation import number, signed, spread
from segdistill.run.reporting.page import fill
from segdistill.run.reporting.reading.classes import left_out, left_out_in_words
from segdistill.run.reporting.reading.runs import find_runs, summarise
from segdistill.run.reporting.statistics import mean, sd
from segdistill.run.reporting.summary import (
    RunSummary,
    by_teacher,
    default_subject,
    teachers_differ,
)
from segdistill.run.reporting.verdict import verdicts

__all__ = [
    "OnSet",
    "RunSummary",
    "by_seed",
    "by_teacher",
    "claim_tables",
    "claims_as_json",
    "comparison_rows",
    "comparison_table",
    "context",
    "default_subject",
    "fill",
    "find_runs",
    "further_table",
    "gist",
    "left_out",
    "left_out_in_words",
    "mean",
    "number",
    "sd",
    "signed",
    "spread",
    "summarise",
    "teacher_figures",
    "teachers_differ",
    "times_differ",
    "verdicts",
    "waiting_in_words",
]
