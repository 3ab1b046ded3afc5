"""Strips, windows, flips and scales against a straightforward torch implementation."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.run.evaluation.protocol import Protocol, evaluating, padded
from segdistill.run.evaluation.showing import segment
from segdistill.run.evaluation.upsampling import Axis


class Strided(nn.Module):
    """Random logits at a stride, with the attributes of the model contract."""

    def __init__(self, classes: int = 7, stride: int = 4, align: bool = True, multiple: int = 1):
        super().__init__()
        torch.manual_seed(classes + stride)
        self.conv = nn.Conv2d(3, classes, 3, stride=stride, padding=1)
        self.num_classes, self.align_corners, self.multiple_of = classes, align, multiple
        self.sizes: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append((images.shape[2], images.shape[3]))
        return self.conv(images)


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def labels_of(model: nn.Module, image: Tensor, out: tuple[int, int], **options: object) -> Tensor:
    with evaluating(model):
        sample = {"image": image[0], "label": torch.empty(out)}
        return segment(model, sample, Protocol(**options))  # type: ignore[arg-type]


def assert_same_labels(labels: Tensor, logits: Tensor) -> None:
    """Equal to the argmax of `logits` (k h w), except for ties within rounding."""
    best = logits.topk(2, dim=0).values
    clear = best[0] - best[1] > 1e-4
    assert clear.float().mean() > 0.97
    assert torch.equal(labels[clear], logits.argmax(0)[clear])


def upsampled(logits: Tensor, size: tuple[int, int], align: bool) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("size", [(37, 53), (61, 40), (20, 90), (1, 1)])
def test_labels_are_those_of_bilinearly_upsampled_logits(align, size):
    model, image = Strided(align=align), picture(37, 53)
    with torch.no_grad():
        expected = upsampled(model(image), size, align)[0]
    assert_same_labels(labels_of(model, image, size), expected)


@pytest.mark.parametrize("align", [True, False])
def test_an_image_is_padded_to_the_networks_multiple_and_cropped_again(align):
    model, image = Strided(align=align, multiple=32), picture(37, 53)
    labels = labels_of(model, image, (37, 53))
    assert model.sizes == [(64, 64)]
    with torch.no_grad():
        logits = model(F.pad(image, (0, 64 - 53, 0, 64 - 37), mode="replicate"))
    assert_same_labels(labels, upsampled(logits, (64, 64), align)[0, :, :37, :53])


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip": True, "scales": (0.5, 1.0, 1.5)},
        {"window": (24, 20), "flip": True},
        {"scales": (1.0, 0.75), "average": "probabilities"},
    ],
)
def test_strips_equal_the_whole_to_the_bit(align, options):
    model, image, size = Strided(align=align, multiple=8), picture(34, 46), (41, 53)
    whole = labels_of(model, image, size, strip_bytes=2**40, **options)
    one_row = labels_of(model, image, size, strip_bytes=1, **options)
    several_rows = labels_of(model, image, size, strip_bytes=7 * 53 * 4 * 4 * 11, **options)
    assert whole.unique().numel() > 3
    assert torch.equal(one_row, whole)
    assert torch.equal(several_rows, whole)


def test_logits_at_full_size_are_not_interpolated():
    model, image = Strided(stride=1), picture(16, 24)
    with torch.no_grad():
        expected = model(image)[0].argmax(0)
    assert torch.equal(labels_of(model, image, (16, 24), strip_bytes=5000), expected)


@pytest.mark.parametrize("align", [True, False])
def test_mirrored_logits_are_averaged(align):
    model, image, size = Strided(align=align, multiple=8), picture(30, 45), (30, 45)
    pad = (0, 48 - 45, 0, 32 - 30)
    total = torch.zeros(7, 30, 45)
    with torch.no_grad():
        for mirrored in (False, True):
            shown = F.pad(image.flip(-1) if mirrored else image, pad, mode="replicate")
            view = upsampled(model(shown), (32, 48), align)[0, :, :30, :45]
            total += view.flip(-1) if mirrored else view
    assert_same_labels(labels_of(model, image, size, flip=True), total)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_scales_are_averaged_as_the_protocol_says(average):
    model, image, size = Strided(), picture(40, 56), (40, 56)
    total = torch.zeros(7, *size)
    with torch.no_grad():
        for scale in (0.5, 1.0, 1.75):
            shape = (round(40 * scale), round(56 * scale))
            shown = F.interpolate(image, size=shape, mode="bilinear", antialias=True)
            view = upsampled(model(shown), size, True)[0]
            total += view if average == "logits" else 10 * view.softmax(0)
    labels = labels_of(model, image, size, scales=(0.5, 1.0, 1.75), average=average)
    assert_same_labels(labels, total)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize(
    ("shape", "overlap"), [((50, 61), 1 / 3), ((50, 61), 0.0), ((20, 61), 0.5)]
)
def test_windows_cover_the_image_and_are_averaged_where_they_overlap(align, flip, shape, overlap):
    model, image = Strided(align=align), picture(*shape)
    sums = torch.zeros(7, *shape)
    # Straightforward: upsample every tile to its own size, sum, divide by the number of covering tiles.
    # The last window is pushed back to the border, so a mirrored image is covered differently.
    for mirrored in (False, True) if flip else (False,):
        shown = image.flip(-1) if mirrored else image
        total, count = torch.zeros(7, *shape), torch.zeros(shape)
        for top in starts(shape[0], 24, overlap):
            for left in starts(shape[1], 28, overlap):
                crop = shown[..., top : top + 24, left : left + 28]
                place = (..., slice(top, top + 24), slice(left, left + 28))
                with torch.no_grad():
                    total[place] += upsampled(model(crop), tuple(crop.shape[-2:]), align)[0]
                count[place] += 1
        assert count.min() == 1
        view = total / count
        sums += view.flip(-1) if mirrored else view
    labels = labels_of(model, image, shape, window=(24, 28), overlap=overlap, flip=flip)
    assert_same_labels(labels, sums)


def test_overlapping_windows_do_not_outweigh_another_scale():
    # Constant logits per view: 1 for class 0 at full scale, 1.5 for class 1 at half of it.
    class ByWidth(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            small = float(images.shape[-1] < 16)
            ones = torch.ones_like(images[:, :1])
            return torch.cat([ones * (1 - small), ones * 1.5 * small], 1)

    options = {"window": (16, 16), "overlap": 0.75, "scales": (1.0, 0.25)}
    labels = labels_of(ByWidth(), picture(40, 40), (40, 40), **options)
    assert labels.eq(1).all()


def starts(length: int, window: int, overlap: float) -> list[int]:
    if length <= window:
        return [0]
    found, at = [], 0
    while at + window < length:
        found.append(at)
        at += round(window * (1 - overlap))
    return [*found, length - window]


def test_windows_start_where_the_released_code_starts_them():
    # SKD on Cityscapes: windows of 512, stride ceil(512 * 2 / 3) = 342, the last pushed back.
    rows, columns = (Axis(512, 1 / 3, length, length, True) for length in (1024, 2048))
    assert rows.starts == [0, 342, 512]
    assert columns.starts == [0, 342, 684, 1026, 1368, 1536]
    # 24 * (1 - 1 / 3) is a little above 16 in floating point.
    assert Axis(24, 1 / 3, 60, 60, True).starts == [0, 16, 32, 36]


def test_windows_much_larger_than_the_image_are_the_whole_image():
    model, image = Strided(), picture(20, 30)
    window = labels_of(model, image, (40, 60), window=(500, 500))
    assert torch.equal(window, labels_of(model, image, (40, 60)))


def test_windows_work_if_a_small_output_skips_some():
    model, image = Strided(), picture(64, 64)
    assert labels_of(model, image, (2, 3), window=(8, 8), overlap=0.5).shape == (2, 3)


def test_size_sets_the_network_input_and_not_the_output():
    model, image = Strided(), picture(60, 80)
    assert labels_of(model, image, (60, 80), size=(24, 32)).shape == (60, 80)
    assert model.sizes == [(24, 32)]


@pytest.mark.parametrize("multiple", [1, 32])
def test_logits_of_the_images_size_are_resized_like_the_image(multiple):
    """Regions of pure red, green and blue, which are the classes."""
    model = nn.Identity()
    model.align_corners, model.multiple_of = True, multiple
    small = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    pure = F.one_hot(small.argmax(1), 3).permute(0, 3, 1, 2).float()
    image = F.interpolate(pure, size=(360, 480), mode="nearest")
    labels = labels_of(model, image, (360, 480), size=(90, 120))
    expected = F.interpolate(image, size=(90, 120), mode="bilinear", antialias=True)
    assert_same_labels(labels, upsampled(expected, (360, 480), False)[0])
    # With align_corners the borders would be up to two pixels off, and 0.95 would be correct.
    assert (labels == image[0].argmax(0)).float().mean() > 0.99


def test_bfloat16_reaches_the_network_and_not_the_interpolation():
    model, image = Strided(), picture(64, 64)
    seen = []
    model.conv.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    half = labels_of(model, image, (64, 64), precision="bf16")
    full = labels_of(model, image, (64, 64))
    assert seen == [torch.bfloat16, torch.float32]
    assert (half == full).float().mean() > 0.9


@pytest.mark.usefixtures("unchecked")
def test_sizes_may_come_as_lists_from_a_file():
    assert Protocol(size=[24, 32], window=[8, 8]) == Protocol(size=(24, 32), window=(8, 8))


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="precision is 'fp16'; expected 'bf16' or '32' on a CPU"):
        labels_of(Strided(), picture(8, 8), (8, 8), precision="fp16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 5)}, r"size is \(0, 5\); expected a height and a width"),
        ({"window": (5,)}, r"window is \(5,\); expected a height and a width"),
        ({"overlap": 1.0}, r"overlap is 1.0; expected a fraction in \[0, 1\)"),
        ({"scales": ()}, r"scales is \(\); expected factors above 0"),
        ({"scales": (0.0,)}, r"scales is \(0.0,\); expected factors above 0"),
        ({"average": "votes"}, "average is 'votes'; expected 'logits' or 'probabilities'"),
        ({"precision": "int8"}, "precision is 'int8'; expected one of 32, "),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_values_out_of_range_are_refused_by_their_name(options, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**options)


def test_outputs_that_are_not_logit_maps_are_refused():
    class Mapping(Strided):
        def forward(self, images):
            return {"out": super().forward(images)}

    with pytest.raises(ValueError, match=r"returned dict; .* Wrap it with segdistill.wrap"):
        labels_of(Mapping(), picture(8, 8), (8, 8))
    flat = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten())
    with pytest.raises(ValueError, match=r"returned \(1, 128\); expected logits"):
        labels_of(flat, picture(8, 8), (8, 8))


def test_modes_are_restored_per_module_even_after_an_error():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.train()
    model[1].eval()  # a frozen batch norm in a network that trains
    with pytest.raises(RuntimeError), evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        raise RuntimeError
    assert model.training and model[0].training and not model[1].training
    assert torch.is_grad_enabled()


def test_a_network_that_caches_a_tensor_can_be_trained_after_evaluation():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.ramp = nn.Conv2d(3, 2, 1), None

        def forward(self, images):
            if self.ramp is None:
                self.ramp = torch.linspace(0, 1, images.shape[-1])
            return self.conv(images) * self.ramp

    model = Keeps()
    labels_of(model, picture(4, 4), (4, 4))
    model(picture(4, 4)).sum().backward()
    assert model.conv.weight.grad is not None


def test_padded_rounds_up():
    assert padded((360, 480), 32) == (384, 480)
    assert padded((7, 9), 1) == (7, 9)
