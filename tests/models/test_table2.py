"""The networks that the paper compares itself with, and newer ones: counts beside the published ones, and training."""

import pytest
import torch
from torch import Tensor, nn

from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.models import build_model
from segdistill.run.evaluation.profile import profile

SMALL = {"layers": [1, 1, 1, 1], "width": 8}
# name -> options of a small one, learning rate. FCN-8s and RefineNet's decoder have no batch norm.
TINY = {
    "icnet": ({**SMALL, "layers": [1, 2, 1, 1]}, 0.05),
    "fcn8s_vgg16": ({"width": 4, "dropout": 0.0}, 0.02),
    "refinenet:resnet10t": ({"head_width": 16, "dropout": 0.0}, 0.02),
    "ocnet_r101": (SMALL, 0.05),
    "ocrnet_r101": (SMALL, 0.05),
    "ann_r101": (SMALL, 0.05),
    "ddrnet23_slim": ({"width": 8, "head_width": 16}, 0.05),
    "stdc1": ({"width": 16, "layers": [1, 1, 1]}, 0.05),
    "pidnet_s": ({"width": 8}, 0.05),
}
QUICK = ("icnet", "fcn8s_vgg16", "ocrnet_r101", "ddrnet23_slim", "stdc1", "pidnet_s")


@pytest.mark.parametrize(
    ("name", "options", "parameters", "deployed", "gmacs"),
    [
        # Published in the paper's Table 2: 26.50 M, 28.30 G.
        ("icnet", {}, 25_529_561, 25_524_659, 22.242),
        ("icnet", {"width": 32}, 6_704_889, 6_699_987, 7.386),
        # 134.5 M, 333.9 G.
        ("fcn8s_vgg16", {}, 134_456_985, 134_456_985, 333.941),
        # 118.1 M, 525.7 G.
        ("refinenet_r101", {}, 118_047_827, 118_047_827, 525.675),
        # 62.58 M, 548.5 G.
        ("ocnet_r101", {}, 62_541_030, 57_811_155, 542.796),
        # Dots in the paper's Figure 4, without figures. The head over the regions is deployed.
        ("ocrnet_r101", {}, 57_986_022, 57_986_022, 502.901),
        ("ann_r101", {}, 67_690_470, 62_960_595, 586.984),
        # Newer ones: 5.7 M, 36.3 G at 1024×2048 in the tables of others.
        ("ddrnet23_slim", {}, 5_734_342, 5_695_987, 9.385),
        ("ddrnet23_slim", {"width": 64, "head_width": 128}, 20_299_366, 20_148_947, 36.999),
        ("stdc1", {}, 8_425_248, 8_275_104, 17.631),
        ("stdc1", {"layers": [4, 5, 3]}, 12_455_712, 12_305_568, 24.224),
        # 7.6 M, 47.4 G at 1024×2048.
        ("pidnet_s", {}, 7_702_278, 7_625_715, 12.425),
    ],
)
def test_counts(name, options, parameters, deployed, gmacs):
    with torch.device("meta"):
        model = build_model(name, 19, **options)
    counted = profile(model, (512, 1024), count="paper", latency=False)
    assert (counted.parameters, counted.parameters_deployed) == (parameters, deployed)
    assert round(counted.multiply_adds / 1e9, 3) == gmacs


def _halves() -> tuple[Tensor, Tensor]:
    """Images whose right half is red, which is class 1."""
    images = torch.rand(4, 3, 65, 65) * 0.2
    labels = torch.zeros(4, 65, 65, dtype=torch.long)
    images[:, 0, :, 32:] += 0.8
    labels[:, :, 32:] = 1
    return images, labels


@pytest.mark.parametrize(
    "name",
    # The quick run takes one with batch norm, one without, and one whose loss reads regions.
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TINY],
)
def test_learns_from_scratch_in_a_few_steps(name):
    options, rate = TINY[name]
    torch.manual_seed(0)
    model = build_model(name, 2, **options).train()
    distiller = Distiller(model, build_method("supervised", 2))
    images, labels = _halves()
    distiller.dry_pass(images)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    losses = []
    for _ in range(15):
        values = distiller(images, labels)
        optimiser.zero_grad()
        distiller.method.total(values).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        losses.append(float(values["cross_entropy"].detach()))
    assert losses[0] == pytest.approx(0.69, abs=0.2)
    assert losses[-1] < 0.35
    heads = {term for term in values if term.startswith("cross_entropy_aux")}
    assert len(heads) == sum(tap.startswith("aux") for tap in model.taps)


@pytest.mark.parametrize("name", TINY)
def test_is_distilled_as_any_other(name):
    torch.manual_seed(0)
    student, teacher = build_model(name, 2, **TINY[name][0]), build_model("compact", 2, width=8)
    distiller = Distiller(student.train(), build_method("skd", 2), teacher)
    images, labels = _halves()
    distiller.dry_pass(images)
    total = distiller.method.total(distiller(images, labels))
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in student.parameters())


@pytest.mark.parametrize("name", TINY)
def test_runs_under_bfloat16_autocast(name):
    torch.manual_seed(0)
    model = build_model(name, 3, **TINY[name][0]).eval()
    x = torch.rand(2, 3, 65, 65)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x)
    with torch.no_grad():
        full = model(x)
    # bfloat16 keeps 8 bits over tens of layers: alike, not equal.
    similarity = nn.functional.cosine_similarity(half.float().flatten(), full.flatten(), dim=0)
    assert float(similarity) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_exports_with_free_height_and_width(name):
    torch.manual_seed(0)
    model = build_model(name, 3, **TINY[name][0]).eval()
    free = {"images": {axis: torch.export.Dim.DYNAMIC for axis in (2, 3)}}
    exported = torch.export.export(model, (torch.rand(1, 3, 96, 128),), dynamic_shapes=free)
    with torch.no_grad():
        for size in ((96, 128), (97, 131), (130, 75)):
            x = torch.rand(1, 3, *size)
            torch.testing.assert_close(exported.module()(x), model(x))
