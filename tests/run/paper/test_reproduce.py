"""The paper's tables and figures, filled with made-up runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from segdistill.config import to_dict
from segdistill.distillation.catalogue import METHODS
from segdistill.losses import LOSSES
from segdistill.run.paper import layout
from segdistill.run.paper import reproduce as module
from segdistill.run.paper.published import exhibit
from segdistill.run.paper.reproduce import place_runs, reproduce
from segdistill.run.recipe import parse_recipe
from tests.run.reporting.test_page import Page

EXHIBITS = ["table1", "table2", "table3", "table4", "fig3", "fig4", "fig5"]
NO_POSITION = {"position": {"weight": 0}}


@pytest.fixture(autouse=True)
def counts_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips counting, which is slow and tested in `test_costs.py`."""

    def counts(network: str) -> dict[str, float] | None:
        return {"params": 13.068, "flops": 125.83} if network.startswith("pspnet_r") else None

    monkeypatch.setattr(layout, "counted", counts)


def made_up(
    folder: Path,
    miou: float,
    method: Any = "supervised",
    model: str = "pspnet_r18",
    data: str = "cityscapes",
    split: str = "val",
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A finished run without weights."""
    values = {
        "data": {"name": data, "val_split": split},
        "student": {"model": model},
        "method": method,
        "train": {"seed": seed},
        **changes,
    }
    if method != "supervised":
        values.setdefault("teacher", {"run": str(folder.parent / "teacher-s0")})
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(parse_recipe(values))))
    figures = {"miou": miou / 100, "iou": [miou / 100, None, 0.5], "pixel_accuracy": 0.5}
    figures["classes"] = ["a<b", "b", "car"]
    (folder / "evaluation.json").write_text(json.dumps(figures))
    info = {"name": model, "num_classes": 3, "options": {}, "classes": figures["classes"]}
    (folder / "model.json").write_text(json.dumps(info))
    (folder / "model.safetensors").touch()
    return folder


def lines(text: str) -> dict[str, list[str]]:
    """Name of each row of the table -> its cells, split at two blanks."""
    table = text.split("\n\n")[1]
    cells = [[cell for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]
    return {row[0].strip().partition(" [")[0]: [c.strip() for c in row[1:]] for row in cells if row}


# Published values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXHIBITS)
def test_every_row_names_what_exists(name: str) -> None:
    found = exhibit(name)
    for row in found.rows:
        assert all(part in METHODS or part in LOSSES for part in row.method.split("+"))
        assert row.note is None or row.note in found.notes
        assert set(row.printed) <= set(found.columns)
        assert all(float(text) > 0 for text in row.printed.values())
    assert set(found.notes) == {row.note for row in found.rows if row.note}


def figure(table: str, network: str, method: str, column: str = "val") -> float:
    rows = exhibit(table).rows
    row = next(r for r in rows if (r.network, r.method) == (network, method))
    return float(row.printed[column])


@pytest.mark.parametrize(
    ("table", "network", "column", "rival", "lead"),
    [
        ("table2", "pspnet_r18", "test", "supervised", 8.73),  # 76.33 - 67.60, not in the text
        ("table3", "espnet", "val", "supervised", 7.47),
        ("table3", "espnet", "test", "supervised", 7.05),
        ("table3", "espnet", "val", "ifvd", 3.74),
        ("table3", "espnet", "val", "cwd", 1.60),
        ("table3", "pspnet_r18_half", "val", "ifvd", 6.41),
        ("table3", "pspnet_r18_half", "val", "cwd", 1.19),
        ("table3", "pspnet_r18", "val", "supervised", 7.50),
        ("table3", "pspnet_r18", "val", "ifvd", 3.05),
        ("table3", "pspnet_r18", "val", "cwd", 1.69),
        ("table4", "pspnet_r18", "val", "skd", 2.67),
        ("table4", "pspnet_r18", "val", "ifvd", 1.87),
        ("table4", "pspnet_r18", "val", "cwd", 0.89),
        ("table4", "pspnet_mobilenet_v2", "val", "skd", 4.04),
        ("table4", "pspnet_mobilenet_v2", "val", "ifvd", 3.50),
        ("table4", "pspnet_mobilenet_v2", "val", "cwd", 1.19),
    ],
)
def test_differences_in_the_papers_text_match_its_tables(
    table: str, network: str, column: str, rival: str, lead: float
) -> None:
    idd, other = (figure(table, network, method, column) for method in ("idd", rival))
    assert idd - other == pytest.approx(lead, abs=1e-6)


def test_an_unknown_exhibit_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match="no table or figure named 'tabel3'; did you mean 'table3'"
    ):
        exhibit("tabel3")


@pytest.mark.parametrize("name", EXHIBITS)
def test_without_runs_only_published_values_are_shown(name: str, tmp_path: Path) -> None:
    text = reproduce(name, out=tmp_path)
    found = exhibit(name)
    rows = lines(text)
    for row in found.rows if found.columns else []:
        assert set(row.printed.values()) <= {c for r in text.splitlines() for c in r.split()}
        assert row.name in rows
    missing = text[text.index("Without a run") :]
    for row in found.rows:
        assert f"  {row.name}  {row.network}  " in missing
    page = Page((tmp_path / f"{name}.html").read_text())
    assert page.headings == [found.title]
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert (tmp_path / f"{name}.png").is_file() == (name not in ("fig3", "fig4"))


# Rows of runs -------------------------------------------------------------------------------------


def test_runs_fill_the_rows_of_their_data_student_and_losses(tmp_path: Path) -> None:
    made_up(tmp_path / "teacher-s0", 78.0, model="pspnet_r101")
    for seed, miou in enumerate((70.0, 71.0)):
        made_up(tmp_path / f"control-s{seed}", miou, seed=seed)
    paper = {"name": "idd", "preset": "paper"}
    made_up(tmp_path / "idd-s0", 76.0, paper)
    made_up(tmp_path / "part-s0", 75.0, "idd", terms=NO_POSITION)
    made_up(tmp_path / "half-s0", 61.0, "cwd", model="pspnet_r18_half")
    rows = lines(reproduce("table1", [tmp_path], tmp_path / "out"))
    assert rows["T: PSPNet-R101"] == ["78.56", "78.00"]
    assert rows["S: PSPNet-R18"] == ["70.09", "70.50 ± 0.71 (2)"]
    assert rows["+ SKD + CD + IDDM"] == ["76.43", "75.00"]
    assert rows["+ SKD + CD + PIDM"] == ["76.81", "–"]
    assert rows["+ SKD + CD + PIDM + IDDM"] == ["77.59", "76.00"]
    placed = {p.run.name: p for p in place_runs(exhibit("table3"), [tmp_path])}
    half = placed["half-s0"].row
    assert half is not None and (half.network, half.method) == ("pspnet_r18_half", "cwd")
    assert placed["part-s0"].row is None
    assert "(channelwise, inter_class, pairwise, pixelwise)" in placed["part-s0"].reason
    first = placed["teacher-s0"].row
    assert first is not None and first.name == "T: PSPNet-R101"


def test_a_run_without_a_row_is_listed_with_the_reason(tmp_path: Path) -> None:
    made_up(tmp_path / "other-data", 40.0, data="camvid")
    made_up(tmp_path / "other-student", 40.0, model="compact")
    made_up(tmp_path / "other-method", 40.0, "at")
    begun = made_up(tmp_path / "begun", 0.0)
    (begun / "evaluation.json").unlink()
    text = reproduce("table3", [tmp_path], tmp_path / "out")
    assert "other-data  no row: its data set is camvid; expected cityscapes" in text
    assert (
        "other-student  no row: its network is compact; expected one of pspnet_r101, espnet" in text
    )
    assert "other-method  no row: no row of pspnet_r18 has its losses (attention)" in text
    assert "begun  no row: it is not finished" in text


def test_runs_of_different_recipes_are_not_averaged(tmp_path: Path) -> None:
    made_up(tmp_path / "a-s0", 70.0)
    made_up(tmp_path / "a-s1", 71.0, seed=1)
    made_up(tmp_path / "b-s0", 60.0, train={"seed": 0, "steps": 7})
    made_up(tmp_path / "c-s0", 50.0, split="test")
    rows = lines(reproduce("table3", [tmp_path], tmp_path / "out"))
    assert rows["S: PSPNet-R18"][1] == "70.50 ± 0.71 (2) | 60.00 | 50.00 on test"


def test_the_ablation_may_be_filled_elsewhere(tmp_path: Path) -> None:
    camvid = {"data": "camvid", "model": "compact"}
    made_up(tmp_path / "teacher-s0", 57.0, data="camvid", model="deeplabv3plus")
    made_up(tmp_path / "control-s0", 37.0, **camvid)
    made_up(tmp_path / "skd-s0", 37.5, "skd", **camvid)
    text = reproduce("table1", [tmp_path], tmp_path / "out")
    rows = lines(text)
    assert rows["T: PSPNet-R101"] == ["78.56", "–", "57.00"]
    assert rows["+ SKD"] == ["73.03", "–", "37.50"]
    assert rows["+ SKD + CD"] == ["75.78", "–", "–"]
    assert "camvid, compact" in text and "compare the order and the gains" in text
    assert "+ SKD on camvid, compact" in text


def test_a_row_without_a_run_shows_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cityscapes"
    folder.mkdir()
    shared = {"data": {"name": "cityscapes"}}
    part = {"method": {"name": "idd", "preset": "paper"}, "terms": NO_POSITION}
    recipes = {"base": shared, "alone": shared, "part": {**shared, **part}}
    for name, values in recipes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(module, "recipes_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    text = reproduce("table1", out="out")
    for line in (
        "S: PSPNet-R18  pspnet_r18  segdistill train cityscapes/alone.yaml",
        "+ SKD + CD + IDDM  pspnet_r18  segdistill train cityscapes/part.yaml",
        "T: PSPNet-R101  pspnet_r101  segdistill train cityscapes/base.yaml --student.model pspnet_r101",
        "+ SKD  pspnet_r18  no recipe for data cityscapes, student pspnet_r18, method skd",
    ):
        assert line in text


def test_figure_3_shows_the_classes(tmp_path: Path) -> None:
    made_up(tmp_path / "control-s0", 70.0)
    made_up(tmp_path / "idd-s0", 76.0, "idd")
    text = reproduce("fig3", [tmp_path], tmp_path / "out")
    rows = lines(text)
    assert rows["a<b"] == ["70.00", "–", "–", "76.00"]
    assert rows["car"] == ["50.00", "–", "–", "50.00"]
    assert "b" not in rows, "it is undefined in every run"
    assert (tmp_path / "out" / "fig3.png").is_file()


def test_figures_4_and_5_show_leads(tmp_path: Path) -> None:
    made_up(tmp_path / "teacher-s0", 77.0, model="pspnet_r101", data="voc")
    made_up(tmp_path / "control-s0", 70.0, data="voc")
    made_up(tmp_path / "idd-s0", 76.0, "idd", data="voc")
    rows = lines(reproduce("fig4", [tmp_path], tmp_path / "out"))
    assert rows["FCN"] == ["6.79", "–", "not built here", "–"]
    assert rows["PSPNet-R101"] == ["–", "−1.00", "13.07", "77.00"]
    assert rows["PSPNet-R18 + IDD"] == ["–", "–", "13.07", "76.00"]
    assert (tmp_path / "out" / "fig4.png").is_file()
    rows = lines(reproduce("fig5", [tmp_path], tmp_path / "out"))
    assert rows["S: PSPNet-R18"] == ["6.01", "6.00", "70.00"]


def test_user_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)"
    folder = made_up(tmp_path / "[red]s0", 70.0)
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["student"] = {"model": evil, "options": {evil: evil}}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    text = reproduce("table1", [tmp_path], tmp_path / "out")
    assert "[red]s0" in text and evil in text
    html = (tmp_path / "out" / "table1.html").read_text()
    assert "<script" not in html
    assert evil in Page(html).text
