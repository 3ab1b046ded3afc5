"""`segdistill reproduce`: runs in the rows of the paper's tables and figures, beside the published values."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from markupsafe import Markup

from segdistill.config import ModelConfig, Recipe
from segdistill.distillation.catalogue import METHODS, method_terms
from segdistill.distillation.method import override
from segdistill.run.paper.layout import OURS, Placed, as_text, lay_out
from segdistill.run.paper.published import Exhibit, Row, exhibit
from segdistill.run.recipe import load_recipe, recipes_folder
from segdistill.run.reporting import RunSummary, fill, find_runs, summarise

_log = logging.getLogger(__name__)


def reproduce(what: str, runs: Sequence[str | Path] = (), out: str | Path = "reproduced") -> str:
    """Lay runs out as a table or figure of the paper, beside the published values.

    A run fills the row of its data set, student and losses, read from its config.yaml. Writes the
    self-contained page `<what>.html` and, if there is anything to draw, `<what>.png`.

    Args:
        what: table1 to table4, fig3, fig4 or fig5.
        runs: Run folders, or folders that hold runs. Without runs, shows the published values and the
            recipe for each row.
        out: Folder for the page and the picture.

    Returns:
        The same as text.

    Raises:
        ValueError: There is no such table or figure.
        FileNotFoundError: A folder is not a run and holds no runs.
    """
    wanted = exhibit(what)
    placed = place_runs(wanted, runs)
    filled = {id(p.row) for p in placed if p.column == OURS}
    missing = recipes_of(wanted, [row for row in wanted.rows if id(row) not in filled])
    layout = lay_out(wanted, placed, missing)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    chart = Markup(layout.chart.svg) if layout.chart else None
    page = fill("paper/reproduce.html.j2", layout=layout, chart=chart)
    (folder / f"{what}.html").write_text(page, encoding="utf-8")
    if layout.chart:
        (folder / f"{what}.png").write_bytes(layout.chart.png)
    _log.info("reproduce: %s", folder / f"{what}.html")
    return as_text(layout)


def place_runs(wanted: Exhibit, paths: Iterable[str | Path]) -> list[Placed]:
    """Each run at these paths, and their teachers, with its row or the reason why it has none."""
    folders = find_runs(paths)
    finished = summarise([folder for folder in folders if folder.measured])
    # The paper's rows have a teacher's own figure. One known only from an audit has no recipe.
    finished = [replace(run, evaluation=run.own or run.evaluation) for run in finished]
    placed = [_placed(wanted, run, run.recipe) for run in finished if run.recipe is not None]
    for folder in folders:
        if not folder.measured:
            begun = RunSummary(folder.path.name, folder.method_name, "method")
            placed.append(Placed(begun, reason="it is not finished"))
    return placed


def _placed(wanted: Exhibit, run: RunSummary, recipe: Recipe) -> Placed:
    data, student = recipe.data.name, recipe.student.model
    networks = list(dict.fromkeys(row.network for row in wanted.rows))
    column = OURS
    if wanted.elsewhere and (data != wanted.data or student not in networks):
        teaches = run.role == "teacher"
        column = data if teaches else f"{data}, {_network_name(recipe.student)}"
        # The first row is the teacher's and the last the student's, whatever their networks.
        student = networks[0] if teaches else networks[-1]
    elif data != wanted.data:
        return Placed(run, reason=f"its data set is {data}; expected {wanted.data}")
    elif student not in networks:
        return Placed(
            run, reason=f"its network is {student}; expected one of {', '.join(networks)}"
        )
    try:
        losses, preset = distilling_losses(recipe)
    except ValueError as error:
        return Placed(run, reason=str(error))
    for row in wanted.rows:
        if row.network == student and row_losses(row, preset) == losses:
            return Placed(run, row, column)
    names = ", ".join(sorted(losses)) or "only cross-entropy"
    return Placed(run, reason=f"no row of {student} has its losses ({names})")


def _network_name(student: ModelConfig) -> str:
    options = {key: value for key, value in student.options.items() if key != "weights"}
    return " ".join([student.model, *(f"{key}={value}" for key, value in options.items())])


def distilling_losses(recipe: Recipe) -> tuple[frozenset[str], str]:
    """The losses of a recipe other than cross-entropy, and the preset of its method.

    Raises:
        ValueError: The catalogue has no such method, or the terms do not fit it.
    """
    method = recipe.chosen_method()
    changes = {term: vars(change) for term, change in recipe.terms.items()}
    specs = override(method_terms(method.name, method.preset), changes)
    losses = frozenset(spec.loss for spec in specs.values() if spec.weight)
    return losses - {"cross_entropy"}, method.preset


def row_losses(row: Row, preset: str) -> frozenset[str]:
    """The losses other than cross-entropy of the methods and losses in a row's name."""
    losses: set[str] = set()
    for part in row.method.split("+"):
        if part in METHODS:
            losses |= {spec.loss for spec in method_terms(part, preset).values()}
        else:
            losses.add(part)
    return frozenset(losses) - {"cross_entropy"}


def recipes_of(wanted: Exhibit, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Name, network and training command of each row, from the recipes that ship."""
    if not rows:
        return []
    made = _shipped(recipes_folder() / wanted.data)
    lines = []
    for row in rows:
        keys = [(row.network, row_losses(row, preset), preset) for preset in ("paper", "default")]
        file = next((made[key] for key in keys if key in made), None)
        lines.append((row.name, row.network, _command(wanted, row, file)))
    return lines


@cache
def _shipped(folder: Path) -> dict[tuple[str, frozenset[str], str], Path]:
    """The recipes of a folder by student, losses and preset."""
    made: dict[tuple[str, frozenset[str], str], Path] = {}
    for file in sorted(folder.glob("*.yaml")):
        if file.stem != "base":  # shared by the other recipes
            recipe = load_recipe(file)
            made.setdefault((recipe.student.model, *distilling_losses(recipe)), file)
    return made


def _command(wanted: Exhibit, row: Row, file: Path | None) -> str:
    if file is not None:
        return f"segdistill train {_short(file)}"
    shared = recipes_folder() / wanted.data / "base.yaml"
    if row.method == "supervised" and shared.is_file():
        return f"segdistill train {_short(shared)} --student.model {row.network}"
    return f"no recipe for data {wanted.data}, student {row.network}, method {row.method}"


def _short(file: Path) -> Path:
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file
