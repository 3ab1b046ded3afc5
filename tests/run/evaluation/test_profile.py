"""Multiply-adds by hand, latency with fake clocks."""

import json

import pytest
import torch
from torch import Tensor, nn

from segdistill.models import build_model
from segdistill.run.evaluation import profile as profile_module
from segdistill.run.evaluation.profile import (
    Latency,
    Profile,
    compare,
    measure_latency,
    multiply_adds,
    profile,
    table,
)


class WithHead(nn.Module):
    """A small network with all layers that the two rules count differently."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.aux = nn.Sequential(nn.Conv2d(4, 2, 1))
        self.taps = {"logits": "", "features": "up:input", "aux": "aux"}
        self.num_classes, self.align_corners, self.multiple_of = 2, False, 4
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape))
        features = self.grouped(self.norm(self.conv(images)))
        if self.training or self.aux._forward_hooks:
            self.aux(features)
        return self.up(features)


# At 8x8 the convolutions work on 4x4. conv: 4*16 outputs of 27; grouped: 4*16 of 18;
# up: every one of the 4*16 inputs feeds 2*4 outputs; aux: 2*16 outputs of 4.
CONV, GROUPED, UP, AUX = 64 * 27, 64 * 18, 64 * 8, 32 * 4


def test_multiply_adds_are_those_of_the_deployed_network():
    assert multiply_adds(WithHead(), (8, 8)) == CONV + GROUPED + UP


def test_papers_count_convolutions_half_the_biases_and_the_auxiliary_head():
    # conv has no bias; transposed convolutions are left out.
    assert multiply_adds(WithHead(), (8, 8), "paper") == CONV + GROUPED + 32 + AUX + 16


def test_the_image_is_padded_to_the_networks_multiple():
    assert multiply_adds(WithHead(), (5, 7)) == multiply_adds(WithHead(), (8, 8))


@pytest.mark.parametrize("count", ["flops", "paper"])
def test_counting_does_not_change_the_network(count):
    model = WithHead().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    multiply_adds(model, (512, 1024), count)
    assert model.sizes == [], "it runs on a copy without memory"
    assert model.training and not model.norm.training
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) and tensor.device.type == "cpu"


@pytest.mark.parametrize("count", ["flops", "paper"])
def test_a_network_that_cannot_run_on_meta_is_counted(count):
    class LooksAtValues(WithHead):
        def forward(self, images: Tensor) -> Tensor:
            assert float(images.sum()) == 0.0
            return super().forward(images)

    model = LooksAtValues()
    assert multiply_adds(model, (8, 8), count) == multiply_adds(WithHead(), (8, 8), count)
    assert not any(module._forward_hooks for module in model.modules())


def test_frozen_parameters_count_and_the_auxiliary_head_is_not_deployed():
    model = WithHead().requires_grad_(False)
    found = profile(model, (8, 8), latency=False)
    # conv 108, norm 8, grouped 72 + 4, up 32 + 2, aux 8 + 2
    assert found.parameters == 236
    assert found.parameters_deployed == 226
    assert (found.latency_ms_median, found.latency_ms_p90, found.repeats) == (None, None, 0)
    assert json.loads(json.dumps(found.to_json()))["size"] == [8, 8]


def test_a_plain_module_has_a_profile():
    found = profile(nn.Conv2d(3, 2, 1), (4, 4), latency=False)
    assert found.parameters == found.parameters_deployed == 8
    assert found.multiply_adds == 4 * 4 * 3 * 2


@pytest.mark.usefixtures("unchecked")
def test_networks_take_turns_and_keep_their_modes(monkeypatch):
    order: list[str] = []

    class Named(nn.Module):
        def __init__(self, name: str, cost: float) -> None:
            super().__init__()
            self.name, self.cost = name, cost

        def forward(self, images: Tensor) -> Tensor:
            assert not self.training and not torch.is_grad_enabled()
            order.append(self.name)
            clock[0] += self.cost * len(order)  # the machine slows down
            return images

    clock = [0.0]
    monkeypatch.setattr(profile_module.time, "perf_counter", lambda: clock[0])
    models = {"a": Named("a", 1.0), "b": Named("b", 2.0)}
    found = measure_latency(models, (8, 8), repeats=4, warmup=1, seconds=1e9)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a", "a", "b"]
    # Timed are passes 3 to 10: a in places 4, 5, 8, 9; b, twice as slow, in 3, 6, 7, 10.
    assert found["a"] == Latency(median=6500.0, p90=pytest.approx(8700.0), repeats=4)
    assert found["b"].median == 13000.0
    assert models["a"].training
    clock[0] = 0.0
    assert measure_latency(models, (8, 8), repeats=50, warmup=0, seconds=5.0)["a"].repeats == 3


def test_networks_of_one_structure_have_one_latency():
    def made(width: int = 4, stride: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, width, 3, stride), nn.Conv2d(width, 2, 1))

    models = {"a": made(), "b": made(), "wide": made(5), "strided": made(stride=2)}
    found = profile_module.compare(models, (16, 24), repeats=3)
    assert found["a"] == found["b"]
    assert len({one.latency_ms_median for one in found.values()}) == 3
    encoders = {name: build_model("deeplabv3plus:mobilenetv2_100", 3) for name in ("a", "b")}
    found = profile_module.compare(encoders, (32, 32), repeats=1)
    assert found["a"] == found["b"]
    rounds = {"one": Rounds(1), "eight": Rounds(8)}
    found = profile_module.compare(rounds, (16, 24), repeats=3)
    assert found["one"].latency_ms_median != found["eight"].latency_ms_median
    files = {name: Plain() for name in ("one", "other")}
    found = profile_module.compare(files, (16, 24), repeats=3)
    assert found["one"].latency_ms_median != found["other"].latency_ms_median


class Rounds(nn.Module):
    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.convolution, self.rounds = nn.Conv2d(3, 2, 1), rounds

    def forward(self, images: Tensor) -> Tensor:
        for _ in range(self.rounds):
            images = nn.functional.avg_pool2d(images, 3, 1, 1)
        return self.convolution(images)


class Plain(nn.Module):
    """As a file has no weights of its own."""

    def forward(self, images: Tensor) -> Tensor:
        return images.exp().sum(1, keepdim=True)


def test_latency_is_measured_in_milliseconds_on_real_networks():
    small, large = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 256, 5, padding=2)
    found = compare({"teacher": large, "student": small}, (64, 64), repeats=3)
    median = {name: entry.latency_ms_median for name, entry in found.items()}
    assert 0 < median["student"] < median["teacher"] < 10_000
    assert found["student"].latency_ms_p90 >= median["student"]
    assert (found["student"].repeats, found["student"].device) == (3, "cpu")
    assert found["student"].threads == torch.get_num_threads()


def test_the_table_gives_times_relative_to_the_first_network():
    teacher = Profile(
        70_437_350, 65_707_475, 574.932e9, "paper", (512, 1024), 80.0, 90.0, 5, 1, "cpu"
    )
    student = Profile(3_271_686, 3_196_531, 31.525e9, "paper", (512, 1024), 10.0, 12.5, 5, 1, "cpu")
    assert table({"teacher": teacher, "student": student}).splitlines() == [
        "network     params   deployed  mult-adds  median ms     p90 ms  relative time",
        "teacher    70.437M    65.707M   574.932G       80.0       90.0           1.00",
        "student     3.272M     3.197M    31.525G       10.0       12.5           0.12",
    ]
    untimed = Profile(1, 1, 1.0, "flops", (8, 8), None, None, 0, 1, "cpu")
    assert table({"x": untimed}).splitlines()[1].split()[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: multiply_adds(nn.Conv2d(3, 1, 1), (8, 8), "macs"),
            "count is 'macs'; expected 'flops' or 'paper'",
        ),
        (
            lambda: multiply_adds(nn.Conv2d(3, 1, 1), (0, 8)),
            "expected a height and a width in pixels",
        ),
        (lambda: measure_latency({}, (8, 8)), "there are 0 networks"),
        (
            lambda: measure_latency({"a": nn.ReLU()}, (8, 8), repeats=0),
            "0 repeats; expected at least one of each",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_values_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Published (IDD's and SKD's tables; DeepLabV3: CIRKD's code): 13.07 M / 125.8 G, 3.271 M / 31.53 G,
# 0.3635 M / 4.422 G, 2.067 M / 25.60 G. ENet's multiply-adds are published as 3.612 G, its parameters as
# 0.358 M.
@pytest.mark.parametrize(
    ("name", "parameters", "giga"),
    [
        ("pspnet_r18", 13_068_262, 125.832),
        ("pspnet_r18_half", 3_271_686, 31.525),
        ("pspnet_r50", 51_445_222, 416.123),
        ("espnet", 363_462, 4.422),
        ("espnet_c", 349_193, 3.468),
        ("enet", 351_660, 3.612),
        ("erfnet", 2_066_642, 25.595),
        ("pspnet_mobilenet_v2", 2_152_470, 17.624),
        ("deeplabv3_r18", 22_762_918, 202.717),
        ("deeplabv3_r50", 60_092_134, 503.529),
        ("deeplabv3_r101", 79_084_262, 658.685),
    ],
)
def test_published_counts_are_reproduced(name, parameters, giga):
    models = pytest.importorskip("segdistill.models")
    with torch.device("meta"):
        model = models.build_model(name, 19)
    found = profile(model, (512, 1024), count="paper", latency=False)
    assert found.parameters == parameters
    assert found.multiply_adds / 1e9 == pytest.approx(giga, abs=6e-4)
    assert found.parameters_deployed < parameters or "aux" not in model.taps
