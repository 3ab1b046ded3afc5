"""A newcomer's way through README and quickstart: every command works in the order printed."""

from pathlib import Path

import pytest

from tests.walk import blocks, walk, write_photographs

ROOT = Path(__file__).parent.parent
SMALL = (
    (r"steps: \d+", "steps: 4"),
    (r"crop: \[\d+, \d+\]", "crop: [32, 32]"),
    (r"size: \[\d+, \d+\]", "size: [48, 64]"),
    (r"pspnet_r\w+", "compact"),
)


def test_the_commands_of_the_quickstart_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "data" / "mine")
    page = ROOT / "docs" / "quickstart.md"
    commands = walk(page, SMALL, monkeypatch)
    assert {"check", "train", "compare", "evaluate", "report", "export", "predict"} <= {
        command.split()[1] for command in commands if command.startswith("segdistill")
    }
    assert (tmp_path / "0001_mask.png").is_file()
    assert len(list((tmp_path / "predictions").iterdir())) >= 30
    assert len(list(tmp_path.rglob("report.html"))) == 1
    [(_, block)] = blocks(page, "python")
    exec(compile(block, str(page), "exec"), {})
    assert list((tmp_path / "masks").iterdir())
