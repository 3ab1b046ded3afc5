import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from segdistill.config import Recipe
from segdistill.run.reporting.findings import Distances, Findings
from segdistill.run.reporting.page import Report, render
from segdistill.run.reporting.sections import SHARES_AT, term_view
from tests.run.made_up import CLASSES, distances, full_findings, full_report, run, three_seeds

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """A strict parser: every opened element must be closed, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.links, self.tags, self.words, self.headings = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html():
    return render(full_report())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_parses_and_has_its_sections_in_order(page):
    assert page.headings == [
        "Comparison",
        "Curves",
        "IoU by class",
        "Images",
        "Distances between classes",
        "Position readout",
        "Details",
    ]


def test_the_verdict_comes_first(page):
    assert page.text.index("idd is 3.1 mIoU above plain training") < page.text.index(
        "Comparison Mean"
    )


def test_the_page_is_self_contained(html, page):
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"https?:|url\((?!#)|@import|<script|<link", html)


def test_links_within_the_page_lead_somewhere(html, page):
    for link in {link for link in page.links if re.fullmatch(r"#[a-z]+", link)}:
        assert f'id="{link[1:]}"' in html


def test_figures_are_there(page):
    for words in (
        "idd: 12.2× smaller, 7.5× faster, keeps 88.2 ± 1.7 % of the teacher's mIoU (parameters;",
        "65.3 ± 1.2",
        "+3.1 ± 0.9",
        "+2.8 +3.5 +3.0",
        "3.272 M",
        "at 360 × 480 input on cpu with 1 thread",
        "pspnet_r18_half",
        "position.r2_teacher_x 0.41 0.41 0.41",
        "machine.threads 1",
        "11 classes on 101 images",
        "one clip of 6.7 s",
        "regardless of which is right",
        "R² 0.35",
    ):
        assert words in page.text, words


def bold(html):
    return re.findall(r'<tr class="best">\s*<td><span class="chip"><i [^>]*></i>([^<]+)<', html)


@pytest.mark.usefixtures("undrawn")
def test_the_best_method_is_bold_whatever_the_focus(html):
    assert bold(html) == ["idd"]
    runs = [replace(r, metrics=()) for r in three_seeds()]
    assert bold(render(Report(runs, CLASSES, [], focus="kd"))) == ["idd"]


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_bold_without_a_clear_gain():
    runs = [replace(r, metrics=()) for r in three_seeds() if r.seed == 0]
    html = render(Report(runs, CLASSES, []))
    assert bold(html) == [] and "Bold:" not in html


def test_edges_are_correlated_with_the_teachers(page):
    found = re.findall(r"correlation with the teacher's distances ([\d.]+)", page.text)
    assert len(found) == 2 and float(found[0]) < float(found[1]) < 1
    assert "Blank, with too few pixels: fence." in page.text


def test_methods_are_compared_with_each_other(page):
    # idd minus kd: 1.6, 3.9, 2.1.
    assert "Methods against each other" in page.text and "+2.5 ± 3.0" in page.text


def test_user_text_is_escaped():
    evil = '<script>alert("x")</script>&'
    runs = [replace(r, name=f"{evil}{r.name}", recipe=Recipe(out=evil)) for r in three_seeds()]
    runs += [run(evil, seed, 0.01) for seed in range(3)]
    panel = replace(full_findings().panels[0], name=evil)
    html = render(
        full_report(
            summaries=runs,
            classes=[evil, *CLASSES[1:]],
            findings=full_findings(panels=[panel], panel_rule=evil, notes=[evil]),
            title=evil,
            notes=[evil],
        )
    )
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert evil in Page(html).text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "labels",
    [("control", "idd"), ("teacher", "idd"), ("idd",), ("control",), ("teacher", "control")],
)
def test_any_part_of_the_runs_makes_a_page(labels):
    runs = [replace(r, metrics=()) for r in three_seeds() if r.label in labels]
    page = Page(render(Report(runs, CLASSES, [])))
    assert page.headings == ["Comparison", "IoU by class", "Details"]
    assert ("These runs have no control" in page.text) == ("control" not in labels)


@pytest.mark.usefixtures("undrawn")
def test_one_seed_is_not_explained_with_the_legends_of_several(page):
    words = ("Rings", "Thin lines", "standard deviation ±", "95 % interval", "mean over seeds", "±")
    runs = [r for r in three_seeds() if r.seed == 0]
    alone = Page(render(Report(runs, CLASSES, []))).text
    notes = "two or more seeds give a standard deviation and, for the differences, a 95 % interval"
    assert notes in alone
    for word in (*words[:2], "Mean over seeds", "interval of", *words[4:]):
        assert word in page.text and word not in alone, word


def test_charts_are_drawn_for_telephones_too(html):
    found = re.findall(r'<div class="narrow"><svg [^>]*viewBox="0 0 ([\d.]+)', html)
    assert len(found) == html.count('<div class="wide">') == 3
    assert all(float(width) <= 390 - 32 for width in found)


def test_each_picture_bears_its_name(html):
    # Narrow screens show a row of pictures over several lines, where no header stands above them.
    findings = full_findings()
    for label in ("teacher", "control", "idd"):
        named = rf'<b><span class="chip"><i [^>]*></i>{label}</span></b><img class="mask"'
        axes = 2 * len(findings.positions)
        assert len(re.findall(named, html)) == len(findings.panels) + axes
    assert html.count("<b>label</b>") == html.count("<b>image</b>") == len(findings.panels)


def test_ignored_pixels_and_their_legend_share_one_pattern(html):
    assert '<i class="ignored"></i>ignored' in html
    assert ".ignored, img.mask { background:" in html


def test_times_are_in_one_unit_per_column(page):
    assert "latency, ms step, ms training, min" in page.text
    # 3000 and 1000 steps of 0.08 s; those of the methods take 0.168 s.
    assert "310.2 80 4.0" in page.text and "41.6 80 1.3" in page.text
    assert "41.6 168 2.8" in page.text


@pytest.mark.usefixtures("undrawn")
def test_a_page_is_rendered_for_one_seed():
    runs = [replace(r, metrics=r.val_rows) for r in three_seeds() if r.seed == 0]
    page = Page(render(Report(runs, CLASSES, [])))
    assert "(1 seed, 101 images): this may be chance" in page.text and "+2.8" in page.text


def test_a_page_is_rendered_for_runs_without_metrics():
    runs = [
        replace(run(label), metrics=(), evaluation=None, profile=None)
        for label in ("control", "idd")
    ]
    page = Page(render(Report(runs, CLASSES, [])))
    assert page.headings == ["Comparison", "Details"]


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="expected at least one"):
        render(Report([], CLASSES, []))


def test_sections_without_data_are_left_out():
    page = Page(render(bare()))
    assert page.headings == ["Comparison", "Details"]


def bare(*distances):
    """A report without charts, which take most of the time."""
    runs = [replace(run(label), metrics=(), evaluation=None) for label in ("control", "idd")]
    return full_report(summaries=runs, findings=Findings(distances=distances))


def test_distances_without_a_teacher_have_no_correlation():
    page = Page(render(bare(Distances("control", distances(2)))))
    assert "correlation with" not in page.text and "minus teacher" not in page.text


def test_a_page_is_rendered_without_any_known_distance():
    blank = np.full((11, 11), np.nan)
    tables = [Distances("teacher", blank), Distances("idd", blank)]
    assert "Blank, with too few pixels: sky, building" in Page(render(bare(*tables))).text


def test_many_classes_are_cut_in_the_chart_but_not_in_the_table():
    names = [f"class {i}" for i in range(150)]
    iou = {"control": np.linspace(0.1, 0.9, 150), "idd": np.linspace(0.2, 0.85, 150)}
    runs = [
        run(label, evaluation={"miou": 0.5, "iou": values.tolist()})
        for label, values in iou.items()
    ]
    page = Page(render(Report(runs, names, [])))
    assert "The chart shows the 40 classes at both ends" in page.text
    assert all(name in page.text for name in names)


@pytest.mark.usefixtures("undrawn")
def test_runs_shown_with_their_last_validation_are_named():
    rows = [{"kind": "val", "step": 9, "miou": 0.5}]
    runs = [replace(run("kd", seed), metrics=rows) for seed in range(3)]
    runs[1] = replace(runs[1], evaluation=None)
    assert "last validation: kd-s1." in Page(render(Report(runs, CLASSES, []))).text


def falling(seed, steps=100):
    """A run whose term has the share of its step, in per mille, and a weight that falls to 0."""
    rows = [
        {
            "kind": "train",
            "step": step,
            "terms": {
                "cross_entropy": {"value": 1.0, "weight": 1.0, "share": 1.0},
                "pixelwise": {"value": 1.0, "weight": 3 * (1 - step / steps), "share": step / 1000},
            },
        }
        for step in range(5, steps + 1, 5)
    ]
    return replace(run("kd", seed), metrics=rows)


def test_shares_are_shown_along_the_training():
    assert SHARES_AT == (10, 25, 50, 100)
    rows = {row["term"]: row for row in term_view([falling(0), falling(1)])}
    # The three nearest rows of each run: 5, 10, 15; 20, 25, 30; 45, 50, 55; 90, 95, 100.
    assert rows["pixelwise"]["shares"] == ["0.01", "0.025", "0.05", "0.095"]
    assert rows["cross_entropy"]["shares"] == ["1"] * 4
    assert rows["pixelwise"]["weight"] == "2.85 → 0" and rows["cross_entropy"]["weight"] == "1"
    made = replace(full_report(), summaries=[*three_seeds(), falling(7)])
    assert "gradient share at 10 % 25 % 50 % 100 %" in Page(render(made)).text


def test_a_term_without_a_share_has_none_at_any_step():
    terms = {"position": {"value": 0.0, "weight": 1.0, "share": None}}
    rows = [{"kind": "train", "step": step, "terms": terms} for step in (1, 2)]
    (row,) = term_view([replace(run("idd"), metrics=rows)])
    assert row["shares"] == ["–"] * 4
