"""README and quickstart: every command works in the printed order."""

import importlib.util
from pathlib import Path
from shutil import copy

import pytest

from tests.walk import blocks, walk, write_photographs

ROOT = Path(__file__).parent.parent
SMALL = (
    (r"steps: \d+", "steps: 4"),
    (r"crop: \[\d+, \d+\]", "crop: [32, 32]"),
    (r"size: \[\d+, \d+\]", "size: [48, 64]"),
    (r"pspnet_r\w+", "tests.run.plain.NoNorm"),
)


@pytest.mark.usefixtures("undrawn")
def test_the_commands_of_the_quickstart_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "data" / "mine")
    page = ROOT / "docs" / "quickstart.md"
    (tmp_path / "new").mkdir()
    copy(tmp_path / "data" / "mine" / "images" / "0001.jpg", tmp_path / "new" / "photo.jpg")
    commands = walk(page, SMALL, monkeypatch)
    assert {"check", "train", "compare", "evaluate", "report", "export", "predict"} <= {
        command.split()[1] for command in commands if command.startswith("segdistill")
    }
    assert (tmp_path / "photo_mask.png").is_file()
    assert len(list((tmp_path / "predictions").iterdir())) >= 30
    assert len(list(tmp_path.rglob("report.html"))) == 1
    [(_, block)] = blocks(page, "python")
    exec(compile(block, str(page), "exec"), {})
    assert list((tmp_path / "masks").iterdir())


def test_the_commands_of_the_readme_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "data" / "mine")
    monkeypatch.setattr("segdistill.run.reporting.pictures._READOUT_STEPS", 10)
    # A teacher of four steps is at chance level.
    monkeypatch.setattr("segdistill.run.auditing.teacher.refusal", lambda *_: "")
    commands = walk(ROOT / "README.md", SMALL, monkeypatch)
    assert [command.split()[1] for command in commands] == [
        "check",
        "train",
        "train",
        "evaluate",
        "compare",
        "report",
        "export",
        "predict",
    ]
    assert (tmp_path / "runs" / "mine" / "student" / "idd-s2" / "evaluation.json").is_file()
    assert len(list(tmp_path.rglob("report.html"))) == 1
    assert len(list((tmp_path / "predictions").iterdir())) >= 30


def test_the_chart_shows_the_committed_figures() -> None:
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None and spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    committed = (ROOT / "docs" / "images" / "camvid.svg").read_text("utf-8")
    assert pictures.chart() == committed, "python docs/pictures.py draws it again"
    assert ">+0.6 ± 0.8<" in committed  # as in the table
