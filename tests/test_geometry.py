"""Where cells lie, and the resampling that follows: against ramps, PyTorch's own rules and plain loops."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from segdistill.geometry import (
    Cells,
    Line,
    check_cells,
    coarser,
    interpolation,
    labels_at,
    resample,
    tap_cells,
    to_pixels,
)

lines = st.builds(
    Line,
    cells=st.integers(2, 40),
    pixels=st.just(97),
    stride=st.floats(0.5, 40),
    offset=st.floats(-30, 30),
)


def on_line(line: Line) -> Cells:
    return Cells(Line(1, 1, 1.0, 0.0), line)


def ramp(cells: Cells) -> Tensor:
    """A map, float64, whose value at each cell is the position of its centre, rows and columns."""
    rows, columns = cells.rows.centres(), cells.columns.centres()
    shape = cells.size
    return torch.stack([rows[:, None].expand(shape), columns.expand(shape)])[None]


@settings(max_examples=80, deadline=None)
@given(lines, lines)
@example(
    Line(3, 97, 12.0, 12.0), Line(2, 97, 23.0, 0.0)
)  # a triangle that reaches the end to the digit
def test_a_ramp_stays_a_ramp_inside_the_border(source, target) -> None:
    moved = resample(ramp(on_line(source)), on_line(source), on_line(target))[0, 1, 0]
    ends = source.centres()[[0, -1]]
    wanted = target.centres().clamp(*ends.tolist())
    # Averaged over as far as the target's cells are apart; at the border over what there is of it.
    reach = max(target.stride - source.stride, 0.0)
    inside = (wanted - ends[0] >= reach) & (ends[1] - wanted >= reach)
    off = (moved - wanted).abs()
    # Lines that meet to a hundredth of a cell are left as they are.
    assert float(off[inside].max() if inside.any() else 0) <= 0.0101 * source.stride
    assert float(off.max()) <= 0.5 * max(target.stride, source.stride)


@settings(max_examples=60, deadline=None)
@given(lines, lines)
def test_each_value_is_a_mean_of_values(source, target) -> None:
    weights = interpolation(source, target)
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(target.cells, dtype=torch.float64))


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    ("size", "image"),
    [((9, 13), (65, 97)), ((64, 65), (512, 512)), ((1, 2), (5, 6)), ((4, 4), (4, 4))],
)
def test_logits_go_to_the_pixels_by_pytorchs_rule_to_the_bit(size, image, corners) -> None:
    logits = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(logits, image, mode="bilinear", align_corners=corners)
    cells = Cells.by_corners(size, image, corners)
    assert torch.equal(to_pixels(logits, cells), expected)
    # The matrices say the same where they are used.
    close = resample(logits, cells, Cells.of_pixels(image))
    torch.testing.assert_close(close, expected, rtol=1e-4, atol=1e-5)


def test_a_cell_a_pixel_past_the_image_counts_as_on_its_corner() -> None:
    logits = torch.randn(1, 2, 65, 65, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(logits, (512, 512), mode="bilinear", align_corners=True)
    assert torch.equal(to_pixels(logits, Cells.at((65, 65), (512, 512), 8)), expected)


def test_other_places_go_to_the_pixels_by_their_own() -> None:
    cells = Cells.at((2, 4), (8, 16), 4, 1)
    full = to_pixels(ramp(cells), cells)
    assert full.shape == (1, 2, 8, 16)
    rows, columns = torch.arange(8.0).clamp(1, 5), torch.arange(16.0).clamp(1, 13)
    torch.testing.assert_close(full[0, 0], rows.double()[:, None].expand(8, 16))
    torch.testing.assert_close(full[0, 1], columns.double().expand(8, 16))


def test_equal_parts_are_resized_as_by_pytorchs_antialiasing() -> None:
    noise = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(0)).double()
    for cells, off in ((48, 1e-9), (32, 1e-9), (12, 1e-9), (64, 0.15), (70, 0.25)):
        source, target = (Cells.by_corners((n, n), (96, 96), False) for n in (96, cells))
        ours = resample(noise, source, target)
        theirs = F.interpolate(noise, (cells, cells), mode="bilinear", antialias=True)
        # At ratios that are no whole number PyTorch's triangles lean, by up to 0.07 of a cell.
        assert float((ours - theirs).square().mean().sqrt()) <= off


def test_cells_in_the_same_places_are_left_alone() -> None:
    x = torch.randn(1, 2, 5, 6)
    cells = Cells.at((5, 6), (40, 48), 8)
    assert resample(x, cells, cells) is x
    almost = Cells.at((5, 6), (40, 48), 8, 0.05)
    assert resample(x, cells, almost) is x
    assert not torch.equal(resample(x, cells, Cells.at((5, 6), (40, 48), 8, 1)), x)


def test_gradient_flows_back_by_the_same_weights() -> None:
    source, target = Cells.at((5, 7), (33, 49), 8), Cells.by_corners((4, 5), (33, 49), False)
    x = torch.randn(1, 1, 5, 7, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        resample(x.detach(), source, target)
    assert torch.autograd.gradcheck(lambda y: resample(y, source, target), (x,))


def test_labels_are_read_at_the_centre_or_at_the_nearest_pixel_of_the_image() -> None:
    line = torch.arange(20).view(1, 1, 20)
    read = labels_at(line, Cells(Line(1, 1, 1.0, 0.0), Line(7, 20, 5.0, -6.5)))
    # Centres -6.5, -1.5, 3.5, 8.5, 13.5, 18.5, 23.5: a half goes up, what lies outside to the border.
    assert read.flatten().tolist() == [0, 0, 4, 9, 14, 19, 19]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 200), st.booleans())
def test_labels_equal_a_loop_over_cells(cells, pixels, corners) -> None:
    line = torch.arange(pixels).view(1, 1, pixels)
    read = labels_at(line, Cells.by_corners((1, cells), (1, pixels), corners)).flatten().tolist()
    for i, found in enumerate(read):
        corner = i * (pixels - 1) / (cells - 1) if cells > 1 else (pixels - 1) / 2
        centre = corner if corners else (i + 0.5) * pixels / cells - 0.5
        assert abs(found - centre) <= 0.5 + 1e-5


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="the labels are 4x5; expected the image's size, 8x8"):
        labels_at(torch.zeros(1, 4, 5, dtype=torch.long), Cells.at((2, 2), (8, 8), 4))


def test_the_coarser_cells_are_chosen_along_each_axis() -> None:
    one, other = Cells.at((4, 9), (64, 64), 8), Cells.by_corners((5, 9), (64, 64))
    met = coarser(one, other)
    assert met.rows == one.rows and met.columns == one.columns
    assert coarser(other, one) == Cells(one.rows, other.columns)


class Plain(nn.Module):
    """A network that says nothing of its cells."""


def test_a_network_says_once_where_its_cells_lie() -> None:
    net = Plain()
    size, image = (8, 8), (64, 64)
    assert tap_cells(net, "features", size, image) == Cells.at(size, image, 8)
    assert tap_cells(net, "logits", size, image) == Cells.by_corners(size, image, False)
    net.align_corners = True
    assert tap_cells(net, "features", size, image) == Cells.by_corners(size, image)
    net.cells = {"features": (8, 3), "logits": (8, 0)}
    assert tap_cells(net, "features", size, image) == Cells.at(size, image, 8, 3)
    # 8 · 7 = 56 is not the last pixel, 63, where `align_corners` puts the last cell.
    assert tap_cells(net, "logits", size, image) == Cells.by_corners(size, image)
    assert tap_cells(net, "logits", (9, 9), image) == Cells.at((9, 9), image, 8)
    net.cells_of = lambda tap, size, image: Cells.at(size, image, 16)
    assert tap_cells(net, "features", size, image) == Cells.at(size, image, 16)


def test_something_else_called_cells_is_no_declaration() -> None:
    searched = SimpleNamespace(cells=[nn.Identity()], align_corners=False)
    assert tap_cells(searched, "features", (8, 8), (64, 64)).rows.offset == 3.5


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([8, 0], r"cells is \[8, 0\]; expected a mapping"),
        (
            {"feature": (8, 0)},
            "cells names 'feature'; expected a tap of the network: logits, features",
        ),
        ({"features": 8}, r"cells.features is 8; expected \[stride, offset\]"),
        ({"features": (0, 0)}, "with a positive stride"),
        ({"features": (8, math.nan)}, r"expected \[stride, offset\]"),
        ({"features": "80"}, r"expected \[stride, offset\]"),
        ({"features": (True, 0)}, r"expected \[stride, offset\]"),
        ({"logits": (8, 0)}, "align_corners False; expected no entry"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(cells, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_cells(cells, {"logits": "", "features": "body"}, align_corners=False)
