import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segdistill.cli import main
from segdistill.labels import IGNORED
from segdistill.run.evaluation.distances import class_statistics, edge_correlation, mapped
from segdistill.run.evaluation.evaluate import evaluate
from segdistill.run.evaluation.positions import PositionProbe
from segdistill.run.evaluation.protocol import Protocol, evaluating
from segdistill.run.evaluation.showing import segment, segment_surely
from segdistill.run.evaluation.transfer import (
    binned,
    calibration_error,
    measure_transfer,
    on_boundary,
)
from segdistill.run.folder import RunFolder
from segdistill.run.reporting.page import render
from segdistill.run.reporting.reading.runs import find_runs, summarise
from segdistill.run.reporting.report import report
from segdistill.run.reporting.transferred import transfer_view
from segdistill.run.training.train import train
from tests.run import made_up, small

CLASSES = 3


class Net(nn.Module):
    """Logits at a stride of 2, features of 4 channels."""

    align_corners = False
    multiple_of = 1

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Conv2d(4, CLASSES, 1)
        self.head.weight.data *= 4
        self.taps = {"logits": "head", "features": "body"}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images))
        return logits


class Scenes(list):
    classes = ("a", "b", "c")


@pytest.fixture
def scenes() -> Scenes:
    generator = torch.Generator().manual_seed(0)
    found = Scenes()
    for _ in range(3):
        label = torch.randint(0, CLASSES, (3, 4), generator=generator)
        label = label.repeat_interleave(8, 0).repeat_interleave(8, 1)
        label[:5, 20:] = IGNORED
        image = torch.rand(3, 24, 32, generator=generator) / 2 + label.clamp_max(3) / 6
        found.append((image, label))
    return found


def slow_boundary(label: torch.Tensor, reach: int) -> torch.Tensor:
    height, width = label.shape
    found = torch.zeros_like(label, dtype=torch.bool)
    for r in range(height):
        for c in range(width):
            rows = range(max(r - reach, 0), min(r + reach + 1, height))
            columns = range(max(c - reach, 0), min(c + reach + 1, width))
            near = {int(label[y, x]) for y in rows for x in columns} - {IGNORED}
            found[r, c] = label[r, c] != IGNORED and near != {int(label[r, c])}
    return found


def slow_ece(rows: list[tuple[float, bool]]) -> float:
    total = 0.0
    for place in range(15):
        inside = [row for row in rows if place / 15 < row[0] <= (place + 1) / 15]
        if inside:
            gap = sum(right for _, right in inside) - sum(sure for sure, _ in inside)
            total += abs(gap) / len(rows)
    return total


@pytest.mark.parametrize("reach", [1, 3])
def test_boundaries_agree_with_loops(scenes: Scenes, reach: int) -> None:
    for _, label in scenes:
        found = on_boundary(label, reach)
        assert torch.equal(found, slow_boundary(label, reach))
        assert 0 < found.sum() < (label != IGNORED).sum()


def test_calibration_by_hand() -> None:
    """Two pixels of 0.9, one right: |1 - 1.8|. One of 0.62, right: 0.38. (0.8 + 0.38) / 3."""
    bins = binned(torch.tensor([0.9, 0.9, 0.62]), torch.tensor([True, False, True]))
    assert calibration_error(bins) == pytest.approx(1.18 / 3)
    assert bins[:, 0].nonzero().flatten().tolist() == [9, 13]
    ends = binned(torch.tensor([1.0, 1e-9, 0.06]), torch.tensor([True, False, False]))
    assert ends[:, 0].tolist() == [2, *[0] * 13, 1]


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(),
        Protocol(flip=True, scales=(1.0, 1.5)),
        Protocol(flip=True, average="probabilities"),
    ],
)
def test_confidences_are_those_of_the_predicted_class(scenes: Scenes, protocol: Protocol) -> None:
    """With one view against the softmax of the logits at the pixels; with several, a probability."""
    net, sample = Net(0), {"image": scenes[0][0], "label": scenes[0][1]}
    with evaluating(net):
        classes, confidence = segment_surely(net, sample, protocol, CLASSES)
        assert torch.equal(classes, segment(net, sample, protocol))
        logits = nn.functional.interpolate(net(scenes[0][0][None]), (24, 32), mode="bilinear")
    assert (confidence > 1 / CLASSES - 1e-6).all() and (confidence <= 1).all()
    if protocol == Protocol():
        torch.testing.assert_close(confidence, logits.softmax(1)[0].amax(0))


def test_all_figures_agree_with_loops(scenes: Scenes) -> None:
    student, teacher = Net(1), Net(2)
    found = measure_transfer(student, teacher, scenes, CLASSES)
    for net, figures in ((student, found.student), (teacher, found.teacher)):
        sure: list[tuple[float, bool]] = []
        parts = {True: torch.zeros(3, 3), False: torch.zeros(3, 3)}
        for image, label in scenes:
            near = slow_boundary(label, 3)
            with evaluating(net):
                classes, confidence = segment_surely(
                    net, {"image": image, "label": label}, Protocol()
                )
            for r, c in (label != IGNORED).nonzero().tolist():
                sure.append((float(confidence[r, c]), bool(classes[r, c] == label[r, c])))
                parts[bool(near[r, c])][label[r, c], classes[r, c]] += 1
        expected = [_slow_miou(parts[True]), _slow_miou(parts[False]), slow_ece(sure)]
        assert figures is not None
        assert [figures.boundary_miou, figures.interior_miou, figures.ece] == pytest.approx(
            expected
        )
    pairs = []
    for image, label in scenes:
        maps = []
        for net in (student, teacher):
            with evaluating(net):
                maps.append(segment(net, {"image": image, "label": label}, Protocol()))
        kept = label != IGNORED
        ours, theirs, truth = (m[kept].tolist() for m in (*maps, label))
        pairs += [(t == y, s == t) for s, t, y in zip(ours, theirs, truth, strict=True)]
    right, wrong = ([agrees for is_right, agrees in pairs if is_right == w] for w in (True, False))
    assert len(right) > 100 and len(wrong) > 100
    assert found.agreement == pytest.approx(sum(right + wrong) / len(pairs))
    assert found.agreement_where_right == pytest.approx(sum(right) / len(right))
    assert found.agreement_where_wrong == pytest.approx(sum(wrong) / len(wrong))
    assert found.teacher_right == pytest.approx(len(right) / len(pairs))
    spaces = [class_statistics(n, scenes, num_classes=CLASSES) for n in (student, teacher)]
    tables = [space.distances() for space in spaces]
    assert found.edge_correlation == edge_correlation(*tables)
    assert found.edge_correlation is not None
    assert found.student.within_between == spaces[0].within_between()
    probe = PositionProbe(len(scenes))
    for one in mapped(student, scenes, "features"):
        probe.add(one.features, one.cells, one.image)
    assert found.student.position == probe.r2() is not None


def _slow_miou(confusion: torch.Tensor) -> float:
    values = []
    for k in range(CLASSES):
        union = float(confusion[k].sum() + confusion[:, k].sum() - confusion[k, k])
        if confusion[k].any():
            values.append(float(confusion[k, k]) / union)
    return sum(values) / len(values)


def test_a_class_that_is_only_predicted_does_not_change_what_the_mean_is_over(
    scenes: Scenes,
) -> None:
    """Or networks that predict it would be measured over one class more than others."""
    flat = Scenes([(image, torch.zeros_like(label)) for image, label in scenes])
    whole = evaluate(Net(1), flat)
    assert whole.classes_counted > 1  # classes that it predicts
    found = measure_transfer(Net(1), None, flat, CLASSES)
    assert found.student.interior_miou == pytest.approx(whole.pixel_accuracy)


def test_boundary_and_interior_make_up_the_set(scenes: Scenes) -> None:
    """With one class per image there is no boundary, and the interior is all there is."""
    flat = Scenes([(image, torch.full_like(label, k)) for k, (image, label) in enumerate(scenes)])
    found = measure_transfer(Net(1), None, flat, CLASSES)
    assert found.student.boundary_miou is None
    assert found.student.interior_miou == pytest.approx(evaluate(Net(1), flat).miou)
    assert found.teacher is found.agreement is found.edge_correlation is None


def test_a_student_agrees_with_itself(scenes: Scenes) -> None:
    found = measure_transfer(Net(1), Net(1), scenes, CLASSES)
    assert found.agreement == found.agreement_where_right == found.agreement_where_wrong == 1
    assert found.edge_correlation == pytest.approx(1) and found.teacher == found.student


def test_a_network_without_features_has_no_distances(scenes: Scenes) -> None:
    bare: Any = Net(1)
    bare.taps = {"logits": "head"}
    found = measure_transfer(bare, Net(2), scenes, CLASSES)
    assert found.student.within_between is found.edge_correlation is None
    assert found.teacher is not None and found.teacher.within_between is not None


@pytest.mark.parametrize("count", [0, 2])
def test_nothing_labelled_is_refused(scenes: Scenes, count: int) -> None:
    blank = Scenes([(image, torch.full_like(label, IGNORED)) for image, label in scenes[:count]])
    with pytest.raises(ValueError, match="no labelled pixel; expected at least one"):
        measure_transfer(Net(1), None, blank, CLASSES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student of it and a control."""
    folder = tmp_path_factory.mktemp("runs")
    taught = small.teacher(folder / "teacher")
    for name, changes in (("control", {}), ("kd", small.distilled(taught.path, method="kd"))):
        train(small.recipe(**changes, train={"steps": 2}, out=str(folder / name)), progress=False)
    return folder


def _evaluate(run: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(run), "--transfer", "true", *options])
    return int(stop.value.code or 0)


def _measured(run: Path, *options: str) -> dict[str, Any]:
    main(["evaluate", str(run), "--transfer", "true", *options])
    found: dict[str, Any] = json.loads((run / "transfer.json").read_text())
    return found


def test_a_run_keeps_what_was_measured_and_the_report_shows_it(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    student = _measured(runs / "kd")["val"]
    assert "agrees with the teacher, %" in capsys.readouterr().out
    control = _measured(runs / "control", "--teacher", str(runs / "teacher"))["val"]
    assert control["teacher"] == student["teacher"] and control["student"] != student["student"]
    assert 0 < control["agreement"] < 1

    monkeypatch.setattr("segdistill.run.commands.measure_transfer", None)  # not measured again
    assert _measured(runs / "kd") == {"val": student}
    monkeypatch.undo()

    path = runs / "kd" / "transfer.json"  # of a version that did not measure position
    old = json.loads(path.read_text())
    del old["val"]["student"]["position"]
    path.write_text(json.dumps(old))
    assert _measured(runs / "kd") == {"val": student}

    alone = _measured(runs / "control", "--on", "seen", "--data.val_split", "train")
    assert alone["val"] == control and alone["seen"]["teacher"] is None

    text = report([runs], runs / "report.html", latency=False).read_text()
    section = text[text.index("What was transferred") : text.index('id="details"')]
    assert f"<td>{100 * student['agreement_where_wrong']:.1f}</td>" in section
    assert f"<td>{100 * control['student']['ece']:.1f}</td>" in section
    assert "<h3>seen</h3>" in section
    assert f"<td>{student['student']['position']['interior'][0]:.2f}</td>" in section


@pytest.mark.parametrize(
    ("key", "digest", "left_out"),
    [("teacher", "1" * 64, "control"), ("data", "1" * 64, "control"), (None, "", "")],
)
def test_figures_of_another_teacher_or_other_images_are_left_out_of_the_report(
    runs: Path, tmp_path: Path, key: str | None, digest: str, left_out: str
) -> None:
    folder = tmp_path / "runs"
    for name, options in (("kd", ()), ("control", ("--teacher", str(runs / "teacher")))):
        measured = _measured(runs / name, *options)
        shutil.copytree(runs / name, folder / name)
        if key is not None and name == "control":
            measured["val"]["of"][key] = digest
            (folder / name / "transfer.json").write_text(json.dumps(measured))
    view = transfer_view(summarise(find_runs([folder]))) or {}
    assert view["left_out"] == ({"val": left_out} if left_out else {})
    rows = dict(view["tables"][0][1])
    assert rows.keys() == {"teacher", "kd", *(() if left_out else ("control",))}
    assert "±" not in " ".join(rows["teacher"])
    said = "Left out, as measured beside another network" in render(
        made_up.full_report(summaries=summarise(find_runs([folder])))
    )
    assert said == bool(left_out)


def test_figures_of_other_weights_are_not_shown(runs: Path) -> None:
    path = runs / "kd" / "transfer.json"
    kept = _measured(runs / "kd")
    kept["val"]["of"]["weights"] = "0" * 64
    path.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"transfer\.json does not belong to model\.safetensors"):
        RunFolder(runs / "kd").transfer()
    path.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--flip", "true"], "--flip is given beside --transfer"),
        (["--weights", "best"], "--weights is given beside --transfer"),
        (["--split", "train"], "the changed data has none. Name it with --on"),
        (["--teacher", "nowhere"], "no run at nowhere"),
    ],
)
def test_what_does_not_apply_is_refused(
    runs: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _evaluate(runs / "kd", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_teacher_without_transfer_is_refused(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", str(runs / "kd"), "--teacher", str(runs / "teacher")])
    assert "expected --transfer true beside it" in " ".join(capsys.readouterr().err.split())
