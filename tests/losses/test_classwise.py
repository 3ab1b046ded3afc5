import pytest
import torch
from torch.nn import functional as F

from segdistill.losses.classwise import class_tokens, present_classes, sample_labels


def positions(pixels, cells, index):
    """The pixel that each cell reads, along one line."""
    line = torch.arange(pixels).view(1, 1, pixels)
    return sample_labels(line, (1, cells), index)[0, 0].tolist()


@pytest.mark.parametrize(
    ("pixels", "cells"), [(512, 64), (512, 65), (513, 65), (180, 23), (240, 30)]
)
def test_stride_reads_every_eighth_pixel_and_never_outside(pixels, cells) -> None:
    assert positions(pixels, cells, "stride") == [min(8 * i, pixels - 1) for i in range(cells)]


@pytest.mark.parametrize(
    ("pixels", "cells", "stride"),
    [
        (65, 9, 8),
        (97, 13, 8),
        (321, 21, 16),
        (180, 12, 16),
        (513, 17, 32),
        (769, 25, 32),
        (240, 8, 32),
    ],
)
def test_the_stride_is_found_where_it_is_not_the_rounded_ratio(pixels, cells, stride) -> None:
    expected = [min(stride * i, pixels - 1) for i in range(cells)]
    assert positions(pixels, cells, "stride") == expected


def test_legacy_is_floor_of_the_ratio_and_one_cell_off_at_65() -> None:
    legacy = positions(512, 65, "legacy")
    assert legacy == [i * 512 // 65 for i in range(65)]
    # Cell 64 of a stride-8 network is centred on pixel 512 (511 after clipping).
    assert legacy[63] == 496
    assert positions(512, 65, "stride")[63] == 504


def test_legacy_equals_nearest_interpolation_in_both_directions() -> None:
    labels = torch.randint(0, 9, (2, 37, 53), generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(labels[:, None].float(), (11, 60), mode="nearest")[:, 0].long()
    assert torch.equal(sample_labels(labels, (11, 60), "legacy"), expected)


def test_a_grid_that_no_stride_fits_is_read_at_the_middle_of_its_cells() -> None:
    # 250 pixels on 100 cells: 2.5 a cell; middles at 1.25, 3.75, ...
    read = positions(250, 100, "stride")
    assert read[:3] == [1, 3, 6]
    assert read[-1] == 248
    # A grid finer than the labels repeats them.
    assert positions(3, 6, "stride") == [0, 0, 1, 1, 2, 2]


def test_labels_of_the_grids_own_size_stay() -> None:
    labels = torch.randint(0, 9, (2, 5, 7), generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample_labels(labels, (5, 7)), labels)


def test_an_unknown_index_is_refused() -> None:
    with pytest.raises(ValueError, match="index is 'middle'; expected stride or legacy"):
        sample_labels(torch.zeros(1, 2, 2, dtype=torch.int64), (1, 1), "middle")


def test_present_classes_leave_out_the_ignored() -> None:
    labels = torch.tensor([[[7, 255]], [[2, 7]]])
    assert present_classes(labels).tolist() == [2, 7]
    assert present_classes(torch.full((1, 2, 2), 255)).tolist() == []


def test_tokens_agree_with_a_loop_over_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 8, (3, 5, 6), generator=generator)
    labels[labels == 7] = 255
    labels[0][labels[0] == 3] = 255
    tokens, counts = class_tokens(features, labels, torch.arange(7))
    for b in range(3):
        for k in range(7):
            pixels = [
                features[b, :, y, x] for y in range(5) for x in range(6) if labels[b, y, x] == k
            ]
            assert counts[b, k] == len(pixels)
            expected = sum(pixels) / len(pixels) if pixels else torch.zeros(4).double()
            torch.testing.assert_close(tokens[b, k], expected)
    assert counts[0, 3] == 0
