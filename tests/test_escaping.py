"""Names of any content, in each medium that shows them: nothing is obeyed, no line is forged."""

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table

from segdistill import cli
from segdistill.config import Recipe
from segdistill.escaping import html, markdown, markdown_code, terminal_line, terminal_text
from segdistill.run import console
from segdistill.run.evaluation import Evaluation
from segdistill.run.evaluation.profile import Profile
from segdistill.run.evaluation.profile import table as profile_table
from segdistill.run.progress import TrainingProgress, counting
from segdistill.run.reporting.page import fill
from segdistill.run.reporting.views import SEQUENTIAL, matrix
from segdistill.run.shipping.bundle import _card

CONTROLS = [
    *("\x1b", "\x1b]0;title\x07", "\n", "\r", "\t", "\x00", "\x7f", "\x9b", "\x85", "\x0b", "\x08"),
    *("\u202e", "\u2066", "\u200b", "\u200f", "\ufeff", "\u2028", "\u2029", "\u00ad", "\u3164"),
    *("\U000e0041", "\udce9"),
]
"""Escape sequences, line breaks of all kinds, marks of direction, and what cannot be seen."""
PLAIN = ["road", "véhicule à moteur", "道路", "дорога", "street-light (on)", r"C:\data\new", "50 %"]
HOSTILE = "road\x1b[2J |\n| sky | 99.00 | [red]x[/red] :car: <b>\u202e\u200b`_"


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_control_characters_are_written_out(control: str) -> None:
    for escaped in (terminal_line(f"a{control}b"), markdown(f"a{control}b"), html(f"a{control}b")):
        assert escaped.startswith("a") and escaped.endswith("b")
        kept = {*"\n\t"} if escaped == html(f"a{control}b") else set()
        assert not {*control} & {*CONTROLS} & {*escaped} - kept
    assert terminal_line(f"a{control}b").isprintable()
    assert markdown_code(control).isprintable()
    assert terminal_text(f"a{control}b").replace("\n", "").isprintable()


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_of_any_script_stay_as_they_are(name: str) -> None:
    assert terminal_line(name) == terminal_text(name) == html(name) == markdown_code(name) == name


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("<script>", "&lt;script&gt;"),
        ("&copy;", "&amp;copy;"),
        ("![x](http://y)", r"\!\[x\](http://y)"),
        ("*bold* `code` ~~out~~ $x$", r"\*bold\* \`code\` \~\~out\~\~ \$x\$"),
        ("_start of_it_", r"\_start of_it\_"),
        ("pspnet_r18", "pspnet_r18"),
    ],
)
def test_markup_of_markdown_is_text(text: str, escaped: str) -> None:
    assert markdown(text) == escaped


def _evaluation(*names: str) -> Evaluation:
    ones = [1.0] * len(names)
    confusion = torch.eye(len(names), dtype=torch.int64) * 5
    return Evaluation(1.0, ones, ones, 1.0, len(names), list(names), confusion, 3, {})  # type: ignore[arg-type]


def _safe(text: str, lines: int) -> None:
    """As many lines as there should be, each fit for a terminal, and markup shown as it was written."""
    assert text.rstrip("\n").count("\n") + 1 == lines, text
    assert all(line.isprintable() for line in text.rstrip("\n").split("\n"))
    assert "[red]x[/red] :car:" in text


def test_tables_for_a_terminal() -> None:
    _safe(_evaluation(HOSTILE, "sky").table(), 4)
    cost = Profile(1, 1, 1.0, "flops", (4, 4), None, None, 0, 1, "cpu")
    _safe(profile_table({HOSTILE: cost, "b": cost}), 3)
    table = Table(HOSTILE, "b", box=None)
    table.add_row(HOSTILE, "2")
    _safe(console.render(table, 200), 2)


@pytest.mark.parametrize("terminal", [True, False])
def test_log_lines(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()

    def made(stderr: bool = False) -> Console:
        return Console(file=stream, force_terminal=terminal, width=300, color_system=None)

    monkeypatch.setattr(console, "terminal", made)
    handler = console._handler()
    if isinstance(handler, logging.StreamHandler):
        handler.setStream(stream)
    for value in (HOSTILE, Path(HOSTILE), ValueError(HOSTILE)):
        stream.seek(0)
        stream.truncate()
        record = logging.LogRecord(
            "segdistill", logging.INFO, "", 0, "run %s, %d", (value, 3), None
        )
        handler.emit(record)
        _safe("\n".join(line.rstrip() for line in stream.getvalue().splitlines()), 1)


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(terminal_line(HOSTILE))
    _safe(capsys.readouterr().out, 1)
    console.say("first\n" + HOSTILE.replace("\n", ""))
    _safe(capsys.readouterr().out, 2)


def test_errors_and_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(tmp_path / HOSTILE)])
    _safe(capsys.readouterr().err, 1)
    stream = io.StringIO()
    shown = Console(file=stream, force_terminal=True, width=300, color_system=None)
    with TrainingProgress(HOSTILE, 2, console=shown) as bar:
        bar.terms(1, {HOSTILE: 1.0})
        bar.say(HOSTILE)
    with counting(HOSTILE, shown) as progress:
        progress(1, 2)
    assert "[2J" in stream.getvalue()
    assert not {"\x1b[2J", "\u202e", "\u200b"} & {c for c in stream.getvalue()}
    assert "\x1b[2J" not in stream.getvalue()


@pytest.mark.usefixtures("unchecked")
def test_the_model_card_has_one_row_a_class(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    hostile = {
        "name": HOSTILE,
        "train_split": HOSTILE,
        "val_split": HOSTILE,
        "options": {HOSTILE: 1},
    }
    run: Any = SimpleNamespace(
        path=Path(HOSTILE),
        method_name=HOSTILE,
        seed=0,
        config=lambda: {"data": hostile},
        recipe=Recipe,
        model_info=lambda: {"name": HOSTILE, "step": 3},
        teacher=lambda: {"model": HOSTILE, "miou": 0.5},
        environment=lambda: {"python": HOSTILE, "packages": {"torch": HOSTILE}, "gpu": HOSTILE},
    )
    info: Any = SimpleNamespace(
        classes=[HOSTILE, "sky"], channels=3, resize=True, size=None, argmax=True
    )
    file = {"bytes": 1, "sha256": "0"}
    parity = {
        "opset": 18,
        "model.onnx": file,
        "miou": {"pytorch": 0.5},
        "sizes": [1],
        "label_agreement": 1.0,
        "latency": {"size": [8, 8], "threads": 1, "model.onnx": {"median_ms": 1.0, "repeats": 3}},
        "environment": {"system": "Linux", "processor": "AVX2"},
    }
    card = _card(run, tmp_path, info, _evaluation(HOSTILE, "sky"), parity)
    parts = {"name": "n", "train_split": "t", "val_split": "v", "options": {}}
    names = {"model": "m", "name": "n", "step": 3, "miou": 0.5}
    tidy_run: Any = SimpleNamespace(
        path=Path("r"),
        method_name="m",
        seed=0,
        config=lambda: {"data": parts},
        recipe=Recipe,
        model_info=lambda: names,
        teacher=lambda: names,
        environment=lambda: {"python": "3", "packages": {"torch": "2"}, "gpu": "g"},
    )
    tidy = _card(
        tidy_run,
        tmp_path,
        info,
        _evaluation("road", "sky"),
        parity,
    )
    assert len(card.splitlines()) == len(tidy.splitlines())
    assert all(line.isprintable() for line in card.splitlines())
    rows = [line for line in card.splitlines() if line.startswith("| ") and "100.00" in line]
    assert len(rows) == 2
    # Of each row as many cells as in the tidy card: an escaped bar is text.
    bars = [
        re.sub(r"\\.", "", line).count("|") for line in card.splitlines() if line.startswith("|")
    ]
    assert bars == [line.count("|") for line in tidy.splitlines() if line.startswith("|")]
    assert "<b>" not in re.sub(r"`[^`]*`", "", card.replace("\\`", ""))


def test_a_page_escapes_markup_and_controls() -> None:
    layout: Any = SimpleNamespace(
        title=HOSTILE,
        source="",
        headings=[HOSTILE],
        rows=[[HOSTILE]],
        notes=[HOSTILE],
        runs=[],
        missing=[],
    )
    page = fill("paper/reproduce.html.j2", layout=layout, chart=None)
    drawing = matrix(torch.ones(2, 2).numpy(), [HOSTILE, "sky"], 1.0, SEQUENTIAL)
    for text in (page, drawing):
        assert "<b>" not in text
        assert not {"\x1b", "\u202e", "\u200b"} & {*text}
