"""The report's page: renders plain data as self-contained HTML."""

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from segdistill.escaping import html
from segdistill.run.reporting import charts
from segdistill.run.reporting.claims.registered import claims_view
from segdistill.run.reporting.findings import Findings
from segdistill.run.reporting.sections import (
    SHARES_AT,
    against_view,
    class_view,
    comparison_view,
    curves_view,
    environment,
    preparation_view,
    recipes,
    standard_notes,
    term_view,
    verdict_view,
)
from segdistill.run.reporting.summary import RunSummary, default_subject
from segdistill.run.reporting.transferred import transfer_view
from segdistill.run.reporting.views import matrix_view, panel_view, position_view


@dataclass(frozen=True)
class Report:
    """Content of the page. Only the runs and the classes are required."""

    summaries: Sequence[RunSummary]
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    """red, green, blue of each class, 0 to 255"""
    findings: Findings = field(default_factory=Findings)
    title: str = "Distillation report"
    made: str = ""
    """date and version"""
    focus: str | None = None
    """method shown in the pictures; None: as selected by `default_subject`"""
    notes: Sequence[str] = ()
    """remarks, such as what the validation set is"""


def render(report: Report) -> str:
    """The page as HTML text.

    Text from runs, such as names of classes and images, is escaped. Charts are inline SVG, pictures are
    inline PNG, and the page loads nothing from outside.

    Raises:
        ValueError: There are no runs, or two of them have the same label and seed.
    """
    if not report.summaries:
        raise ValueError(
            "the report has no runs; expected at least one. Name the folder of a finished run"
        )
    runs, subject = report.summaries, report.focus or default_subject(report.summaries)
    findings = report.findings
    hues = charts.colours(runs)
    return fill(
        "reporting/report.html.j2",
        title=report.title,
        made=report.made,
        colour={label: f"var({charts.VARIABLES[value]})" for label, value in hues.items()},
        subject=subject,
        verdict=verdict_view(runs, subject, hues),
        claims=claims_view(runs),
        comparison=comparison_view(runs),
        against=against_view(runs),
        curves=curves_view(runs, hues),
        by_class=class_view(runs, report.classes, report.palette, subject, hues),
        panels=panel_view(findings.panels, report.classes, report.palette),
        panel_rule=findings.panel_rule,
        matrices=matrix_view(findings.distances, report.classes),
        distances_note=findings.distances_note,
        positions=position_view(findings.positions),
        positions_note=findings.positions_note,
        transfer=transfer_view(runs),
        terms=term_view(runs),
        shares_at=SHARES_AT,
        preparation=preparation_view(runs),
        recipes=recipes(runs),
        environment=environment(runs),
        notes=[*report.notes, *findings.notes, *standard_notes(runs)],
    )


def _shown(value: Any) -> Any:
    """Text of a page without characters that control or cannot be seen; what is markup already stays."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else html(value)


def fill(template: str, **values: Any) -> str:
    """Render a template, named by its path inside `run`, in the common style; values are escaped."""
    folder = importlib.resources.files("segdistill.run")
    jinja = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    style = Markup(folder.joinpath("reporting/page.css").read_text().rstrip())
    source = folder.joinpath(template).read_text()
    return jinja.from_string(source).render(style=style, **values)
