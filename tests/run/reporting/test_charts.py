import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from matplotlib.figure import Figure

from segdistill.escaping import terminal_line
from segdistill.run.reporting import charts, views
from segdistill.run.reporting.summary import class_changes
from segdistill.run.reporting.verdict import verdicts
from tests.run.made_up import CLASSES, run, three_seeds


def test_chart_labels_are_separated_with_least_displacement():
    assert charts.apart([1, 5], 1) == [1, 5]
    # Two at the same height share the move; a third that is far enough stays.
    assert charts.apart([3, 3, 9], 1) == pytest.approx([2.5, 3.5, 9])
    assert charts.apart([3, 3, 3], 2) == pytest.approx([1, 3, 5])
    assert charts.apart([], 1) == []


def test_charts_use_the_variables_of_the_page_and_load_nothing():
    runs = three_seeds()
    colour = charts.colours(runs)
    drawing = charts.forest(verdicts(runs), colour)
    assert drawing.startswith("<svg role=") and drawing.endswith("</svg>")
    assert "var(--series-0)" in drawing and "var(--muted)" in drawing
    assert not re.search(r"#[0-9a-f]{6}|http|xmlns|<metadata|font-family", drawing)
    assert ">+3.1</text>" in drawing


def test_a_single_seed_is_its_own_mean_and_has_no_ring():
    for seeds, rings in ((1, 0), (3, 6)):
        runs = [r for r in three_seeds() if r.role == "teacher" or r.seed < seeds]
        drawing = charts.forest(verdicts(runs), charts.colours(runs))
        assert drawing.count("fill-opacity: 0;") == rings


def test_colours_of_methods_teacher_and_control_are_fixed():
    colour = charts.colours([run("idd"), run("control"), run("kd")])
    assert colour["idd"] == charts.SERIES[0] and colour["kd"] == charts.SERIES[1]
    assert colour["control"] == charts.CONTROL


@pytest.mark.parametrize("name", [r"C:\data\new", r"\g<1>\1", "a\x1b[2Jb", r"$\frac{$ 5 $", "_a_"])
@pytest.mark.filterwarnings("error")
def test_labels_of_any_content_are_drawn(name):
    runs = [replace(r, method=name) if r.method == "idd" else r for r in three_seeds()]
    colour = charts.colours(runs)
    drawings = [
        charts.validation_curves(runs, colour),
        charts.forest(verdicts(runs), colour),
        charts.to_svg(Figure(), name),
    ]
    for drawing in drawings:
        assert terminal_line(name) in unescape(drawing) and "\x1b" not in drawing


def test_curves_label_each_method_with_its_last_value():
    runs = three_seeds()
    drawing = charts.validation_curves(runs, charts.colours(runs))
    for words in ("idd 65.3", "control 62.2", "teacher 74.0"):
        assert f">{words}</text>" in drawing


def test_runs_validated_only_once_have_no_curve():
    only = {"kind": "val", "step": 1000, "miou": 0.5}
    runs = [run("control", metrics=[only])]
    assert charts.validation_curves(runs, charts.colours(runs)) is None


def test_terms_that_vanish_or_were_not_recorded_are_drawn():
    terms = {"position": {"value": 0.0, "weight": 1.0, "share": None}}
    rows = [{"kind": "train", "step": step, "terms": terms} for step in (1, 2)]
    runs = [run("idd", metrics=rows)]
    drawn = charts.term_curves(runs, charts.colours(runs))
    assert list(drawn) == ["position"] and ">not recorded</text>" in drawn["position"]


def test_a_single_logged_row_is_drawn_as_a_dot():
    terms = {"position": {"value": 0.7, "weight": 1.0, "share": 0.2}}
    rows = [{"kind": "train", "step": step, "terms": terms} for step in (20, 40)]
    dot = "fill: var(--series-0)"
    for count, dots in ((1, True), (2, False)):
        runs = [run("idd", metrics=rows[:count])]
        drawn = charts.term_curves(runs, charts.colours(runs))["position"]
        assert (dot in drawn) == dots


def test_a_wide_range_of_shares_is_drawn_on_a_logarithmic_axis():
    values = [0.5, 0.05, 0.008]
    rows = [
        {
            "kind": "train",
            "step": step,
            "terms": {"position": {"value": value, "weight": 1.0, "share": value}},
        }
        for step, value in enumerate(values, start=1)
    ]
    runs = [run("idd", metrics=rows)]
    chart = charts.term_curves(runs, charts.colours(runs))["position"]
    assert "mathdefault" not in chart
    assert ">0.01</text>" in chart


def test_text_in_charts_is_escaped():
    name = "<script>&"
    runs = [run("control"), run(name, 0, 0.02)]
    colour = charts.colours(runs)
    changes = class_changes(runs, ["$x^2$ <b>", *CLASSES[1:]], name)
    for drawing in (
        charts.forest(verdicts(runs), colour),
        charts.class_bars(changes, name, colour),
        views.matrix(np.ones((2, 2)), [name, "b"], 1.0, views.SEQUENTIAL),
    ):
        assert "<script" not in drawing and "<b>" not in drawing
        assert "&lt;" in drawing
    assert "$x^2$ &lt;b&gt;" in charts.class_bars(changes, name, colour)
