"""What every network must do, over a table of them."""

import json

import pytest
import torch
from torch import nn

from segdistill.models import MODELS, build_model, load_weights

# name, options, size of the logits for 65×97
TABLE = [
    ("pspnet_r18_half", {}, (9, 13)),
    ("pspnet_r18", {"aux": False}, (9, 13)),
    ("pspnet:mobilenetv3_small_050", {"output_stride": 8}, (9, 13)),
    ("pspnet:mobilenetv2_050", {"output_stride": 32, "head_width": 24, "aux": False}, (3, 4)),
    ("pspnet:resnet18", {"output_stride": 16}, (5, 7)),
    ("pspnet_mobilenet_v2", {}, (9, 13)),
    ("deeplabv3_r18", {}, (9, 13)),
    ("pspnet_r18", {"form": "mmseg"}, (9, 13)),
    ("deeplabv3_r18", {"form": "mmseg"}, (9, 13)),
    ("espnet", {"depth": [1, 2]}, (65, 97)),
    ("espnet", {"extra_outputs": 1, "image_skip": False}, (65, 97)),
    ("espnet_c", {"depth": [1, 2], "extra_outputs": 1}, (9, 13)),
    ("espnetv2", {"width": 0.5, "extra_outputs": 1}, (33, 49)),
    ("enet", {}, (65, 97)),
    ("erfnet", {}, (65, 97)),
    ("compact", {"width": 8}, (17, 25)),
    ("deeplabv3plus:mobilenetv3_small_050", {"head_width": 32, "skip_width": 8}, (17, 25)),
    ("deeplabv3plus:tf_efficientnet_lite0", {"output_stride": 8, "head_width": 32}, (17, 25)),
    (
        "deeplabv3plus:resnet18d",
        {"head_width": 32, "rates": [1, 2, 3], "separable_convs": False, "aux": True},
        (17, 25),
    ),
    ("icnet", {"layers": [1, 2, 1, 1], "width": 8}, (18, 26)),
    ("ddrnet23_slim", {"width": 8, "head_width": 16}, (9, 13)),
    ("stdc1", {"width": 16, "layers": [1, 2, 1]}, (9, 13)),
    ("pidnet_s", {"width": 8}, (9, 13)),
    ("fcn8s_vgg16", {"width": 4}, (65, 97)),
    ("refinenet:resnet10t", {"head_width": 16}, (17, 25)),
    ("ocnet_r101", {"layers": [1, 1, 1, 1], "width": 8}, (9, 13)),
    ("ocrnet_r101", {"layers": [1, 1, 1, 1], "width": 8}, (9, 13)),
    ("ann_r101", {"layers": [1, 1, 1, 1], "width": 8}, (9, 13)),
    (
        "torchvision.models.segmentation.lraspp_mobilenet_v3_large",
        {"weights": None, "weights_backbone": None, "input": "imagenet"},
        (65, 97),
    ),
]
IDS = [name for name, _, _ in TABLE]
# ResNets of the published widths are slow in this precision, so the quick run takes one of them.
BFLOAT16 = [
    pytest.param(
        row,
        id=f"{row[0]}-{number}",
        marks=pytest.mark.slow if row[0].endswith("_r18") and number else (),
    )
    for number, row in enumerate(TABLE)
]
# Features at another stride than the logits: torchvision's network resizes, the others upsample.
ANOTHER_STRIDE = ("torchvision", "fcn8s_vgg16", "enet", "erfnet", "espnet")
# No batch norm sees a single position, so that one image trains.
ONE_IMAGE_TRAINS = (
    "espnet",
    "enet",
    "erfnet",
    "icnet",
    "fcn8s",
    "refinenet",
    "ocnet",
    "ocrnet",
    "ann",
)


@pytest.fixture(scope="module", params=TABLE, ids=IDS)
def case(request):
    name, options, size = request.param
    torch.manual_seed(0)
    return build_model(name, 7, **options), size


def _read(seen: dict[str, torch.Tensor], name: str, first: bool, change) -> object:
    def hook(_, inputs, output):
        seen[name] = change(inputs[0] if first else output)

    return hook


def _open(model, names, change=lambda tensor: tensor) -> tuple[dict[str, torch.Tensor], list]:
    """Reads taps as the rooms above do: by forward hooks at the declared paths."""
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for name in names:
        path = model.taps[name]
        module = model.get_submodule(path.removesuffix(":input"))
        hook = _read(seen, name, path.endswith(":input"), change)
        handles.append(module.register_forward_hook(hook))
    return seen, handles


def _heads(model) -> list[str]:
    return [name for name in model.taps if name.startswith(("logits", "aux"))]


def _close(handles) -> None:
    for handle in handles:
        handle.remove()


def test_declares_the_contract(case):
    model, _ = case
    assert {"logits", "features"} <= set(model.taps)
    assert model.num_classes == 7
    assert isinstance(model.align_corners, bool)
    assert model.multiple_of in (1, 8)
    for path in model.taps.values():
        model.get_submodule(path.removesuffix(":input"))


def test_logits_and_taps_at_odd_and_even_sizes(case):
    model, (h, w) = case
    model.eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 65, 97)).shape == (1, 7, h, w)
        seen, handles = _open(model, model.taps)
        out = model(torch.rand(2, 3, 64, 90))
        _close(handles)
    assert set(seen) == set(model.taps), "every declared tap is read in a forward pass"
    assert seen["logits"] is out
    assert seen["features"].shape[0] == 2
    if model.spec["name"].partition(".")[0] not in ANOTHER_STRIDE:
        assert seen["features"].shape[-2:] == out.shape[-2:]
    for name in _heads(model):
        assert seen[name].shape[:2] == (2, 7)


def test_features_are_before_the_dropout(case):
    model, _ = case
    if "lraspp" in model.spec["name"]:
        pytest.skip("a foreign network: its features are the input of its classifier")
    if model.taps["features"] == model.taps["features_released"]:
        pytest.skip("this network has no dropout before its classifier")
    model.train()
    seen, handles = _open(model, ["features", "features_released"])
    handles.append(
        model.classifier.register_forward_hook(_read(seen, "scores", False, torch.clone))
    )
    with torch.no_grad():
        model(torch.rand(2, 3, 65, 65))
        _close(handles)
        plain = model.classifier(seen["features"])
        dropped = model.classifier(seen["features_released"])
    assert torch.equal(dropped, seen["scores"]), "the classifier reads the released features"
    assert not torch.allclose(plain, dropped), "dropout lies between the two"


def test_taps_are_not_changed_in_place(case):
    model, _ = case
    model.eval()
    seen, handles = _open(model, model.taps)
    copies, more = _open(model, model.taps, torch.clone)
    with torch.no_grad():
        model(torch.rand(1, 3, 65, 65))
    _close([*handles, *more])
    for name in model.taps:
        assert torch.equal(seen[name], copies[name]), name


def test_auxiliary_head_runs_only_in_training_or_when_tapped(case):
    model, _ = case
    if "aux" not in model.taps:
        pytest.skip("no auxiliary head")
    calls = []
    head = model.get_submodule(model.taps["aux"])
    # A hook inside the head, which does not open its tap.
    inner = next((m for m in head.modules() if isinstance(m, nn.Conv2d)), None)
    if inner is None:
        pytest.skip("the main path reads the auxiliary logits")
    handle = inner.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model.eval()(torch.rand(1, 3, 65, 65))
        assert not calls
        model.train()(torch.rand(2, 3, 65, 65))
        assert len(calls) == 1
        seen, handles = _open(model.eval(), ["aux"])
        model(torch.rand(1, 3, 65, 65))
        assert len(calls) == 2
        assert "aux" in seen
    _close([handle, *handles])


def test_gradient_reaches_every_parameter(case):
    model, _ = case
    model.train()
    model.zero_grad()
    heads = _heads(model)
    seen, handles = _open(model, heads)
    torch.manual_seed(1)
    model(torch.rand(2, 3, 97, 129))
    _close(handles)
    labels = torch.randint(0, 7, (2, 97, 129))
    loss = sum(
        nn.functional.cross_entropy(
            nn.functional.interpolate(seen[name], labels.shape[-2:], mode="bilinear"), labels
        )
        for name in heads
    )
    assert float(loss.detach()) / len(heads) == pytest.approx(1.95, abs=0.5), "near log 7 at first"
    loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    model.zero_grad()


def test_rebuilds_from_its_spec_and_loads_strictly(case, tmp_path):
    model, _ = case
    spec = json.loads(json.dumps(model.spec))
    twin = build_model(spec["name"], spec["num_classes"], **spec["options"])
    assert twin.spec == model.spec
    assert twin.input.spec == model.input.spec
    torch.save(model.state_dict(), tmp_path / "model.pt")
    # The state of a wrapped network is that of the module inside.
    inside = {k.removeprefix("module."): v for k, v in model.state_dict().items()}
    torch.save(inside, tmp_path / "inside.pt")
    report = load_weights(twin, tmp_path / "inside.pt")
    assert report.complete
    assert len(report.matched) == len(model.state_dict())
    x = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), twin.eval()(x))


def test_normalisation_is_no_part_of_the_weights(case):
    model, _ = case
    assert not [key for key in model.state_dict() if key.startswith("input")]


def test_one_image_in_training_is_refused_in_words(case):
    model, _ = case
    if "lraspp" in model.spec["name"]:
        pytest.skip("a foreign network")
    if model.spec["name"].startswith(ONE_IMAGE_TRAINS):
        assert bool(model.train()(torch.rand(1, 3, 65, 65)).isfinite().all())
        return
    with pytest.raises(
        ValueError, match=r"the batch holds 1 image; expected 2 or more in training"
    ):
        model.train()(torch.rand(1, 3, 65, 65))


def test_channels_last_gives_the_same(case):
    model, _ = case
    x = torch.rand(2, 3, 65, 65)
    with torch.no_grad():
        plain = model.eval()(x)
        # 1e-3: other kernels sum in another order, over tens of layers.
        last = model.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        )
        model.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(plain, last, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("size", [(66, 71), (97, 65), (128, 72)])
def test_any_size_is_taken(case, size):
    model, (rows, _) = case
    with torch.no_grad():
        out = model.eval()(torch.rand(1, 3, *size))
    stride = next(s for s in (1, 2, 4, 8, 16, 32) if rows + (-65 // s) in (0, 1))
    for positions, side in zip(out.shape[-2:], size, strict=True):
        # The paper's ResNets round up twice.
        assert -(-side // stride) <= positions <= -(-side // stride) + (stride > 1)


@pytest.mark.parametrize("case", BFLOAT16, indirect=True)
def test_bfloat16_autocast_is_finite_forward_and_back(case):
    model, _ = case
    model.train().zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.rand(2, 3, 33, 33))
    out.float().square().mean().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    model.zero_grad()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("espnet", {"depth": [1, 1]}),
        ("espnetv2", {"width": 0.5}),
        ("enet", {}),
        ("erfnet", {}),
        ("deeplabv3_r18", {}),
    ],
)
def test_exports_with_free_height_and_width(name, options):
    torch.manual_seed(0)
    model = build_model(name, 3, **options).eval()
    free = {0: torch.export.Dim("b", max=16)}
    for axis in (2, 3):
        side = torch.export.Dim(f"side{axis}", min=72 // model.multiple_of, max=512)
        free[axis] = side if model.multiple_of == 1 else model.multiple_of * side
    exported = torch.export.export(
        model, (torch.rand(2, 3, 80, 104),), dynamic_shapes={"images": free}
    ).module()
    odd = 3 if model.multiple_of == 1 else 0
    for size in ((88, 72 + odd), (128 + odd, 80), (96, 160)):
        x = torch.rand(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(exported(x), model(x))


def test_every_listed_network_is_under_contract():
    # The big ones differ from listed ones in depth alone; they are counted elsewhere.
    big = {"pspnet_r50", "pspnet_r101", "deeplabv3_r50", "deeplabv3_r101", "refinenet_r101"}
    assert {name.partition(":")[0] for name in IDS} >= set(MODELS) - big
