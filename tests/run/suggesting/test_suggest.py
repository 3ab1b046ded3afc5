"""`segdistill suggest`: what is measured, chosen, written and refused."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from torch import Tensor, nn

from segdistill import cli
from segdistill.config import ModelConfig, Recipe
from segdistill.models import build_model
from segdistill.run.evaluation.profile import Latency, profile
from segdistill.run.recipe import load_recipe
from segdistill.run.suggesting import probing, runtimes
from segdistill.run.suggesting.asked import height_and_width, milliseconds
from segdistill.run.suggesting.candidates import BUILT_IN, FROM_TIMM, Candidate, built, listed
from segdistill.run.suggesting.choice import Measured, check_any_fits, largest_first, table_of
from tests.run import small

PAGE = Path(__file__).parents[3] / "docs" / "commands" / "suggest.md"
HERE = "tests.run.suggesting.test_suggest."


class Unexportable(nn.Module):
    """Its output depends on values, and so has no graph."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.layer(images)
        return x + 1 if float(x.sum()) > 0 else x - 1


class Broken(nn.Module):
    def __init__(self, num_classes: int) -> None:
        raise RuntimeError("no such thing")


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Medians by network, instead of measured ones; 1 ms unless set."""
    medians: dict[str, float] = {}

    def told(networks: dict[str, nn.Module], *_: Any, **__: Any) -> dict[str, Latency]:
        return {
            name: Latency(medians.get(name, 1.0), medians.get(name, 1.0), 3) for name in networks
        }

    monkeypatch.setattr(runtimes, "measure_latency", told)
    return medians


def _call(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["suggest", *words])
        sys.exit(0)
    return int(stop.value.code or 0)


def _recipe(folder: Path, **changes: Any) -> str:
    return str(small.write(folder / "student.yaml", **changes))


PYTORCH = ("--runtime", "pytorch", "--builtin", "false")


def test_the_command_of_the_page_runs(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = re.findall(r"^segdistill suggest (.*--builtin false.*)$", PAGE.read_text(), re.M)
    assert len(lines) == 1
    assert _call(*lines[0].split()) == 0
    said = capsys.readouterr().out
    cost = profile(build_model("espnet_c", 19), (32, 48), latency=False)
    assert f"{cost.parameters_deployed / 1e6:.3f}M" in said
    assert f"{cost.multiply_adds / 1e9:.3f}G" in said
    assert "onnxruntime on cpu" in said and "of 3 rounds in turns" in said
    assert load_recipe(inside / "suggested.yaml").student == ModelConfig("espnet_c")


def test_the_page_lists_the_candidates() -> None:
    text = PAGE.read_text()
    for name in [*BUILT_IN, *(name.partition(":")[2] for name in FROM_TIMM)]:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize("name", [*BUILT_IN, *FROM_TIMM])
def test_every_listed_candidate_can_be_built(name: str) -> None:
    candidate = built(Candidate(name, ModelConfig(name)), 5, (64, 96))
    assert candidate.reason == "" and candidate.cost is not None


@pytest.mark.parametrize(
    ("text", "value"), [("8ms", 8), ("0.008s", 8), ("8 ms", 8), (" .5 s ", 500), ("33.3ms", 33.3)]
)
def test_a_latency_is_read(text: str, value: float) -> None:
    assert milliseconds(text) == value


@pytest.mark.parametrize(
    "text", ["8", "ms", "-8ms", "0ms", "8 us", "8ms 9ms", "", "1e3ms", "infs", "nan s"]
)
def test_another_latency_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"--latency is .*; expected a number above 0 and its unit"
    ):
        milliseconds(text)


@pytest.mark.parametrize("text", ["512", "512x", "0x8", "-4x8", "a,b", "1x2x3"])
def test_another_size_is_refused(text: str) -> None:
    assert height_and_width(" 512 x 1024 ") == height_and_width("[512,1024]") == (512, 1024)
    with pytest.raises(ValueError, match=r"--size is .*; expected height x width"):
        height_and_width(text)


def test_the_largest_within_the_budget_replaces_the_student(
    inside: Path, times: dict[str, float]
) -> None:
    recipe = _recipe(inside, out="runs/old", method="supervised")
    times["enet"] = 9.0
    words = ("--latency", "8ms", "--candidates", "enet", "compact", "erfnet", *PYTORCH)
    assert _call(recipe, *words) == 0
    text = (inside / "suggested.yaml").read_text()
    assert "is replaced, and its options with it" in text
    # The other keys stay; the folder would be another student's.
    expected = yaml.safe_load(Path(recipe).read_text())
    del expected["out"]
    assert yaml.safe_load(text) == {**expected, "student": {"model": "erfnet"}}


def test_the_recipe_s_own_student_keeps_its_settings(inside: Path, times: dict[str, float]) -> None:
    student = {"model": small.MODEL, "options": {"width": 8}, "taps": {"deep": "module.body"}}
    recipe = _recipe(inside, student=student)
    assert _call(recipe, "--latency", "8ms", *PYTORCH) == 0
    assert yaml.safe_load((inside / "suggested.yaml").read_text())["student"] == student


def test_nothing_within_the_budget_writes_nothing(
    inside: Path, times: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    times.update(compact=12.5, enet=20.0)
    words = ("--latency", "8ms", "--size", "32x48", "--candidates", "enet", "compact", *PYTORCH)
    assert _call(*words) == 2
    told = capsys.readouterr()
    assert "no candidate takes 8 ms or less at 32x48; the nearest is compact with 12.5" in told.err
    assert told.out.count(" no ") == 2
    assert not list(inside.iterdir())


def test_each_candidate_is_announced_with_the_time_left(
    inside: Path,
    times: dict[str, float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 0.0, 70.0, 130.0])
    monkeypatch.setattr(runtimes, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    names = ["compact", "espnet_c", "tests.run.plain.NoNorm"]
    assert _call(*PYTORCH, "--latency", "8ms", "--size", "32x48", "--candidates", *names) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prep")]
    assert lines == [
        "preparing compact for pytorch (1 of 3)",
        "preparing espnet_c for pytorch (2 of 3, about 2:20 left)",
        "preparing tests.run.plain.NoNorm for pytorch (3 of 3, about 1:05 left)",
    ]


def test_pretrained_weights_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("loads weights")

    monkeypatch.setattr("segdistill.run.networks.build_trained", forbidden)
    for name, options in (
        ("pspnet:mobilenetv3_small_050", {"weights": "imagenet"}),
        ("pspnet:mobilenetv3_small_050.lamb_in1k", {"weights": "imagenet"}),
        ("torchvision:lraspp_mobilenet_v3_large", {"weights_backbone": "DEFAULT"}),
    ):
        config = ModelConfig(name, weights="absent.pth", options=dict(options))
        candidate = built(Candidate(name, config), 3, (64, 96))
        assert candidate.reason == ""
        assert candidate.config == config


def test_a_candidate_that_fails_is_listed_with_its_reason(
    inside: Path, times: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    own = [HERE + "Unexportable", HERE + "Broken", "compct"]
    words = ("--latency", "8ms", "--size", "32x48", "--builtin", "false")
    assert _call(*words, "--candidates", *own, "tests.run.plain.NoNorm") == 0
    said = capsys.readouterr().out
    assert said.count("failed") == 3
    for name, reason in zip(own, ("cannot be exported", "no such thing", "compact"), strict=True):
        assert re.search(rf"^{re.escape(name)}: .*{reason}", said, re.M), name
    assert _call(*words, "--candidates", "compct", "--out", "other.yaml") == 2
    assert "no candidate could be measured; the first, compct" in capsys.readouterr().err


def test_a_short_training_chooses_by_miou(
    inside: Path, times: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(inside, teacher={"run": "runs/not/there"}, method="idd")
    words = (recipe, "--latency", "8ms", "--candidates", "compact", "--probe", "2", *PYTORCH)
    assert _call(*words) == 0
    said = capsys.readouterr().out
    assert "mIoU of probe" in said and "after 2 steps within 8 ms" in said
    runs = sorted(path.name for path in (inside / "suggested-probe").iterdir())
    assert runs == ["compact-2", f"{small.MODEL}-recipe-2"]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (ModelConfig("compact", weights="w.safetensors"), True),
        (ModelConfig("compact", options={"weights": "imagenet"}), True),
        (ModelConfig("compact", options={"width": 8}), False),
    ],
)
def test_unequal_starts_of_short_trainings_are_told(
    own: ModelConfig, told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probing, "_miou", lambda *_: 50.0)
    monkeypatch.setattr(probing, "_recipe_of", lambda *_: Recipe())
    pair = [("own", own), ("other", ModelConfig("enet"))]
    rows = [Measured(Candidate(name, config), None) for name, config in pair]
    assert len(probing.probed(rows, Recipe(), 5, Path("runs"))) == 2
    assert ("only own starts from weights" in caplog.text) is told
    caplog.clear()
    probing.probed(rows[:1], Recipe(), 5, Path("runs"))
    assert not caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no --latency; expected a budget"),
        (["--latency", "8"], "--latency is '8'"),
        (["--latency", "8ms", "--device", "cuda"], "expected --runtime pytorch"),
        (
            ["--latency", "8ms", "--probe", "5", "--runtime", "pytorch"],
            "--probe trains by a recipe",
        ),
        (["--latency", "8ms", "--classes", "0", *PYTORCH], "--classes is 0"),
        (["--latency", "8ms", *PYTORCH], "there are no candidates"),
        (["a.yaml", "b.yaml", "--latency", "8ms"], "there are 2 recipes"),
        (["a.yaml", "--classes", "3", "--latency", "8ms"], "--classes is 3 beside a.yaml"),
        (["--latency", "8ms", "--repeats", "1"], "--repeats is 1"),
        (["--latency", "8ms", "--out", "x/y.yaml"], "no folder x. Create it"),
    ],
)
def test_what_does_not_fit_is_refused(
    words: list[str], message: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(*words) == 2
    assert message in capsys.readouterr().err


def test_an_existing_file_is_not_overwritten(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inside / "suggested.yaml").write_text("mine")
    assert _call("--latency", "8ms") == 2
    assert "--out suggested.yaml exists" in capsys.readouterr().err
    assert (inside / "suggested.yaml").read_text() == "mine"


def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r'pip install "segdistill\[openvino\]"'):
        runtimes.check_runtime("openvino", "cpu")


def test_a_network_in_onnxruntime_leaves_the_cores_to_the_next() -> None:
    """Threads that spin after a run nearly doubled the time of whatever came next."""
    one = built(Candidate("plain", ModelConfig("tests.run.plain.NoNorm")), 3, (32, 48))
    _, network = runtimes.ready(one, "onnxruntime", (32, 48))
    assert isinstance(network, runtimes.FileAlone)
    options = network.session.get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_fits_are_judged_by_the_median_and_the_90th_percentile_is_told() -> None:
    def row(label: str, median: float, p90: float) -> Measured:
        return Measured(Candidate(label, ModelConfig(label)), Latency(median, p90, 3))

    rows = [row("slow", 9, 9), row("uneven", 8, 9), row("fast", 1, 2)]
    assert [one.candidate.label for one in largest_first(rows, 8)] == ["uneven", "fast"]
    said = table_of(rows, 8)
    assert re.search(r"uneven .* yes, p90 does not", said)
    assert said.index("fast") < said.index("uneven") < said.index("slow")
    check_any_fits(rows, 1, (4, 4))


def test_images_of_other_channels_get_networks_for_them() -> None:
    found = listed(None, ["compact"], False, channels=4)
    assert [one.config for one in found] == [ModelConfig("compact", options={"in_channels": 4})]
