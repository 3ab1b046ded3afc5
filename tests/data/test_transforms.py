"""Image and label stay aligned, and all randomness comes from the generator."""

import pytest
import torch

from segdistill.data.transforms import (
    PADDING_COLOUR,
    Augment,
    Box,
    change_colour,
    nearest_index,
    resize_box,
    resize_image,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose channels are its pixels' row and column in 0..1, and a label that is both.

    The label numbers 12x12 blocks, so that row and column of the block follow from it.
    """
    rows = torch.arange(height).float()[:, None].expand(height, width)
    columns = torch.arange(width).float()[None].expand(height, width)
    image = torch.stack([rows / 255, columns / 255, torch.zeros(height, width)])
    return image, ((rows // 12) * 16 + columns // 12).to(torch.uint8)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_image_and_label_stay_aligned(seed, flip):
    image, label = coordinates(120, 180)
    augment = Augment(crop=(64, 80), scale=(0.8, 2.0), flip=flip)
    crop, crop_label = augment(image, label, generator(seed))
    inside = crop_label != 255
    assert inside.float().mean() > 0.5
    row, column = crop[0] * 255, crop[1] * 255
    block_row, block_column = crop_label // 16, crop_label % 16
    # A label's pixel and the image's interpolated one may differ by a source pixel at most: 1.3
    # of them at the coarsest zoom, besides the blend with the padding at the rim.
    rim = _near_padding(crop_label)
    for at, block in ((row, block_row), (column, block_column)):
        centre = block * 12.0 + 5.5
        assert ((at - centre).abs()[inside & ~rim] <= 6.0 + 1.3).all()
    # A flip turns the direction in which columns count.
    steps = column[32][inside[32] & ~rim[32]].diff()
    assert (steps <= 0).all() if flip else (steps >= 0).all()


def _near_padding(label: torch.Tensor) -> torch.Tensor:
    padded = (label == 255).float()[None, None]
    return torch.nn.functional.max_pool2d(padded, 5, 1, 2)[0, 0] > 0


def test_a_box_at_its_native_size_is_a_plain_crop():
    image, label = coordinates(60, 80)
    crop, crop_label = resize_box(image, label, Box(7, 11, 20, 30), (20, 30))
    torch.testing.assert_close(crop, image[:, 7:27, 11:41])
    assert torch.equal(crop_label, label[7:27, 11:41].long())


def test_doubling_repeats_labels_and_interpolates_between_pixels():
    image = torch.tensor([0, 100], dtype=torch.uint8).view(1, 1, 2).expand(3, 2, 2)
    label = torch.tensor([[3, 4], [5, 6]], dtype=torch.uint8)
    crop, crop_label = resize_box(image, label, Box(0, 0, 2, 2), (4, 4))
    expected = [[3, 3, 4, 4], [3, 3, 4, 4], [5, 5, 6, 6], [5, 5, 6, 6]]
    assert crop_label.tolist() == expected
    # Centres at -.25 (the rim), .25, .75, 1.25 of the source: 0, 25, 75, 100.
    assert (crop[0, 0] * 255).round().tolist() == [0, 25, 75, 100]


def test_nearest_index_takes_the_pixel_under_the_centre():
    for source, target in ((7, 3), (3, 7), (360, 180), (1, 5), (13, 13)):
        slow = [min(int((i + 0.5) * source / target), source - 1) for i in range(target)]
        assert nearest_index(source, target).tolist() == slow


def test_a_box_over_the_edge_is_padded():
    image = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    label = torch.zeros(4, 4, dtype=torch.uint8)
    crop, crop_label = resize_box(image, label, Box(-2, -1, 8, 6), (8, 6))
    inside = torch.zeros(8, 6, dtype=torch.bool)
    inside[2:6, 1:5] = True
    assert torch.equal(crop_label == 255, ~inside) and (crop_label[inside] == 0).all()
    assert (crop[:, inside] * 255).round().unique().tolist() == [200]
    assert (crop[:, ~inside] * 255).round()[:, 0].tolist() == list(PADDING_COLOUR)


def test_a_small_image_is_wholly_inside_the_crop_wherever_it_lands():
    image = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    places = set()
    for seed in range(40):
        label = torch.zeros(4, 4, dtype=torch.uint8)
        _, crop = Augment(crop=(6, 6), scale=(1.0, 1.0))(image, label, generator(seed))
        assert (crop == 0).sum() == 16
        places.add(tuple(crop.eq(0).nonzero()[0].tolist()))
    assert len(places) == 9


def test_base_is_the_size_that_scale_refers_to():
    image, label = coordinates(120, 160)
    # Resized to 60x80 and cropped at 30x40: half of the image each way.
    augment = Augment(crop=(30, 40), scale=(1.0, 1.0), flip=0.0, base=(60, 80))
    crop, _ = augment(image, label, generator())
    reach = (crop[:2].amax((1, 2)) - crop[:2].amin((1, 2))) * 255
    assert reach.tolist() == pytest.approx([58, 78], abs=1.0)


def test_scale_is_drawn_over_its_whole_range():
    image, label = coordinates(200, 200)
    augment = Augment(crop=(50, 50), scale=(0.5, 2.0), flip=0.0)
    reach = []
    for seed in range(300):
        crop, _ = augment(image, label, generator(seed))
        reach.append(float(crop[0, -1, 0] - crop[0, 0, 0]) * 255 + 1)
    zoom = 50 / torch.tensor(reach)
    assert 0.48 < zoom.min() < 0.53 and 1.9 < zoom.max() < 2.1
    assert zoom.mean() == pytest.approx(1.25, abs=0.08)


def test_the_same_generator_gives_the_same_crop_whatever_the_options():
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=generator())
    label = torch.randint(0, 5, (40, 60), dtype=torch.uint8, generator=generator())
    plain = Augment(crop=(24, 24))(image, label, generator(4))
    again = Augment(crop=(24, 24))(image, label, generator(4))
    coloured = Augment(crop=(24, 24), photometric=0.5)(image, label, generator(4))
    assert torch.equal(plain[0], again[0]) and torch.equal(plain[1], again[1])
    assert torch.equal(plain[1], coloured[1]) and not torch.equal(plain[0], coloured[0])
    assert not torch.equal(plain[0], Augment(crop=(24, 24))(image, label, generator(5))[0])


def test_flips_occur_with_their_probability():
    image, label = coordinates(24, 24)
    augment = Augment(crop=(24, 24), scale=(1.0, 1.0), flip=0.25)
    crops = [augment(image, label, generator(seed))[0] for seed in range(400)]
    flipped = sum(bool(crop[1, 0, 0] > crop[1, 0, -1]) for crop in crops)
    assert flipped / 400 == pytest.approx(0.25, abs=0.07)


def test_float_and_uint8_images_give_the_same_crop():
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=generator())
    label = torch.zeros(40, 60, dtype=torch.uint8)
    augment = Augment(crop=(64, 64), scale=(0.5, 2.0))
    for seed in range(6):
        whole, _ = augment(image, label, generator(seed))
        real, _ = augment(image / 255, label, generator(seed))
        # uint8 is rounded to steps of 1/255 after each of the two passes.
        torch.testing.assert_close(whole, real, atol=1.1 / 255, rtol=0)


def test_memory_order_does_not_matter():
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=generator())
    last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(resize_image(image, (17, 23)), resize_image(last, (17, 23)))
    assert resize_image(last, (40, 60)).is_contiguous()


def test_the_source_is_not_written_to():
    image, label = coordinates(24, 24)
    before = image.clone(), label.clone()
    Augment(crop=(24, 24), scale=(1.0, 1.0), flip=0.0, photometric=0.5)(image, label, generator())
    assert torch.equal(image, before[0]) and torch.equal(label, before[1])


def test_colour_change_worked_by_hand():
    # One red and one black pixel: greys .299 and 0, mean .1495.
    image = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]])
    assert torch.equal(change_colour(image, 1, 1, 1), image)
    bright = change_colour(image, 0.5, 1, 1)
    assert bright[:, 0, 0].tolist() == [0.5, 0, 0]
    grey = change_colour(image, 1, 1, 0)
    torch.testing.assert_close(grey[:, 0, 0], torch.full((3,), 0.299))
    flat = change_colour(image, 1, 0, 1)
    torch.testing.assert_close(flat, torch.full((3, 1, 2), 0.1495))
    # Contrast .5, brightness 1.2, red channel of the red pixel: 1.2*(.1495 + .5*(1 - .1495)).
    both = change_colour(image, 1.2, 0.5, 1)
    assert float(both[0, 0, 0]) == pytest.approx(0.6897, abs=1e-4)
    assert change_colour(image, 1.5, 1, 1).max() == 1


def test_other_channels_keep_their_saturation():
    image, label = torch.rand(4, 8, 8) / 2 + 0.2, torch.zeros(8, 8, dtype=torch.uint8)
    assert torch.equal(change_colour(image, 1, 1, 0), image)
    torch.testing.assert_close(change_colour(image, 1.2, 1, 3), image * 1.2)
    flat = change_colour(image, 1, 0, 1)
    torch.testing.assert_close(flat, image.mean((1, 2), keepdim=True).expand_as(image))
    crop, _ = Augment(crop=(12, 12), photometric=0.1)(image, label, generator())
    assert crop.shape == (4, 12, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (0, 4)}, r"crop is \[0, 4\]; expected \[height, width\]"),
        ({"crop": (4, 4, 4)}, r"crop is \[4, 4, 4\]"),
        ({"crop": (4, 4), "scale": (2.0, 1.0)}, r"scale is \[2.0, 1.0\]; expected \[smallest"),
        ({"crop": (4, 4), "scale": (0.0, 1.0)}, r"scale is \[0.0, 1.0\]"),
        ({"crop": (4, 4), "flip": 1.5}, "flip is 1.5"),
        ({"crop": (4, 4), "photometric": 1.0}, "photometric is 1.0"),
        ({"crop": (4, 4), "base": (0, 1)}, r"base is \[0, 1\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Augment(**options)
