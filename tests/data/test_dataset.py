"""Reading images and masks, and the messages for bad ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from segdistill.data.dataset import PairDataset, generated_palette
from segdistill.data.files import read_image, read_mask
from segdistill.data.label_map import LabelMap
from segdistill.data.pair import Pair
from tests.data.files import ids, save_image, save_mask
from tests.reliability.files import png

IDENTITY = LabelMap(None, 3)


def test_ids_are_mapped_ignored_and_merged():
    # 7 -> 0; 8 and 9 -> 1; 0 and 4 ignored, declared in the two ways.
    label_map = LabelMap({7: 0, 8: 1, 9: 1, 0: None, 4: 255}, 2)
    mapped = label_map.apply(np.array([[7, 8, 9], [0, 4, 7]]))
    assert mapped.tolist() == [[0, 1, 1], [255, 255, 0]] and mapped.dtype == np.uint8


def test_without_a_mapping_ids_are_class_numbers_and_255_is_ignored():
    assert IDENTITY.apply(np.array([[0, 1, 2, 255]])).tolist() == [[0, 1, 2, 255]]


def test_keys_of_a_yaml_mapping_may_be_text():
    assert LabelMap({"26": 1, "0": None}, 2).apply(np.array([[26, 0]])).tolist() == [[1, 255]]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({1: 3}, "assigns id 1 to class 3; expected 0..2, or null"),
        ({1: -1}, "assigns id 1 to class -1"),
        ({-1: 0}, "raw id in mapping is -1; expected 0..65535"),
        ({70000: 0}, "raw id in mapping is 70000"),
        ({"road": 0}, "mapping entry is 'road': 0; expected integers"),
        ({1: 0.9}, "mapping entry is 1: 0.9; expected integers"),
        ({1.7: 1}, "mapping entry is 1.7: 1; expected integers"),
        ({1: True}, "mapping entry is 1: True; expected integers"),
        ({1: float("inf")}, "mapping entry is 1: inf; expected integers"),
        ({1: 0, "1": 2}, "mapping assigns 1 to class 0 and to 2; expected one of them"),
        ({1: 2, "01": 0}, "mapping assigns 1 to class 2 and to 0"),
        (
            {"#ABCDEF": 0, "#abcdef": None},
            "mapping assigns #abcdef to class 0 and to null; expected one of them",
        ),
    ],
)
def test_invalid_mappings_are_refused(mapping, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        LabelMap(mapping, 3)


@pytest.mark.parametrize("count", [0, 256])
def test_no_classes_and_more_than_255_are_refused(count):
    with pytest.raises(ValueError, match=f"{count} classes declared; expected 1 to 255"):
        LabelMap(None, count)


def test_255_classes_leave_room_for_the_ignored_id():
    label_map = LabelMap({i: i - 1 if i else None for i in range(256)}, 255)
    assert label_map.apply(np.array([[0, 1, 255]])).tolist() == [[255, 0, 254]]


def test_an_undeclared_id_names_file_value_and_place(tmp_path):
    raw = ids(3)
    raw[5, 7] = 37
    path = save_mask(tmp_path / "bad.png", raw)
    with pytest.raises(ValueError) as error:
        read_mask(path, IDENTITY)
    text = str(error.value)
    assert text.startswith(f"{path}: label id 37 (first at row 5, column 7)")
    assert "expected 0..2, 255" in text and "null" in text and "\n" not in text


def test_ids_counted_from_one_are_recognised(tmp_path):
    path = save_mask(tmp_path / "shifted.png", ids(3) + 1)
    with pytest.raises(ValueError, match=r"label id 3 .* start at 1\. .* map \{1: 0, 2: 1"):
        read_mask(path, IDENTITY)
    path = save_mask(tmp_path / "unlabelled.png", ids(4))
    with pytest.raises(ValueError, match=r"label id 3 .* 0 means unlabelled"):
        read_mask(path, IDENTITY)


def test_black_and_white_masks_require_a_mapping(tmp_path):
    path = save_mask(tmp_path / "binary.png", ids(2) * 255)
    assert set(read_mask(path, LabelMap({0: 0, 255: 1}, 2)).unique().tolist()) == {0, 1}
    with pytest.raises(
        ValueError, match=r"binary\.png: 255 occurs but 1 does not.*\{0: 0, 255: 1\}"
    ):
        read_mask(path, LabelMap(None, 2))
    declared = LabelMap({0: 0, 1: 1, 255: None}, 2)
    assert set(read_mask(path, declared).unique().tolist()) == {0, 255}
    path = save_mask(tmp_path / "void.png", np.array([[0, 1, 255]], np.uint8))
    assert read_mask(path, LabelMap(None, 2)).tolist() == [[0, 1, 255]]


def test_ids_beyond_16_bits_are_refused():
    with pytest.raises(
        ValueError, match=r"mask: label ids range from -1 to 2; expected 0\.\.65535"
    ):
        IDENTITY.apply(np.array([[-1, 2]]))


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_the_stored_value_is_the_id_in_every_mode(tmp_path, mode):
    raw = ids(2 if mode == "1" else 3)
    image = Image.fromarray(raw.astype(np.uint16) if mode == "I;16" else raw)
    if mode == "P":
        # Colours that an RGB or grey conversion would turn into other numbers.
        image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    elif mode == "1":
        image = Image.fromarray(raw * 255).convert("1")
    image.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as stored:
        assert stored.mode == mode
    read = read_mask(tmp_path / "mask.png", IDENTITY)
    assert read.dtype == torch.uint8 and read.tolist() == raw.tolist()


def test_an_undeclared_white_of_one_bit_is_named(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(ids(2) > 0).save(path)
    with pytest.raises(ValueError, match=r"label id 1 \(first at row 0, column 1\)"):
        read_mask(path, LabelMap({0: 0, 255: 1}, 2))


def test_sixteen_bit_ids_above_255_are_mapped(tmp_path):
    path = save_mask(tmp_path / "deep.png", np.full((4, 4), 1001, np.uint16))
    assert read_mask(path, LabelMap({1001: 2}, 3)).unique().tolist() == [2]
    with pytest.raises(ValueError, match="label id is 1001"):
        read_mask(path, IDENTITY)


def test_colour_masks_are_refused_with_their_colours(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2] = (128, 0, 0)
    path = save_mask(tmp_path / "colour.png", pixels)
    with pytest.raises(ValueError, match=r'mode RGB.*2 colours.*\{"#000000": \.\., "#800000"'):
        read_mask(path, IDENTITY)


def test_a_grey_mask_stored_in_three_channels_holds_ids(tmp_path):
    grey = np.repeat(ids(3)[..., None], 3, 2)
    path = save_mask(tmp_path / "grey.png", grey)
    Image.open(path).convert("RGBA").save(tmp_path / "alpha.png")
    for name in ("grey.png", "alpha.png"):
        assert read_mask(tmp_path / name, IDENTITY).tolist() == ids(3).tolist()
    grey[0, 0] = (0, 1, 0)
    with pytest.raises(ValueError, match="the mask is a colour image"):
        read_mask(save_mask(path, grey), IDENTITY)


def test_a_mapping_of_colours_reads_colour_and_palette_masks(tmp_path):
    raw = ids(3)
    colours = np.array([[0, 0, 0], [128, 64, 128], [255, 255, 1]], np.uint8)
    rgb = save_mask(tmp_path / "rgb.png", colours[raw])
    Image.open(rgb).convert("RGBA").save(tmp_path / "rgba.png")
    # Another order of the palette: the indices differ from file to file, the colours do not.
    palette = Image.fromarray(2 - raw)
    palette.putpalette(colours[::-1].ravel().tolist())
    palette.save(tmp_path / "palette.png")
    label_map = LabelMap({"#000000": None, "#804080": 0, "#FFFF01": 1}, 2)
    expected = np.array([255, 0, 1])[raw].tolist()
    for name in ("rgb.png", "rgba.png", "palette.png"):
        assert read_mask(tmp_path / name, label_map).tolist() == expected
    fewer = LabelMap({"#000000": None, "#804080": 0}, 2)
    with pytest.raises(
        ValueError, match=r"rgb\.png: colour #ffff01 \(first at row 0, column 2\).*2 colours"
    ):
        read_mask(rgb, fewer)


def test_a_mapping_must_not_mix_ids_and_colours():
    with pytest.raises(ValueError, match='mapping entry 7 is not a colour; expected "#rrggbb"'):
        LabelMap({"#000000": 0, 7: 1}, 2)
    with pytest.raises(ValueError, match="'#12345' is not a colour"):
        LabelMap({"#12345": 0}, 2)
    with pytest.raises(ValueError, match="assigns id #000000 to class 2"):
        LabelMap({"#000000": 2}, 2)


def _read(path, mapping=None, classes=2, **reading):
    return read_mask(path, LabelMap(mapping, classes, **reading)).tolist()


def test_a_threshold_reads_grey_levels_at_any_depth(tmp_path):
    levels = np.array([[0, 99, 100, 255]], np.uint8)
    expected = [[0, 0, 1, 1]]
    save_mask(tmp_path / "grey.png", levels)
    save_mask(tmp_path / "rgb.png", np.repeat(levels[..., None], 3, 2))
    # The palette's greys count, not its indices: index 0 is white here.
    palette = Image.fromarray(np.array([[3, 2, 1, 0]], np.uint8))
    palette.putpalette(levels[0, ::-1].repeat(3).tolist())
    palette.save(tmp_path / "palette.png")
    for name in ("grey.png", "rgb.png", "palette.png"):
        assert _read(tmp_path / name, threshold=100) == expected, name
    (tmp_path / "two.png").write_bytes(png(np.array([[0, 1, 2, 3]]), 2, 0))
    assert _read(tmp_path / "two.png", threshold=100) == [[0, 0, 1, 1]]
    Image.fromarray(levels > 99).save(tmp_path / "one.png")
    assert _read(tmp_path / "one.png", threshold=100) == expected


def test_a_tolerance_reads_the_nearest_declared_id(tmp_path):
    values = np.array([[0, 50, 51, 100, 177, 178, 199, 255]], np.uint8)
    path = save_mask(tmp_path / "near.png", values)
    mapping = {0: 0, 100: 1, 255: None}
    assert _read(path, mapping, tolerance=99) == [[0, 0, 1, 1, 1, 255, 255, 255]]
    with pytest.raises(ValueError, match=r"label id 50 and 4 more \(first at row 0, column 1\)"):
        _read(path, mapping, tolerance=40)
    with pytest.raises(ValueError, match="tolerance is 100; expected at most 99, as 0 and 100"):
        _read(path, mapping, tolerance=100)


def test_a_tolerance_of_colours_is_the_greatest_difference_of_a_channel(tmp_path):
    declared = {"#000000": 0, "#804080": 1, "#f0f0f0": None}
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    known = np.array([[0, 0, 0], [128, 64, 128], [240, 240, 240]])
    apart = np.abs(colours[:, :, None].astype(int) - known).max(3)
    near = apart.min(2) <= 90
    colours[~near] = 0
    expected = np.where(near, np.array([0, 1, 255])[apart.argmin(2)], 0)
    path = save_mask(tmp_path / "noisy.png", colours)
    assert _read(path, declared, tolerance=90) == expected.tolist()
    with pytest.raises(ValueError, match=r"colour #[0-9a-f]{6} and .* is not in the mapping"):
        _read(path, declared, tolerance=10)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_ids_are_the_stored_samples_at_every_depth(tmp_path, depth):
    raw = ids(2 if depth == 1 else 3)
    (tmp_path / "mask.png").write_bytes(png(raw, depth, 0))
    assert _read(tmp_path / "mask.png", classes=3) == raw.tolist()


def test_a_lossy_mask_is_read_where_its_values_are_grey_levels(tmp_path):
    white = ids(2).repeat(8, 0).repeat(8, 1) * 255
    for name in ("mask.jpg", "mask.webp"):
        Image.fromarray(white).save(tmp_path / name)
        assert _read(tmp_path / name, threshold=128) == (white // 255).tolist()
        assert _read(tmp_path / name, {0: 1, 255: 0}, tolerance=100) == (1 - white // 255).tolist()
        with pytest.raises(ValueError, match="expected a lossless format"):
            _read(tmp_path / name, {0: 0, 255: 1})


def test_alpha_matters_only_where_colours_do_not_tell_pixels_apart(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 0] = 255
    pixels[:2, :, 3] = 9
    mapping = {"#ff0000": 1, "#000000": 0}
    path = save_mask(tmp_path / "alpha.png", pixels)
    assert _read(path, mapping)[0] == [1] * 4
    pixels[0, 0, 3] = 8
    with pytest.raises(ValueError, match="pixels of one colour differ in the alpha channel"):
        _read(save_mask(path, pixels), mapping)


def test_pages_count_but_not_smaller_copies_of_one(tmp_path):
    first, second = Image.fromarray(ids(3)), Image.fromarray(ids(3, 6, 8))
    second.encoderinfo = {"tiffinfo": {254: 1}}
    path = tmp_path / "overview.tif"
    first.save(path, save_all=True, append_images=[second])
    assert _read(path, classes=3) == ids(3).tolist()
    first.save(path, save_all=True, append_images=[Image.fromarray(ids(3))])
    with pytest.raises(ValueError, match="the mask has 2 pages; expected one"):
        _read(path, classes=3)


def test_jpeg_masks_are_refused_whatever_their_name(tmp_path):
    Image.fromarray(ids(3)).save(tmp_path / "mask.png", format="JPEG")
    with pytest.raises(
        ValueError, match=r"mask\.png: the mask is a JPEG; expected a lossless.*PNG"
    ):
        read_mask(tmp_path / "mask.png", IDENTITY)


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_damaged_and_missing_files_are_named(tmp_path, kind):
    def read(path):
        return read_image(path) if kind == "image" else read_mask(path, IDENTITY)

    noise = np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8)
    whole = save_mask(tmp_path / "whole.png", noise).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.png", "text.png", "empty.png"):
        with pytest.raises(ValueError, match=rf"{name}: cannot read this {kind} \(.*replace or"):
            read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=rf"none\.png: no such {kind} file"):
        read(tmp_path / "none.png")


def test_a_truncated_jpeg_is_named(tmp_path):
    path = tmp_path / "frame.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"frame\.jpg: cannot read this image \(.*truncated"):
        read_image(path)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (6, 4), (200, 200, 200)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 4, 6) and image.dtype == torch.uint8
    assert (image.int() - 200).abs().max() <= 6


def test_sixteen_bit_images_are_refused(tmp_path):
    path = save_mask(tmp_path / "deep.png", np.full((4, 4), 4000, np.uint16))
    with pytest.raises(ValueError, match="more than 8 bits per channel"):
        read_image(path)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize(("stored", "colour_type"), [(2, 4), (3, 2), (4, 6)])
def test_several_channels_of_sixteen_bits_are_refused_as_images(
    tmp_path, stored, colour_type, channels
):
    """Pillow would hand out the upper eight bits, which of 12 bits are almost black."""
    pixels = np.full((4, 5, stored), 4000, np.uint16)
    (tmp_path / "deep.png").write_bytes(png(pixels, 16, colour_type))
    with pytest.raises(ValueError, match=r"deep\.png: the image has several channels of 16 bits"):
        read_image(tmp_path / "deep.png", channels)


def test_image_and_mask_of_different_sizes_are_both_named(tmp_path):
    pair = Pair(
        "a",
        save_image(tmp_path / "a.png", 12, 16),
        save_mask(tmp_path / "a_mask.png", ids(3, 10, 16)),
    )
    dataset = PairDataset([pair], IDENTITY, ["a", "b", "c"])
    with pytest.raises(
        ValueError,
        match=r"a_mask\.png: the mask is 10x16 \(height x width\); expected 12x16, .*a\.png",
    ):
        dataset[0]


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="empty"):
        PairDataset([], IDENTITY, ["a", "b", "c"])


def test_palettes_must_fit_the_classes():
    with pytest.raises(ValueError, match="2 colours for 3 classes"):
        PairDataset([], IDENTITY, ["a", "b", "c"], [[0, 0, 0], [1, 1, 1]])
    with pytest.raises(ValueError, match=r"expected one \[red, green, blue\] in 0\.\.255"):
        PairDataset([], IDENTITY, ["a"], [[0, 0, 300]])


def test_generated_colours_differ():
    assert len(set(generated_palette(255))) == 255
    assert generated_palette(3) == [(128, 0, 0), (0, 128, 0), (128, 128, 0)]


@pytest.mark.parametrize("flipped", [False, True])
def test_masks_of_bytes_are_read_like_wider_ones(flipped: bool) -> None:
    mapping = LabelMap({7: 0, 11: 1, 200: 2, 255: None}, num_classes=3)
    raw = np.random.default_rng(0).choice(np.array([7, 11, 200, 255], np.uint8), (5, 9))
    raw = raw.T[::-1] if flipped else raw
    classes = mapping.apply(raw)
    np.testing.assert_array_equal(classes, mapping.apply(raw.astype(np.int32)))
    assert classes.dtype == np.uint8 and classes.flags.writeable
    raw = raw.copy()
    raw[2, 3] = 12
    for stored in (raw, raw.astype(np.uint16)):
        with pytest.raises(ValueError, match="12"):
            mapping.apply(stored)
