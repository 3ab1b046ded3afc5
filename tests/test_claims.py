"""Sentences of the documentation with a figure in them claim what was measured, and no more."""

import json
import math
import re
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from segdistill.distillation.catalogue import METHODS, method_terms
from segdistill.run.folder import RunFolder
from segdistill.run.identity import TRAINING_SEMANTICS, semantics_of
from segdistill.run.recipe import load_recipe
from segdistill.run.reporting.notation import p_text, signed
from segdistill.run.reporting.statistics import holm, paired, pooled

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SYNTHETIC = RESULTS / "synthetic" / "table" / "comparison.json"
DRIVES = RESULTS / "camvid-drives" / "table"
SMALL_TABLE = RESULTS / "camvid"


@cache
def _page(name: str) -> str:
    path = ROOT / name if name == "README.md" else ROOT / "docs" / f"{name}.md"
    return " ".join(path.read_text(encoding="utf-8").split())


def _number(text: str) -> float:
    return float(text.replace("−", "-").replace("±", "").replace("+", ""))


@cache
def _compared(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


TABLES = {
    "scenes": SYNTHETIC,
    "CamVid": DRIVES / "comparison.json",
    "parts": RESULTS / "synthetic-parts" / "table" / "comparison.json",
    "rivals": RESULTS / "camvid-rivals" / "table" / "comparison.json",
}


def _difference(table: str, label: str, reference: str) -> str:
    """The mean difference of two rows and half its interval, as tables show it; empty for a row and itself."""
    if label == reference:
        return ""
    content = _compared(TABLES[table])
    pairs = [*content["claims"], *content["exploratory"]]
    (found,) = [p for p in pairs if {p["label"], p["reference"]} == {label, reference}]
    (one,) = found["on"].values()
    mean = one["mean"] if found["label"] == label else -one["mean"]
    return f"{signed(mean)} ± {(one['high'] - one['low']) / 2:.1f}"


def _mean(table: str, label: str) -> str:
    return f"{_compared(TABLES[table])['methods'][label]['miou_mean']:.1f}"


def _corrected(table: str, reference: str) -> str:
    content = _compared(TABLES[table])["claims"]
    claims = {claim["reference"]: claim for claim in content if claim["label"] == "idd"}
    if reference not in claims:
        return ""
    return p_text(claims[reference]["p_holm"]).removeprefix("p = ").removeprefix("p ")


IN_WORDS = {
    "student alone": "control",
    "student alone, rare classes weighted up": "inverse",
    "student alone, classes balanced": "balanced",
    "KD": "kd",
    "CWD": "cwd",
    "feature regression": "hint",
    "IDD": "idd",
    "SKD": "skd",
    "IFVD": "ifvd",
    "BPKD": "bpkd",
    "IDD's placebo: the distances of other classes": "permuted",
    "feature regression with inter-class and pixel-to-class distances": "idd_plus",
    "teachers": "teacher",
}


def _readme_rows(command: str) -> dict[str, list[str]]:
    """The cells of each row of the table under a command."""
    text = (ROOT / "README.md").read_text()
    table = text[text.index(f"| `python benchmarks/table.py {command} ") :]
    lines = [line.strip("|").split("|") for line in table[: table.index("\n\n")].splitlines()[2:]]
    cells = [[cell.strip(" *") for cell in line] for line in lines]
    return {IN_WORDS[name]: rest for name, *rest in cells}


def test_the_table_on_photographs_in_the_readme_is_the_one_measured() -> None:
    rows = _readme_rows("camvid-drives")
    assert rows.keys() == {"teacher", *DRIVE_ROWS}
    assert rows.pop("teacher") == [_mean("CamVid", "teacher"), "", "", ""]
    for label, cells in rows.items():
        expected = [_mean("CamVid", label), _difference("CamVid", label, "control")]
        expected.append(_difference("CamVid", "idd", label))
        assert cells == [*expected, _corrected("CamVid", label)], label


def test_the_table_on_scenes_in_the_readme_is_the_one_measured() -> None:
    rows = _readme_rows("synthetic")
    assert rows.keys() == _compared(SYNTHETIC)["methods"].keys()
    assert rows.pop("teacher") == [_mean("scenes", "teacher"), ""]
    for label, cells in rows.items():
        assert cells == [_mean("scenes", label), _difference("scenes", label, "control")], label


@pytest.mark.parametrize(
    ("method", "table"),
    [
        *((name, "scenes") for name in ("kd", "cwd", "hint", "idd", "skd", "ifvd")),
        *((name, "CamVid") for name in ("kd", "cwd", "hint", "idd")),
    ],
)
def test_the_page_of_a_method_has_the_rows_that_were_measured(method: str, table: str) -> None:
    row = {"scenes": "synthetic scenes, two worlds", "CamVid": "CamVid, two unseen drives"}[table]
    alone, own = _mean(table, "control"), _mean(table, method)
    gain = _difference(table, method, "control")
    assert f"| {row} | {alone} | {own} | measured, tuned: {gain} |" in _page(method)


def test_the_page_of_bpkd_has_the_row_that_was_measured() -> None:
    cells = [_mean("scenes", label) for label in ("control", "cwd", "bpkd")]
    gain = _difference("scenes", "bpkd", "control")
    row = f"| synthetic scenes, two worlds | {' | '.join(cells)} | measured, tuned: {gain} |"
    over = [_difference("scenes", "bpkd", label) for label in ("idd", "balanced")]
    said = f"{over[0][1:]} above IDD, which was a registered claim, and {over[1][1:]} above plain training"
    assert row in _page("bpkd") and said in _page("bpkd")
    rows = {k: v["miou_mean"] for k, v in _compared(SYNTHETIC)["methods"].items() if k != "teacher"}
    assert max(rows, key=rows.__getitem__) == "bpkd"
    assert f"over balanced plain training it is {over[1]}" in " ".join(_synthetic_section().split())
    said = f"IFVD is {_difference('scenes', 'idd', 'ifvd')[1:]} below IDD"
    assert said in _page("ifvd")


def test_the_small_table_of_terms_is_the_one_measured() -> None:
    """Of one seed, under the training semantics of its time."""
    folders = {
        "student alone": "idd/supervised-s1",
        r"\+ SKD": "ablation/skd-s1",
        r"\+ SKD \+ CD": "ablation/skd+cd-s1",
        r"\+ SKD \+ CD \+ PIDM": "ablation/skd+cd+pidm-s1",
        r"\+ SKD \+ CD \+ IDDM": "ablation/skd+cd+iddm-s1",
        r"\+ SKD \+ CD \+ PIDM \+ IDDM": "idd/idd-s1",
    }
    runs = {name: RunFolder(SMALL_TABLE / folder) for name, folder in folders.items()}
    for name, run in runs.items():
        figure = 100 * (run.evaluation() or {})["miou"]
        assert re.search(rf"\| {name} \| [\d.]+ \| {figure:.1f} \|", _page("idd")), name
    assert {semantics_of(run) for run in runs.values()} == {1} and TRAINING_SEMANTICS > 1
    for page in ("idd", "skd"):
        said = (
            f"measured under training semantics 1; this version has [{TRAINING_SEMANTICS}](runs.md)"
        )
        assert said in _page(page)
    spread = _compared(SMALL_TABLE / "idd" / "comparison.json")["methods"]["control"]["miou_sd"]
    assert f"the control's spread over seeds is {spread:.1f}" in _page("idd")


def test_the_recipe_s_weights_of_kd_and_cwd_are_a_third_of_idd_s() -> None:
    recipe = load_recipe(ROOT / "recipes" / "camvid" / "idd.yaml")
    full = method_terms("idd")
    for name, term, weight in (("kd", "pixelwise", 0.3), ("cwd", "channelwise", 1.0)):
        given = recipe.variants[name].terms[term].weight
        assert given == weight
        assert given / full[term].weight == pytest.approx(1 / 3, abs=0.04)
    assert "a third of the dose that IDD contains (1 and 3)" in _page("weights")


@pytest.mark.parametrize(
    ("page", "method", "pattern", "terms"),
    [
        ("kd", "kd", r"`default` \| weight ([\d.]+) \(\[tuned\]", ["pixelwise"]),
        ("cwd", "cwd", r"`default` \| weight ([\d.]+), T = 4", ["channelwise"]),
        ("cwd", "cwd_features", r"`cwd_features` takes ([\d.]+) in", ["channelwise_features"]),
        ("cwd", "cwd_features", r"on: features, weight: ([\d.]+)\}", ["channelwise_features"]),
        (
            "skd",
            "skd",
            r"pixel-wise ([\d.]+) and pair-wise ([\d.]+), chosen",
            ["pixelwise", "pairwise"],
        ),
        (
            "ifvd",
            "ifvd",
            r"`default` \| pixel-wise ([\d.]+) \(tuned\), intra-class ([\d.]+) \(assumed\)",
            ["pixelwise", "intra_class"],
        ),
        (
            "at",
            "at",
            r"`default` \| sum over positions, mean over images \| ([\d.]+) \(assumed\)",
            ["attention"],
        ),
        (
            "weights",
            "idd",
            r"`idd`: \*\*([\d.]+), ([\d.]+), ([\d.]+), ([\d.]+), ([\d.]+)\*\*",
            ["pixelwise", "channelwise", "pairwise", "inter_class", "position"],
        ),
        (
            "weights",
            "idd",
            r"`idd`: ([\d.]+), ([\d.]+), ([\d.]+), ([\d.]+), ([\d.]+) \(the default\)",
            ["pixelwise", "channelwise", "pairwise", "inter_class", "position"],
        ),
    ],
)
def test_a_recommended_weight_is_the_preset_s_default(
    page: str, method: str, pattern: str, terms: list[str]
) -> None:
    found = re.search(pattern, _page(page))
    assert found is not None, pattern
    assert [float(v) for v in found.groups()] == [method_terms(method)[t].weight for t in terms]


@pytest.mark.parametrize(
    ("page", "method", "pattern", "terms"),
    [
        ("kd", "kd", r"`paper` \| SKD's released form and weight, ([\d.]+);", ["pixelwise"]),
        ("cwd", "cwd", r"`paper` \| the authors' code: weight ([\d.]+), T = 4", ["channelwise"]),
        (
            "skd",
            "skd",
            r"0.4 CE_aux \+ ([\d.]+) L_pixel \+ ([\d.]+) L_pair \+ ([\d.]+) L_student",
            ["pixelwise", "pairwise", "holistic"],
        ),
        (
            "ifvd",
            "ifvd",
            r"pixel-wise ([\d.]+), intra-class ([\d.]+) on `features_released`, holistic ([\d.]+)",
            ["pixelwise", "intra_class", "holistic"],
        ),
    ],
)
def test_a_released_weight_is_the_preset_s(
    page: str, method: str, pattern: str, terms: list[str]
) -> None:
    found = re.search(pattern, _page(page))
    assert found is not None, pattern
    specs = method_terms(method, "paper")
    assert [float(v.rstrip(".")) for v in found.groups()] == [specs[t].weight for t in terms]


def test_a_published_weight_of_cwd_is_translated_by_its_rule() -> None:
    text = _page("cwd")
    for published, channels, ours in ((3, 150, "0.38"), (50, 512, "1.9"), (50, 128, "7.4")):
        assert f"{published * 19 / channels:.2g}" == ours and f"| {ours} |" in text
    factor = 50 / (50 * 19 / 512)
    assert f"it is {factor:.0f} times too large at 512 channels" in text
    lowered = method_terms("cwd")["channelwise"].weight * math.sqrt(19 / 150)
    assert f"{lowered:.1f} at 150 classes" in _page("weights")


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("supervised", "cwd_features")]
)
def test_each_page_of_a_method_says_what_was_not_measured(name: str) -> None:
    assert re.search(r"Not measured: [^.]*(`paper`|any preset)", _page(name))


def _claims() -> dict[str, dict[str, Any]]:
    content = json.loads(SYNTHETIC.read_text())
    assert content["claims_registered_after"] == 0
    return {claim["reference"]: claim for claim in content["claims"] if claim["label"] == "idd"}


@pytest.mark.parametrize(
    ("before", "reference"),
    [
        (r"scenes IDD is ", "control"),
        (r"above the student alone and ", "kd"),
        (r"is below plain training with balanced classes \(", "balanced"),
        (r"not above CWD \(", "cwd"),
        (r"below its own placebo with permuted distances \(", "permuted"),
        (r"and below BPKD \(", "bpkd"),
    ],
)
def test_the_first_screen_says_what_the_synthetic_table_measured(
    before: str, reference: str
) -> None:
    found = re.search(before + r"([−±+]?[\d.]+) ± ([\d.]+)", _page("README.md"))
    assert found is not None
    claim = _claims()[reference]["on"]["val"]
    half = (claim["high"] - claim["low"]) / 2
    assert [round(claim["mean"], 1) + 0.0, round(half, 1)] == list(map(_number, found.groups()))


def _synthetic_section() -> str:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    return text[text.index("## The table on synthetic scenes") : text.index("### The parts of IDD")]


def test_the_synthetic_table_has_the_measured_rows() -> None:
    methods = json.loads(SYNTHETIC.read_text())["methods"]
    table = _synthetic_section()
    rows = dict(re.findall(r"^\| \**`?(\w+)`?[^|]* \| ([\d.]+) \|", table, re.M))
    measured = {name: f"{one['miou_mean']:.1f}" for name, one in methods.items()}
    assert {"teacher" if name == "teachers" else name: v for name, v in rows.items()} == measured
    claims = {name: claim["on"]["val"] for name, claim in _claims().items()}
    corrected = holm({name: claim["p"] for name, claim in claims.items()})
    for name, claim in claims.items():
        p = corrected[name]
        (line,) = re.findall(rf"^\| `?{name}`?[: |].*$", table, re.M)
        difference, said = line.split("|")[4:6]
        found = re.search(r"([−±+]?[\d.]+) ±", difference)
        assert found is not None and _number(found[1]) == round(claim["mean"], 1) + 0.0
        assert said.strip() == (f"{p:.3f}" if p >= 0.001 else "< 0.001")


def test_the_synthetic_table_has_the_measured_gains() -> None:
    content = json.loads(SYNTHETIC.read_text())
    pairs = [*content["claims"], *content["exploratory"]]
    gains = {p["label"]: p["on"]["val"] for p in pairs if p["reference"] == "control"}
    table = _synthetic_section()
    rows = re.findall(r"^\| \**`?(\w+)[^|]*\| [\d.]+ \| ([+−][\d.]+) ± ([\d.]+) \|", table, re.M)
    assert {name: (_number(mean), float(half)) for name, mean, half in rows} == {
        name: (round(one["mean"], 1), round((one["high"] - one["low"]) / 2, 1))
        for name, one in gains.items()
    }


def test_what_the_synthetic_table_shows_is_significant() -> None:
    significant = {
        name: claim["on"]["val"]["mean"] > 0
        for name, claim in _claims().items()
        if claim["p_holm"] < 0.05
    }
    assert {name for name, above in significant.items() if above} == {
        "control", "kd", "hint", "skd", "ifvd"
    }  # fmt: skip
    assert {name for name, above in significant.items() if not above} == {
        "bpkd", "balanced", "permuted"
    }  # fmt: skip
    words = " ".join(_synthetic_section().split())
    said = _difference("scenes", "permuted", "idd")[1:]
    assert (
        "above plain training, KD, feature regression, SKD and IFVD. It is below BPKD, below"
        in words
    )
    assert f"by {said}, below its own placebo" in words
    rows = {k: v for k, v in _compared(SYNTHETIC)["methods"].items() if k != "teacher"}
    assert {len(one["miou_by_seed"]) for one in rows.values()} == {20} and "ten paired" in words


def test_the_first_half_of_the_synthetic_seeds_is_as_it_was_reported() -> None:
    words = " ".join(_synthetic_section().split())
    for reference in ("balanced", "permuted"):
        ours, others = (
            _compared(SYNTHETIC)["methods"][label]["miou_by_seed"] for label in ("idd", reference)
        )
        worlds: dict[str, list[float]] = {}
        for name in ours:
            world, seed = name.split("/")
            if int(seed) < 5:
                worlds.setdefault(world, []).append(ours[name] - others[name])
        found = pooled(worlds)
        assert found.half_width is not None
        said = f"{signed(found.mean)} ± {found.half_width:.1f} ("
        assert re.search(rf"IDD − {reference} (was )?{re.escape(said)}", words)


def _parts_section() -> str:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    return text[text.index("### The parts of IDD") : text.index("## The table on CamVid")]


def test_the_table_of_the_parts_of_idd_has_what_was_measured() -> None:
    content = _compared(TABLES["parts"])
    assert content["claims_registered_after"] == 0 and not content["claims_waiting"]
    said = re.findall(
        r"^\| \**`?(\w+)`?[^|]*\| ([\d.]+) \| `?(\w*)`? ?\| ([^|]*)\| ([^|]*)\|$",
        _parts_section(),
        re.M,
    )
    rows = {"teacher" if name == "teachers" else name: cells for name, *cells in said}
    assert rows.keys() == content["methods"].keys()
    assert {name: cells[0] for name, cells in rows.items()} == {
        name: _mean("parts", name) for name in rows
    }
    compared = {(name, cells[1]): cells[2:] for name, cells in rows.items() if cells[1]}
    assert {frozenset(pair) for pair in compared} == {
        frozenset((claim["label"], claim["reference"])) for claim in content["claims"]
    }
    corrected = {
        frozenset((claim["label"], claim["reference"])): p_text(claim["p_holm"])
        for claim in content["claims"]
    }
    for pair, (difference, p) in compared.items():
        assert difference.strip() == _difference("parts", *pair)
        assert p.strip() == corrected[frozenset(pair)].removeprefix("p = ").removeprefix("p ")
    means = {name: one["miou_mean"] for name, one in content["methods"].items()}
    assert (
        min(means[n] for n in ("equal", "permuted", "shuffled", "averaged", "ramp")) > means["idd"]
    )


def test_what_is_said_of_the_parts_of_idd_was_measured() -> None:
    text = " ".join(_parts_section().split())
    for row in ("skd_cwd", "bpkd"):
        assert f"`{row}` {_difference('parts', row, 'control')}" in text
    runs = [RunFolder(one) for one in TABLES["parts"].parent.glob("world_*/idd-s*")]
    logged = [[r for r in run.metrics() if r["kind"] == "train"] for run in runs]
    shares = {
        (term, at): median(rows[at]["terms"][term]["share"] for rows in logged)
        for term in ("position", "inter_class", "channelwise")
        for at in (0, -1)
    }
    assert len(runs) == 6
    for sentence, term in (
        (r"position's gradient is ([\d.]+) at first and ([\d.]+) at", "position"),
        (r"inter-class distances is ([\d.]+) and ([\d.]+),", "inter_class"),
        (r"channel-wise term ([\d.]+) and ([\d.]+) \(medians of six", "channelwise"),
    ):
        found = re.search(sentence, text)
        assert found is not None
        assert list(found.groups()) == [f"{shares[term, at]:.2g}" for at in (0, -1)]
    for run in runs:
        found_out = json.loads((run.path / "preparation.json").read_text())["position"]
        assert found_out["headroom_x"] < 0 and [found_out["taught_x"], found_out["taught_y"]] == [
            0,
            1,
        ]
    steps = ["skd", "skd_cwd", "skd_cwd_position", "skd_cwd_inter_class", "idd"]
    means = [
        float(mean)
        for mean in re.findall(
            r"(?<= )(\d\d\.\d)(?=[,.] )", _page("idd").partition("Term by term")[2]
        )
    ]
    assert means[:5] == [float(_mean("parts", row)) for row in steps]
    assert f"Only CWD's gain ({_difference('parts', 'skd_cwd', 'skd')}, p = 0.007)" in _page("idd")
    assert f"it is {_difference('parts', 'bpkd', 'bpkd_random')[1:]} lower" in _page("bpkd")
    gain = _difference("parts", "skd_cwd", "skd")
    assert f"the channel-wise one alone is seen to gain there ({gain})" in _page("README.md")


PILOT = ROOT / "benchmarks" / "results" / "camvid-drives" / "pilot"


def test_the_pilot_on_camvid_is_as_recorded() -> None:
    table = (ROOT / "benchmarks" / "README.md").read_text()
    said = re.findall(r"^\|[^|]+\| (\d), (\d+), ([\d.]+) \|((?: [\d.]+ \|){5})$", table, re.M)
    rows = {
        (int(b), int(s), float(lr), *map(float, rest.split(" |")[:5])) for b, s, lr, rest in said
    }
    teacher = json.loads((PILOT / "idd-batch-4" / "teacher.json").read_text())
    measured = {(8, 600, 0.0006, *_pilot(teacher))}
    for folder in PILOT.iterdir():
        train = RunFolder(folder).recipe().train
        measured.add((train.batch, train.steps, train.lr, *_pilot(RunFolder(folder).evaluation())))
    assert rows == measured


def test_the_spread_over_seeds_on_camvid_is_as_recorded() -> None:
    table = (ROOT / "benchmarks" / "README.md").read_text()
    kinds = "pilot|photometric|averaged|slower|wider"
    lines = re.findall(rf"^\| `?(\w+)`? \| ({kinds}) \|((?: [\d.–]+ \|){{4}})$", table, re.M)
    said = {
        (row, training, seed, float(value))
        for row, training, cells in lines
        for seed, value in zip((0, 1, 2, 1000), cells.split("|")[:4], strict=True)
        if value.strip() != "–"
    }
    measured = set()
    for folder in (PILOT.parent / "seeds").iterdir():
        run = RunFolder(folder)
        train = run.recipe().train
        method = folder.name.split("-")[-2]
        kind = SEEDS[train.batch, train.lr, train.average, train.photometric]
        measured.add((method, kind, train.seed, round(100 * run.evaluation()["miou"], 1)))
    assert said == measured and len(said) == 27


SEEDS = {
    (4, 0.001, 0.0, 0.3): "pilot",
    (4, 0.001, 0.0, 0.6): "photometric",
    (4, 0.001, 0.98, 0.3): "averaged",
    (4, 0.0004, 0.98, 0.3): "slower",
    (8, 0.0006, 0.96, 0.3): "wider",
}


def _pilot(figures: Any) -> tuple[float, ...]:
    """mIoU, and IoU of pole, sign, fence and bicyclist."""
    shown = [figures["miou"], *(figures["iou"][place] for place in (2, 6, 7, 10))]
    return tuple(round(100 * value, 1) for value in shown)


def test_every_row_of_the_synthetic_table_was_tuned_by_as_many_trials() -> None:
    tuning = json.loads((SYNTHETIC.parents[1] / "tuning" / "tuning.json").read_text())["methods"]
    rows = json.loads(SYNTHETIC.read_text())["methods"].keys() - {"teacher"}
    assert {name: len(one["trials"]) for name, one in tuning.items()} == dict.fromkeys(rows, 5)


DRIVE_ROWS = ("control", "inverse", "kd", "cwd", "hint", "idd", "permuted", "idd_plus")


def _drives(fold: str = "") -> dict[str, Any]:
    return _compared(DRIVES / fold / "comparison.json")


def _drives_section() -> str:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    return text[text.index("## The table on CamVid") : text.index("### How its student")]


def test_the_table_on_camvid_has_the_measured_rows() -> None:
    section = _drives_section()
    for label in DRIVE_ROWS:
        of_folds = (_drives(f"without_{drive}") for drive in ("0006R0", "0016E5"))
        figures = [one["methods"][label]["miou_mean"] for one in (_drives(), *of_folds)]
        figures.append(_drives()["methods"][label]["thin_classes"]["val"]["miou_mean"])
        cells = [f"{value:.1f}" for value in figures]
        cells.append(_difference("CamVid", label, "control"))
        cells.append(_difference("CamVid", "idd", label))
        cells.append(_corrected("CamVid", label))
        said = re.search(rf"^\| \**`?{label}`?\**(?:[^|]*) \|(.*)\|$", section, re.M)
        assert said is not None, label
        assert [cell.strip(" *") for cell in said[1].split("|")] == cells


def test_every_row_of_the_table_on_camvid_was_tuned_and_shares_its_seeds() -> None:
    tuning = json.loads((DRIVES.parent / "tuning" / "tuning.json").read_text())["methods"]
    assert {name: len(one["trials"]) for name, one in tuning.items()} == dict.fromkeys(
        DRIVE_ROWS, 5
    )
    methods = _drives()["methods"]
    seeds = {name: set(methods[name]["miou_by_seed"]) for name in DRIVE_ROWS}
    assert all(found == seeds["idd"] for found in seeds.values())
    count = len(seeds["idd"]) // 2
    assert f"{NUMBERS[count]} paired seeds each" in _drives_section()
    assert _drives()["claims_registered_after"] == 0
    assert _drives()["claims_waiting"] == [] and "Holm over 8" in _drives_section()


def test_the_table_at_equal_time_is_the_one_measured() -> None:
    folder = DRIVES.parent / "table-time"
    content, costs = (_compared(folder / f"{name}.json") for name in ("comparison", "costs"))
    text = (ROOT / "benchmarks" / "README.md").read_text()
    section = text[text.index("### At equal time") : text.index("### How its student")]
    for label in ("control", "idd"):
        one = content["methods"][label]
        cells = [f"{costs['rows'][label]['step']:.2f}", str(content["equal_time"][label])]
        cells += [f"{one['miou_mean']:.1f}", f"{one['thin_classes']['val']['miou_mean']:.1f}"]
        row = r" \| ".join(map(re.escape, cells))
        assert re.search(rf"^\| \**`?{label}`?\**[^|]* \| {row} \|$", section, re.M), cells
        assert len(one["miou_by_seed"]) == 5
    (claim,) = content["claims"]
    (one,) = claim["on"].values()
    difference = f"{signed(one['mean'])} ± {(one['high'] - one['low']) / 2:.1f}"
    words = " ".join(section.split())
    assert f"IDD − control is {difference} (p = {one['p']:.3f}, not corrected)" in words
    first = f"IDD is {difference} against the student alone, which trains for 409 steps while IDD trains for 250"
    assert first in _page("README.md") and content["equal_time"] == {"control": 409, "idd": 250}
    steps = _drives("without_0006R0")["methods"]
    assert f"differ by {signed(steps['idd']['miou_mean'] - steps['control']['miou_mean'])}" in words


def test_the_table_of_bpkd_on_camvid_is_the_one_measured() -> None:
    content = _compared(TABLES["rivals"])
    text = (ROOT / "benchmarks" / "README.md").read_text()
    section = text[text.index("### BPKD and SKD") : text.index("### How its student")]
    for label, one in content["methods"].items():
        thin = one["thin_classes"]["val"]["miou_mean"]
        differences = ["", ""]
        if label != "teacher":
            differences = [
                _difference("rivals", label, "control"),
                _difference("rivals", "idd", label),
            ]
            assert len(one["miou_by_seed"]) == 5
        cells = [f"{one['miou_mean']:.1f}", f"{thin:.1f}", *differences]
        row = "|".join(f" {cell} " if cell else " " for cell in cells)
        assert re.search(rf"^\| \**`?{label}\b[^|]*\|{re.escape(row)}\|$", section, re.M), row
    assert {p_text(claim["p_holm"]) for claim in content["claims"]} == {"p = 1.000"}
    assert {claim["reference"] for claim in content["claims"]} == {"bpkd", "control"}
    said = f"on the same drive, IDD is {_difference('rivals', 'idd', 'bpkd')} at equal steps"
    assert said in _page("README.md")
    assert content["claims_waiting"] == [["idd", "skd"], ["idd", "ifvd"]]
    for label in ("control", "idd"):  # copies
        seeds = content["methods"][label]["miou_by_seed"]
        there = _drives("without_0006R0")["methods"][label]["miou_by_seed"]
        assert list(seeds.values()) == list(there.values())
    trials = _trials_on_camvid("bpkd")
    found = re.search(
        r"0001TP: ([\d.]+), ([\d.]+) with half the learning rate, ([\d.]+) with twice, ([\d.]+) and ([\d.]+) with",
        " ".join(section.split()),
    )
    assert found is not None and [*map(float, found.groups())] == trials


def test_what_is_said_of_skd_on_camvid_was_measured() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    words = " ".join(
        text[text.index("SKD has three of the five") : text.index("### How its")].split()
    )
    folder = RESULTS / "camvid-rivals" / "table" / "without_0006R0"
    runs = {
        label: [RunFolder(folder / f"{label}-s{seed}").evaluation() for seed in range(3)]
        for label in ("skd", "control", "idd")
    }
    figures = {label: [100 * (one or {})["miou"] for one in found] for label, found in runs.items()}
    for label, start in (("skd", "so far: "), ("control", "control has "), ("idd", "and IDD ")):
        first, second, third = (f"{value:.1f}" for value in figures[label])
        assert f"{start}{first}, {second} and {third}" in words
    for (label, reference), sentence in {
        ("skd", "control"): "SKD − control is {}",
        ("idd", "skd"): "IDD − SKD {} (p = 0.174, not corrected)",
    }.items():
        pairs = zip(figures[label], figures[reference], strict=True)
        found = paired([one - other for one, other in pairs])
        assert found.half_width is not None and abs(found.mean) < found.half_width
        assert sentence.format(f"{signed(found.mean)} ± {found.half_width:.1f}") in words
        assert label == "skd" or f"{found.p:.3f}" == "0.174"
    gain = paired([a - b for a, b in zip(figures["skd"], figures["control"], strict=True)])
    assert f"{signed(gain.mean)} ± {gain.half_width:.1f} against the student alone" in _page("skd")
    said = re.search(
        r"gave ([\d.]+), ([\d.]+) with half the learning rate, ([\d.]+) with twice, ([\d.]+) and ([\d.]+) with",
        words,
    )
    assert said is not None and [*map(float, said.groups())] == _trials_on_camvid("skd")


def _trials_on_camvid(method: str) -> list[float]:
    """mIoU of the five trials of a method on CamVid."""
    factors = ("lr1-weights1", "lr0.5-weights1", "lr2-weights1", "lr1-weights0.3", "lr1-weights3")
    folder = RESULTS / "camvid-rivals" / "tuning"
    runs = [RunFolder(folder / f"{method}-{factor}-s1000") for factor in factors]
    return [round(100 * (run.evaluation() or {})["miou"], 1) for run in runs]


@pytest.mark.parametrize(("reference", "name"), [("hint", "`hint`"), ("kd", "KD")])
def test_the_claims_of_the_combination_are_as_measured(reference: str, name: str) -> None:
    claims = {(c["label"], c["reference"]): c for c in _drives()["claims"]}
    p = p_text(claims["idd_plus", reference]["p_holm"])
    difference = _difference("CamVid", "idd_plus", reference)
    section = " ".join(_drives_section().split())
    assert f"{difference} against {name} ({p.replace('p < ', 'p < ')})" in section


def test_the_rows_above_the_student_alone_are_those_that_the_pages_name() -> None:
    pairs = [*_drives()["claims"], *_drives()["exploratory"]]
    gains = {p["label"]: p["on"]["train"] for p in pairs if p["reference"] == "control"}
    assert gains.keys() == {*DRIVE_ROWS} - {"control"}
    above = {label for label, one in gains.items() if one["low"] > 0}
    corrected = holm({label: one["p"] for label, one in gains.items()})
    assert above == {"idd", "permuted"} and min(corrected[label] for label in above) > 0.05
    section = " ".join(_drives_section().split())
    assert "corrected for the seven rows beside the control neither is significant" in section
    placebo, cwd, plus = (
        _difference("CamVid", label, "control") for label in ("permuted", "cwd", "idd_plus")
    )
    said = f"The permuted placebo ({placebo}) is above the student alone by an interval that leaves zero out"
    assert said in section and f"CWD ({cwd}), IDD, `idd_plus` and the placebo lie within" in section
    assert f"The placebo is {placebo} above the student alone" in _page("README.md")
    assert f"the placebo is highest there ({placebo}, not corrected" in _page("README.md")
    (claim,) = [
        p for p in _drives()["claims"] if (p["label"], p["reference"]) == ("idd", "control")
    ]
    plain, after = claim["on"]["train"]["p"], claim["p_holm"]
    for page in (section, _page("README.md")):
        assert f"(p = {plain:.3f}), but not after the correction" in page
        assert f"(p = {after:.3f})" in page
    means = {label: one["miou_mean"] for label, one in _drives()["methods"].items()}
    rows = sorted(means.keys() - {"teacher"}, key=means.__getitem__)
    assert rows[-1] == "permuted" and {*rows[-4:]} == {"permuted", "cwd", "idd", "idd_plus"}
    assert means[rows[-1]] - means[rows[-4]] < 0.3
    assert f"±0.0 ± {plus[-3:]} against IDD" in section
    assert _difference("CamVid", "idd_plus", "idd") == f"±0.0 ± {plus[-3:]}"


NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


@pytest.mark.parametrize(
    ("before", "reference"),
    [
        (r"that nobody trained on, IDD is ", "control"),
        (r" against the student alone, ", "kd"),
        (r" against KD, ", "cwd"),
        (r" against CWD, ", "hint"),
        (r" against feature regression, and ", "permuted"),
    ],
)
def test_the_first_screen_says_what_the_table_on_camvid_measured(
    before: str, reference: str
) -> None:
    found = re.search(before + r"([−±+]?[\d.]+) ± ([\d.]+)", _page("README.md"))
    assert found is not None
    assert f"{found[1]} ± {found[2]}" == _difference("CamVid", "idd", reference)


def test_the_times_to_load_a_sample_are_those_measured() -> None:
    cases = json.loads((ROOT / "benchmarks" / "results" / "data.json").read_text())["cases"]
    page = (ROOT / "benchmarks" / "README.md").read_text()
    names = {"torchvision": "Pillow and torchvision v2", "opencv": "OpenCV"}
    for name, one in cases.items():
        shown = names.get(name) or re.sub(r"(cache: \w+)", r"`\1`", name)
        figures = f"{one['milliseconds']:.1f} | {one['torchvision_by_this']:.2f}"
        assert f"| {shown} | {figures} |" in page
    for name in ("segdistill, cache: disk", "segdistill", "torchvision", "opencv"):
        assert f"{cases[name]['milliseconds']:.1f} ms" in _page("data")


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (ROOT / "benchmarks" / "results" / f"{name}.json").read_text()
    )
    return found


def test_the_ratios_of_speed_are_those_measured() -> None:
    page = " ".join((ROOT / "benchmarks" / "README.md").read_text().split())
    shares = [_result("loop")["rate_of_bare_loop"]]
    shares += [row["rate_of_forward_alone"] for row in _result("evaluation")["rows"]]
    rates = re.findall(r"\| (0\.\d\d) of (?:its|their) rate \|", page)
    assert rates == [f"{share:.2f}" for share in shares]
    steps = {k: one["median_of_paired_ratios"] for k, one in _result("step")["pairs"].items()}
    assert re.findall(r"\| (\d\.\d\d) times as long \|", page) == [
        f"{steps[pair]:.2f}" for pair in ("cityscapes", "camvid")
    ]
    assert f"a full IDD step takes {steps['camvid']:.2f} times as long" in _page("README.md")
    assert f"{steps['cityscapes']:.2f} times, which is noise" in _page("README.md")
    starts = _result("start")["starts"]
    assert f"takes {starts['first']['start_seconds']:.1f} seconds" in page
    assert f"and {starts['remembered']['start_seconds']:.1f} where" in page


def test_the_costs_of_losses_are_those_measured() -> None:
    costs = {
        (row["loss"], row["setting"].partition(",")[0]): row["of_cross_entropy"]
        for row in _result("losses")["rows"]
        if row["version"] == "default"
    }
    hint, pixelwise = (
        [f"{costs[loss, classes]:.2f}" for classes in ("19 classes", "150 classes")]
        for loss in ("hint", "pixelwise")
    )
    page = _page("hint")
    assert f"take {hint[0]} times as long" in page and f"{hint[1]} times with 150" in page
    assert f"pixel-wise distillation takes {' and '.join(pixelwise)} times" in page
    cost = costs["pixel_to_class", "19 classes"]
    assert f"alone takes {cost:.1f} times as long" in " ".join(_drives_section().split())


def _mixed(protocol: str, row: str) -> list[float]:
    folder = ROOT / "benchmarks" / "results" / protocol / "table" / "without_0006R0"
    files = [folder / f"{row}-s{seed}" / "evaluation.json" for seed in range(3)]
    return [100 * json.loads(file.read_text())["miou"] for file in files]


def test_the_table_on_a_tenth_of_the_labels_is_as_measured() -> None:
    page = " ".join((ROOT / "benchmarks" / "README.md").read_text().split())
    rows = {
        "`control`: the student alone | a tenth | not used": _mixed("camvid-mixed", "control"),
        "`kd`: distilled | a tenth, half of each batch | the rest, half of each batch": _mixed(
            "camvid-mixed", "kd"
        ),
        "`control` of `camvid-mixed-all` | all |": _mixed("camvid-mixed-all", "control"),
    }
    for title, figures in rows.items():
        cells = [*figures, sum(figures) / len(figures)]
        assert f"| {title} | {' | '.join(f'{figure:.1f}' for figure in cells)} |" in page
    few, mixed, every = rows.values()
    gain, gap = (paired([a - b for a, b in zip(one, few, strict=True)]) for one in (mixed, every))
    for change in (gain, gap):
        assert f"{change.mean:+.1f} ± {change.half_width:.1f}" in page
        assert f"{change.mean:+.1f} ± {change.half_width:.1f}" in _page("unlabelled")
        assert change.half_width is not None and change.half_width > abs(change.mean)
    assert f"make up {100 * gain.mean / gap.mean:.0f} %" in page
    least = min(a - b for a, b in zip(mixed, few, strict=True))
    assert f"with seed 0 KD is {-least:.1f} below" in page


SEARCH = RESULTS / "camvid-search" / "table"
SEARCHED = {
    "all parts": "all_parts",
    "without `hint`": "without_hint",
    "without `inter_class`": "without_inter_class",
    "without `pixel_to_class`": "without_pixel_to_class",
    "without KD": "without_pixelwise",
    "without CWD": "without_channelwise",
    "the student alone": "supervised",
}


def test_the_search_for_a_combination_is_as_recorded() -> None:
    """Which parts stay follows from the recorded costs by the rule that the page states."""
    text = (ROOT / "benchmarks" / "README.md").read_text()
    section = text[text.index("## What a combination needs") :]
    scores = {
        name: {
            int(path.name.rsplit("-s", 1)[1]): 100 * (RunFolder(path).evaluation() or {})["miou"]
            for path in SEARCH.glob(f"{folder}-s*")
        }
        for name, folder in SEARCHED.items()
    }
    whole, stay = scores["all parts"], set()
    for name, of_seeds in scores.items():
        cells = [f"{of_seeds[s]:.1f}" if s in of_seeds else "–" for s in range(3)]
        costs = [whole[seed] - one for seed, one in sorted(of_seeds.items())]
        mean = sum(costs) / len(costs)
        shown = f"{mean:.1f} ({', '.join(f'{cost:.1f}' for cost in costs)})".replace("-", "−")
        last = "" if name == "all parts" else f" {shown}"
        assert f"| {name} | {' | '.join(cells)} |{last} |" in section, name
        if mean >= 0.3:
            stay.add(name.removeprefix("without "))
    stay -= {"the student alone"}
    assert stay == {"`hint`", "`inter_class`", "`pixel_to_class`"}
    assert f"So {', '.join(sorted(stay)[:2])} and {sorted(stay)[2]} stay" in " ".join(
        section.split()
    )
    costs = [whole[s] - one for s, one in sorted(scores["without `pixel_to_class`"].items())]
    shown = ", ".join(f"{cost:.1f}" for cost in costs)
    assert f"cost {sum(costs) / 3:.1f} mIoU in the mean of three seeds ({shown})" in _page("idd")
