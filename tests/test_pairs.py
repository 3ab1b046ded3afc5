"""Teachers and students from all sources in all pairs: distilled, loaded, exported."""

import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import segdistill
from segdistill.models import build_model, build_trained, network
from segdistill.run.folder import RunFolder
from segdistill.run.networks import load_run_model

CLASSES = 19
TEACHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("smp:Unet", {"encoder_name": "resnet18"}),
    "deeplabv3": ("torchvision:deeplabv3_mobilenet_v3_large", {"aux_loss": True}),
    "segformer": (
        "hf:segformer",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 1, 1],
            "decoder_hidden_size": 16,
        },
    ),
    "pspnet": ("pspnet_r18", {}),
    "espnetv2": ("espnetv2", {"width": 0.5}),
}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fpn": ("smp:FPN", {"encoder_name": "mobilenet_v2"}),
    "lraspp": ("torchvision:lraspp_mobilenet_v3_large", {}),
    "espnet": ("espnet", {}),
    "segformer_b0": ("hf:segformer", {}),
    "plain": ("tests.run.plain.NoNorm", {}),
}
QUICK = list(zip(TEACHERS, STUDENTS, strict=True))
PAIRS = [
    pytest.param(
        teacher,
        student,
        method,
        marks=[] if (teacher, student) in QUICK and method == "idd" else pytest.mark.slow,
    )
    for teacher in TEACHERS
    for student in STUDENTS
    for method in ("idd", "cwd")
]


class Blocks:
    """Pairs of 64×96: a colour for each class, in a seeded pattern of blocks."""

    classes = tuple(f"class {i}" for i in range(CLASSES))

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        colours = torch.rand(CLASSES, 3, generator=torch.Generator().manual_seed(99))
        label = torch.randint(CLASSES, (4, 6), generator=generator)
        label = label.repeat_interleave(16, 0).repeat_interleave(16, 1)
        image = colours[label].permute(2, 0, 1) + 0.1 * torch.rand(3, 64, 96, generator=generator)
        return image.clamp(0, 1), label


@cache
def _teacher(name: str) -> nn.Module:
    """Networks with random weights; ESPNetv2 with its authors' if available."""
    torch.manual_seed(1)
    model, options = TEACHERS[name]
    data = os.environ.get("SEGDISTILL_DATA")
    if name == "espnetv2" and data:
        weights = Path(data) / "weights" / "espnetv2_s0.5_city_512x256.safetensors"
        return build_trained(model, CLASSES, weights)[0]
    return build_model(model, CLASSES, **options)


def _distil(
    teacher: nn.Module | None, student: str, out: Path, method: str
) -> tuple[RunFolder, nn.Module]:
    torch.manual_seed(2)
    name, options = STUDENTS[student]
    trained = build_model(name, CLASSES, **options)
    run = segdistill.distill(
        teacher,
        trained,
        Blocks(8),
        Blocks(2),
        method=method,
        steps=2,
        batch=2,
        crop=(64, 64),
        out=out,
        log_every=1,
        min_miou=None if teacher is None else 0,
        device="cpu",
        progress=False,
    )
    return run, trained.eval()


@pytest.mark.parametrize(("teacher", "student", "method"), PAIRS)
def test_any_teacher_distils_into_any_student(
    teacher: str, student: str, method: str, tmp_path: Path
) -> None:
    run, trained = _distil(_teacher(teacher), student, tmp_path / "run", method)
    rows = [row for row in run.metrics() if row["kind"] == "train"]
    assert len(rows) == 2
    assert all(math.isfinite(t["value"]) for row in rows for t in row["terms"].values())
    wanted = {"inter_class", "position"} if method == "idd" else {"channelwise"}
    assert wanted <= set(rows[0]["terms"])
    # The run suffices to rebuild the network, and its file is in the library's format.
    read = load_run_model(run)
    image = Blocks(1)[0][0][None]
    with torch.no_grad():
        torch.testing.assert_close(read(image), trained(image), rtol=0, atol=0)
    name, options = STUDENTS[student]
    fresh = network(build_model(name, CLASSES, **options))
    fresh.load_state_dict(load_file(run.weights_path()), strict=True)


@pytest.mark.parametrize(
    "student",
    [pytest.param(name, marks=[] if name == "plain" else pytest.mark.slow) for name in STUDENTS],
)
def test_each_student_is_exported_from_only_its_run(student: str, tmp_path: Path) -> None:
    run, _ = _distil(None, student, tmp_path / "run", "supervised")
    folder = segdistill.export(run, val_set=Blocks(2))
    parity = json.loads((folder / "parity.json").read_text())
    assert len(parity["sizes"]) == 3
    assert all(row["label_agreement"] >= 0.999 for row in parity["sizes"])
