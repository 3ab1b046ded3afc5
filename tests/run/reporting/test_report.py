import importlib
import json
import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import segdistill.run
from segdistill.cli import main
from segdistill.run.evaluation import Evaluation
from segdistill.run.folder import RunFolder
from segdistill.run.networks import load_run_model
from segdistill.run.reporting import pictures
from segdistill.run.reporting.findings import Findings
from segdistill.run.reporting.pictures import PictureOptions, measure, spread_evenly
from segdistill.run.reporting.report import _title, find_runs, report, summarise
from segdistill.run.training.train import train
from tests.run import processes, small
from tests.run.reporting.test_page import Page


@pytest.fixture(scope="module", autouse=True)
def quick_readouts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_READOUT_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, and two seeds of control and idd."""
    base = tmp_path_factory.mktemp("runs")
    teacher = small.teacher(base / "teacher")
    for seed in (0, 1):
        settings = {"steps": 4, "seed": seed, "val_every": 2}
        quick = {"position": {"options": {"steps": 10}}}
        methods = {"control": {}, "idd": small.distilled(teacher.path, terms=quick)}
        for name, more in methods.items():
            out = str(base / f"{name}-s{seed}")
            train(small.recipe(**more, train=settings, out=out), progress=False)
    return base


@pytest.fixture(scope="module")
def page(runs: Path) -> Page:
    file = report(
        [runs], runs / "pages" / "report.html", remark="Few scenes & small ones.", panels=2
    )
    return Page(file.read_text())


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_the_page_of_real_runs_has_every_section(page: Page) -> None:
    assert page.headings == [
        "Comparison",
        "Curves",
        "IoU by class",
        "Images",
        "Distances between classes",
        "Position readout",
        "Details",
    ]
    assert "Few scenes & small ones." in page.text
    assert all(link.startswith(("data:", "#")) for link in page.links)


def test_the_page_shows_the_figures_of_the_runs(runs: Path, page: Page) -> None:
    reached = [100 * RunFolder(runs / f"control-s{seed}").evaluation()["miou"] for seed in (0, 1)]
    assert f"{sum(reached) / 2:.1f} ±" in page.text
    assert "idd" in page.text and "inter_class" in page.text
    assert "position.r2_teacher_x" in page.text
    assert "latency, ms" in page.text
    assert "Multiply-adds and median latency at 32 × 48 input" in page.text


@pytest.mark.usefixtures("undrawn")
def test_the_gist_of_real_runs_is_on_the_page_and_in_the_log(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        file = report([runs], tmp_path / "a.html", panels=0, images=1)
    gist = next(text for text in caplog.messages if text.startswith("idd: "))
    assert "32 × 48 on cpu" in gist and "% of the teacher's mIoU" in gist
    assert f"{gist}." in Page(file.read_text()).text


def test_the_report_shows_the_images_with_most_disagreement(page: Page) -> None:
    found = re.search(
        r"The 2 of (\d+) validation images on which control and idd disagree", page.text
    )
    assert found and "Seed 0." in page.text


def test_roles_labels_and_order_follow_the_runs(runs: Path) -> None:
    summaries = summarise(find_runs([runs / "idd-s1", runs / "idd-s0", runs / "control-s0"]))
    assert [(s.name, s.role, s.label) for s in summaries] == [
        ("control-s0", "control", "control"),
        ("teacher", "teacher", "teacher"),
        ("idd-s0", "method", "idd"),
        ("idd-s1", "method", "idd"),
    ]
    assert summaries[-1].wall_seconds > 0


def test_the_plain_control_comes_first_whatever_others_are_called(
    runs: Path, tmp_path: Path
) -> None:
    for name, label in (("balanced-s0", "balanced"), ("control-s0", None)):
        own = copied(runs / "control-s0", tmp_path / name)
        values = yaml.safe_load((own / "config.yaml").read_text())
        (own / "config.yaml").write_text(yaml.safe_dump({**values, "label": label}))
    assert [run.path.name for run in find_runs([tmp_path])] == ["control-s0", "balanced-s0"]
    asked = [tmp_path / "balanced-s0", tmp_path / "control-s0"]
    assert [run.path for run in find_runs(asked)] == asked


def test_a_supervised_run_that_only_names_a_teacher_is_a_control(
    runs: Path, tmp_path: Path
) -> None:
    own = copied(runs / "control-s0", tmp_path / "alone-s0")
    values = yaml.safe_load((own / "config.yaml").read_text())
    values["teacher"] = {"run": str(runs / "teacher")}

    def role() -> str:
        (own / "config.yaml").write_text(yaml.safe_dump(values))
        return next(s.role for s in summarise(find_runs([own])) if s.name == "alone-s0")

    assert role() == "control"
    values["terms"] = {"pixelwise": {"weight": 1.0}}
    assert role() == "method"
    values |= {"terms": {}, "method": {"name": "supervised", "labels": "teacher"}}
    assert role() == "method"


def test_runs_of_one_method_with_different_recipes_are_distinguished(
    runs: Path, tmp_path: Path
) -> None:
    other = copied(runs / "idd-s0", tmp_path / "stronger-s0")
    summaries = summarise(find_runs([runs / "idd-s0", other]))
    assert {s.label for s in summaries} == {"teacher", "idd", "stronger"}


@pytest.mark.usefixtures("undrawn")
def test_unfinished_runs_are_left_out_and_named(runs: Path, tmp_path: Path) -> None:
    begun = tmp_path / "kd-s0"
    begun.mkdir()
    (begun / "config.yaml").write_text((runs / "control-s0" / "config.yaml").read_text())
    with pytest.raises(ValueError, match=r"no run is finished \(kd-s0\). Resume"):
        report([begun], tmp_path / "a.html")
    file = report([runs / "control-s0", begun], tmp_path / "b.html", latency=False, images=2)
    page = Page(file.read_text())
    assert "Left out, since unfinished: kd-s0." in page.text
    assert "These runs have no control" not in page.text and "Images" in page.headings


def test_runs_with_other_classes_are_refused(runs: Path, tmp_path: Path) -> None:
    other = copied(runs / "control-s0", tmp_path / "other-s3")
    change(other / "model.json", classes=["only", "two"], num_classes=2, palette=[])
    figures = Evaluation.from_confusion(
        torch.tensor([[3, 1], [0, 4]]), classes=["only", "two"], images=6
    )
    change(other / "evaluation.json", **figures.to_json())
    with pytest.raises(ValueError, match=r"have different classes \(11 and 2\)"):
        report([runs / "control-s0", other], tmp_path / "a.html")


@pytest.mark.usefixtures("undrawn")
def test_the_report_notes_runs_of_another_student(runs: Path, tmp_path: Path) -> None:
    other = copied(runs / "control-s0", tmp_path / "wide-s3")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["student"]["options"] = {"width": 16}
    config["train"]["seed"] = 3
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    folders = [runs / "control-s0", other]
    page = Page(report(folders, tmp_path / "a.html", latency=False, images=1).read_text())
    assert "These runs do not all train the same student" in page.text


@pytest.mark.parametrize(
    ("name", "root", "expected"),
    [
        ("folder", "data/harbour", "harbour"),
        ("folder", "harbour/", "harbour"),
        ("my.module.Sea", "data/sea", "sea"),
        ("my.module.Sea", None, "my.module.Sea"),
        ("camvid", "data/elsewhere", "camvid"),
    ],
)
def test_the_title_names_the_data(
    runs: Path, tmp_path: Path, name: str, root: str | None, expected: str
) -> None:
    own = copied(runs / "control-s0", tmp_path / "control-s0")
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["data"] |= {"name": name, "root": root}
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    assert _title([RunFolder(own)]) == f"{expected}, {small.MODEL}"


@pytest.mark.usefixtures("undrawn")
def test_a_teacher_that_is_not_a_run_is_summarised_from_its_audit(
    runs: Path, tmp_path: Path
) -> None:
    own = copied(runs / "idd-s0", tmp_path / "idd-s0")
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["teacher"] = {"model": small.MODEL, "weights": "gone.safetensors"}
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    teacher = summarise(find_runs([own]))[0]
    audit = json.loads((own / "teacher.json").read_text())
    assert (teacher.label, teacher.miou) == ("teacher", 100 * audit["miou"])
    page = Page(report([own], tmp_path / "a.html").read_text())
    assert "There are no pictures and no class distances" in page.text


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run at"):
        report([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["study/idd-s0"], "study/idd-s0/report.html"),
        (["study"], "study/report.html"),
        (["study/idd-s0", "study/control-s0/"], "study/report.html"),
        (["study", "study/control-s0"], "study/report.html"),
        (["study/idd-s0", "alone-s1"], "report.html"),
    ],
)
def test_the_report_is_written_beside_its_runs(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    given: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segdistill.run.reporting.report.render", lambda page: page.title)
    monkeypatch.setattr("segdistill.run.reporting.report.measure", lambda *_: Findings())
    for name in ("idd-s0", "control-s0"):
        copied(runs / name, tmp_path / "study" / name)
    copied(runs / "control-s1", tmp_path / "alone-s1")
    with caplog.at_level("INFO"):
        file = report(given)
    assert file == Path(expected) and (tmp_path / expected).is_file()
    assert f"report: {expected}" in caplog.text


@pytest.mark.usefixtures("undrawn")
def test_the_command_writes_beside_the_runs_by_default(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segdistill.run.reporting.report.measure", lambda *_: Findings())
    monkeypatch.setattr("segdistill.run.console.set_up_logging", lambda debug: None)
    own = copied(runs / "control-s0", tmp_path / "alone-s0")
    main(["report", str(own)])
    assert (own / "report.html").is_file()
    main(["report", str(own), "--out", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").is_file()


@pytest.mark.usefixtures("undrawn")
def test_a_report_is_written_beside_its_runs(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segdistill.run.reporting.report.measure", lambda *_: Findings())
    own = copied(runs / "control-s0", tmp_path / "study" / "control-s0")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert report([own]) == own / "report.html"
    assert report(["../study"]) == tmp_path / "study" / "report.html"
    assert not list(here.iterdir())


def test_an_unwritable_output_is_refused_before_the_work(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segdistill.run.reporting.report.summarise", None)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*file .*\. Name another folder"):
        report([runs / "control-s0"], tmp_path / "file" / "a.html")
    with pytest.raises(ValueError, match=r"is a folder; expected a file, such as .*report\.html"):
        report([runs / "control-s0"], tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_networks_that_cannot_be_rebuilt_leave_the_pictures_out(runs: Path, tmp_path: Path) -> None:
    own = copied(runs / "control-s0", tmp_path / "mine-s0")
    change(own / "model.json", rebuild=False)
    page = Page(report([own], tmp_path / "a.html").read_text())
    assert (
        "There are no pictures and no class distances" in page.text
        and "Images" not in page.headings
    )
    model: nn.Module = load_run_model(runs / "control-s0")
    given = report([own], tmp_path / "b.html", models={"mine-s0": model}, images=2, latency=False)
    assert "Images" in Page(given.read_text()).headings


def test_findings_are_measured_without_a_page(runs: Path) -> None:
    folders = find_runs([runs / "idd-s0", runs / "control-s0"])
    named = {run.path.name: run for run in folders}
    classes = folders[0].model_info()["classes"]
    found = measure(summarise(folders), named, classes, "idd", PictureOptions(panels=1, images=2))
    assert list(found.panels[0].predictions) == ["teacher", "control", "idd"]
    assert [entry.label for entry in found.distances] == ["teacher", "control", "idd"]
    assert set(found.positions[0].r2) == set(found.profiles) == {"teacher", "idd", "control"}
    assert found.profiles["idd"]["latency_ms_median"] > 0 and not found.notes
    untimed = PictureOptions(panels=0, images=1, latency=False)
    alone = measure(summarise(folders), named, classes, "control", untimed)
    assert alone.profiles == {} and not alone.panels and not alone.positions


def _measure_without_the_page() -> None:
    """Import the measuring part alone: without the room's door, which opens onto the page as well."""
    for name in [name for name in sys.modules if name.startswith("segdistill.run.reporting")]:
        del sys.modules[name]
    room = types.ModuleType("segdistill.run.reporting")
    room.__path__ = [f"{path}/reporting" for path in segdistill.run.__path__]
    sys.modules[room.__name__] = room
    importlib.import_module("segdistill.run.reporting.pictures")
    page = {f"{room.__name__}.{name}" for name in ("page", "sections", "views", "charts")}
    sys.exit(bool(page & set(sys.modules)))


def test_measuring_does_not_know_the_page(tmp_path: Path) -> None:
    processes.run(tmp_path / "log", _measure_without_the_page)


def test_indices_are_spread_evenly() -> None:
    assert spread_evenly(10, 3) == [0, 3, 6]
    assert spread_evenly(2, 5) == [0, 1]
    assert spread_evenly(0, 5) == []
