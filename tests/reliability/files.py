"""Sets of images and masks as disks, annotators and converters leave them, each one change away from a good one.

`HOSTILE` holds them by name: each function spoils a good set in place and returns options of `folder`.
"""

import os
import shutil
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Options = dict[str, Any]
Spoil = Callable[[Path], Options]

SIZE = (32, 48)
NAMES = ["grass", "road", "sky"]
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [70, 130, 180]], np.uint8)
BY_COLOUR = {"mapping": {"#000000": 0, "#804080": 1, "#4682b4": 2}}
TWO: Options = {"classes": ["no", "yes"]}
BLACK_WHITE: Options = {**TWO, "mapping": {0: 0, 255: 1}}


class Hostile(NamedTuple):
    """A spoilt set.

    Attributes:
        spoil: Spoils a good set and returns the options to read it with.
        expected: Words of the refusal; "" for a set that is legitimate.
    """

    spoil: Spoil
    expected: str


HOSTILE: dict[str, Hostile] = {}


def hostile(expected: str = "") -> Callable[[Spoil], Spoil]:
    def add(spoil: Spoil) -> Spoil:
        HOSTILE[spoil.__name__.replace("_", " ")] = Hostile(spoil, expected)
        return spoil

    return add


def blocks(number: int = 0) -> np.ndarray:
    """Ids 0 to 2 in blocks of eight pixels, another arrangement for each number."""
    small = np.random.default_rng(number).integers(0, 3, (SIZE[0] // 8, SIZE[1] // 8), np.uint8)
    small[0, :3] = 0, 1, 2
    return small.repeat(8, 0).repeat(8, 1)


def good(root: Path) -> Path:
    """Six pairs in `train` and three in `val`, masks of the ids 0, 1 and 2."""
    for split, count in (("train", 6), ("val", 3)):
        for i in range(count):
            ids = blocks(i + 10 * (split == "val"))
            for kind, pixels in (("images", COLOURS[ids] + np.uint8(i)), ("masks", ids)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{i}.png")
    return root


def masks(root: Path) -> list[Path]:
    return sorted(root.glob("masks/*/*.png"))


def repaint(root: Path, paint: Callable[[np.ndarray], Any], every: int = 1) -> None:
    """Every mask, or every second and so on, as this function of its ids; arrays or pictures."""
    for path in masks(root)[::every]:
        painted = paint(np.asarray(Image.open(path)))
        image = painted if isinstance(painted, Image.Image) else Image.fromarray(painted)
        image.save(path)


def white(ids: np.ndarray) -> np.ndarray:
    return np.where(ids == 1, 255, 0).astype(np.uint8)


def through_jpeg(pixels: np.ndarray, quality: int = 75) -> np.ndarray:
    """As a JPEG gives them back; moved, since edges between its blocks would leave no trace."""
    file = BytesIO()
    Image.fromarray(np.roll(pixels, (3, 3), (0, 1))).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def in_palette(ids: np.ndarray, colours: np.ndarray = COLOURS) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette(colours.ravel().tolist())
    return image


def png(pixels: np.ndarray, depth: int, colour_type: int) -> bytes:
    """A PNG of a kind that Pillow does not write: samples `h w` or `h w c` of 1, 2, 4, 8 or 16 bits."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    if depth == 16:
        packed = [row.astype(">u2").tobytes() for row in rows]
    else:
        bits = np.unpackbits(rows[..., None].astype(np.uint8), axis=2)[..., 8 - depth :]
        packed = [np.packbits(row.ravel()).tobytes() for row in bits]
    data = zlib.compress(b"".join(b"\0" + row for row in packed))
    return _png_of(width, height, depth, colour_type, data)


def _png_of(width: int, height: int, depth: int, colour_type: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def lines(root: Path, form: str = "{image} {mask}", end: str = "\n") -> str:
    """A list of the training set; `form` says how a line is written."""
    names = [f"train/{i}" for i in range(6)]
    return end.join(
        form.format(name=n, image=f"images/{n}.png", mask=f"masks/{n}.png", root=root)
        for n in names
    )


def listed(root: Path, train: str | bytes) -> Options:
    content = train if isinstance(train, bytes) else train.encode()
    (root / "train.txt").write_bytes(content)
    (root / "val.txt").write_text("".join(f"val/{i}\n" for i in range(3)))
    return {"list_file": "{split}.txt"}


# Values ------------------------------------------------------------------------------------------


@hostile("the mapping lacks label id")
def compression_noise_in_black_and_white(root: Path) -> Options:
    repaint(root, lambda ids: through_jpeg(white(ids)))
    return BLACK_WHITE


@hostile()
def compression_noise_read_with_a_threshold(root: Path) -> Options:
    repaint(root, lambda ids: through_jpeg(white(ids)))
    return {**TWO, "threshold": 128}


@hostile()
def compression_noise_read_with_a_tolerance(root: Path) -> Options:
    repaint(root, lambda ids: through_jpeg(ids * np.uint8(120)))
    return {"mapping": {0: 0, 120: 1, 240: 2}, "tolerance": 59}


@hostile("the mask is a JPEG; expected a lossless format")
def a_jpeg_called_png(root: Path) -> Options:
    Image.fromarray(white(blocks())).save(masks(root)[1], "JPEG")
    return BLACK_WHITE


@hostile("the mask is a JPEG; expected a lossless format")
def masks_as_jpeg_files(root: Path) -> Options:
    for path in masks(root):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    return {}


@hostile()
def masks_as_jpeg_files_read_with_a_threshold(root: Path) -> Options:
    for path in masks(root):
        Image.fromarray(white(np.asarray(Image.open(path)))).save(path.with_suffix(".jpg"))
        path.unlink()
    return {**TWO, "threshold": 128}


@hostile("the mask is a lossy WebP")
def a_lossy_webp_mask(root: Path) -> Options:
    path = masks(root)[0]
    Image.fromarray(white(blocks())).save(path.with_suffix(".webp"), lossless=False)
    path.unlink()
    return BLACK_WHITE


@hostile()
def a_lossless_webp_mask(root: Path) -> Options:
    path = masks(root)[0]
    Image.fromarray(blocks()).save(path.with_suffix(".webp"), lossless=True)
    path.unlink()
    return {}


@hostile("the mask is a JPEG")
def a_tiff_mask_compressed_as_jpeg(root: Path) -> Options:
    path = masks(root)[0]
    Image.fromarray(blocks()).save(path.with_suffix(".tif"), compression="jpeg")
    path.unlink()
    return {}


@hostile("255 has")
def white_with_a_few_ones(root: Path) -> Options:
    def paint(ids: np.ndarray) -> np.ndarray:
        pixels = white(ids)
        pixels[3, 5:9] = 1
        return pixels

    repaint(root, paint)
    return TWO


@hostile("255 occurs but 1 does not")
def white_without_a_mapping(root: Path) -> Options:
    repaint(root, white)
    return TWO


@hostile()
def ones_with_a_rim_of_255(root: Path) -> Options:
    def paint(ids: np.ndarray) -> np.ndarray:
        pixels = (ids == 1).astype(np.uint8)
        pixels[::9] = 255
        return pixels

    repaint(root, paint)
    return TWO


@hostile("the mapping lacks label id")
def edges_smoothed_by_scaling(root: Path) -> Options:
    repaint(root, lambda ids: Image.fromarray(white(ids)).resize((20, 20)).resize(SIZE[::-1]))
    return BLACK_WHITE


@hostile("the mapping lacks label id 1 ")
def one_bit_masks_among_white_ones(root: Path) -> Options:
    repaint(root, white)
    repaint(root, lambda pixels: Image.fromarray(pixels).convert("1"), every=3)
    return BLACK_WHITE


@hostile()
def one_bit_masks_only(root: Path) -> Options:
    repaint(root, lambda ids: Image.fromarray(white(ids)).convert("1"))
    return TWO


@hostile()
def masks_of_two_and_four_bits(root: Path) -> Options:
    for number, path in enumerate(masks(root)):
        path.write_bytes(png(np.asarray(Image.open(path)), 2 + 2 * (number % 2), 0))
    return {}


@hostile()
def masks_of_sixteen_bits(root: Path) -> Options:
    repaint(root, lambda ids: ids.astype(np.uint16) * 1000)
    return {"mapping": {0: 0, 1000: 1, 2000: 2}}


@hostile("26001")
def instance_ids(root: Path) -> Options:
    repaint(root, lambda ids: ids.astype(np.uint16) + np.uint16(26000), every=2)
    return {}


@hostile("the mapping lacks label id 3")
def ids_counted_from_one(root: Path) -> Options:
    repaint(root, lambda ids: ids + np.uint8(1))
    return {}


def _all_ignored(root: Path, split: str) -> Options:
    for path in masks(root):
        if path.parent.name == split:
            Image.fromarray(np.full(SIZE, 255, np.uint8)).save(path)
    return {}


@hostile("train: every pixel is ignored")
def training_masks_that_are_all_ignored(root: Path) -> Options:
    return _all_ignored(root, "train")


@hostile("val: every pixel is ignored")
def evaluation_masks_that_are_all_ignored(root: Path) -> Options:
    return _all_ignored(root, "val")


@hostile()
def some_masks_that_are_all_ignored(root: Path) -> Options:
    repaint(root, lambda ids: np.full_like(ids, 255), every=2)
    return {}


@hostile()
def palettes_with_transparency(root: Path) -> Options:
    for path in masks(root):
        in_palette(np.asarray(Image.open(path))).save(path, transparency=bytes([0, 128, 255]))
    return BY_COLOUR


@hostile("mapping has no id for class 2 (sky)")
def a_class_without_an_id(root: Path) -> Options:
    repaint(root, lambda ids: np.minimum(ids, 1))
    return {"mapping": {0: 0, 1: 1}}


# Colours -----------------------------------------------------------------------------------------


@hostile("the palettes of the masks differ")
def palettes_in_another_order(root: Path) -> Options:
    repaint(root, in_palette)
    repaint(root, lambda ids: in_palette(2 - ids, COLOURS[::-1]), every=2)
    return {}


@hostile("the palettes of the masks differ")
def another_palette_in_each_split(root: Path) -> Options:
    for path in masks(root):
        train = path.parent.name == "train"
        ids = np.asarray(Image.open(path))
        in_palette(ids, COLOURS if train else COLOURS[[0, 2, 1]]).save(path)
    return {}


@hostile("the palettes of the masks differ")
def a_grey_palette_in_another_order_among_grey_masks(root: Path) -> Options:
    grey = np.array([[2] * 3, [1] * 3, [0] * 3], np.uint8)
    in_palette(2 - blocks(), grey).save(masks(root)[2])
    return {}


@hostile()
def palettes_in_another_order_read_by_colour(root: Path) -> Options:
    repaint(root, in_palette)
    repaint(root, lambda ids: in_palette(2 - ids, COLOURS[::-1]), every=2)
    return BY_COLOUR


@hostile()
def one_palette_for_all(root: Path) -> Options:
    repaint(root, in_palette)
    return {}


@hostile("are in colour")
def colours_read_as_ids(root: Path) -> Options:
    repaint(root, lambda ids: COLOURS[ids], every=2)
    return {}


@hostile("expected at most 1024")
def colours_with_compression_noise(root: Path) -> Options:
    noise = np.random.default_rng(0).integers(0, 9, (*SIZE, 3), np.uint8)
    repaint(root, lambda ids: COLOURS[ids] + noise)
    return BY_COLOUR


@hostile()
def colours_with_compression_noise_and_a_tolerance(root: Path) -> Options:
    noise = np.random.default_rng(0).integers(0, 9, (*SIZE, 3), np.uint8)
    repaint(root, lambda ids: COLOURS[ids] + noise)
    return {**BY_COLOUR, "tolerance": 12}


@hostile("the mapping lacks colour #ffffff")
def a_colour_too_many(root: Path) -> Options:
    def paint(ids: np.ndarray) -> np.ndarray:
        pixels = COLOURS[ids]
        pixels[0, 0] = 255
        return pixels

    repaint(root, paint)
    return BY_COLOUR


@hostile("differ in the alpha channel")
def classes_in_the_alpha_channel(root: Path) -> Options:
    def paint(ids: np.ndarray) -> np.ndarray:
        pixels = np.zeros((*SIZE, 4), np.uint8)
        pixels[..., 3] = ids
        return pixels

    repaint(root, paint)
    return BY_COLOUR


@hostile("differ in the alpha channel")
def classes_in_the_alpha_of_grey(root: Path) -> Options:
    repaint(root, lambda ids: np.stack([np.zeros_like(ids), 100 * ids], axis=2))
    return {}


@hostile()
def colours_with_a_transparent_background(root: Path) -> Options:
    def paint(ids: np.ndarray) -> np.ndarray:
        alpha = np.where(ids == 0, 0, 255).astype(np.uint8)
        return np.concatenate([COLOURS[ids], alpha[..., None]], axis=2)

    repaint(root, paint)
    return BY_COLOUR


@hostile()
def grey_in_three_channels(root: Path) -> Options:
    repaint(root, lambda ids: np.repeat(ids[..., None], 3, 2))
    return {}


@hostile("several channels of 16 bits")
def colours_of_sixteen_bits(root: Path) -> Options:
    masks(root)[3].write_bytes(png(COLOURS[blocks()].astype(np.uint16), 16, 2))
    return BY_COLOUR


@hostile("expected colours")
def sixteen_bits_where_colours_are_declared(root: Path) -> Options:
    repaint(root, lambda ids: ids.astype(np.uint16), every=2)
    return BY_COLOUR


@hostile("are in colour")
def a_threshold_for_a_coloured_palette(root: Path) -> Options:
    repaint(root, in_palette)
    return {**TWO, "threshold": 128}


# Files -------------------------------------------------------------------------------------------


@hostile("the mask has 3 pages; expected one")
def a_mask_of_three_pages(root: Path) -> Options:
    path = masks(root)[1]
    pages = [Image.fromarray(blocks(i)) for i in range(3)]
    pages[0].save(path.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    path.unlink()
    return {}


@hostile("the image has 2 pages; expected one")
def an_image_of_two_pages(root: Path) -> Options:
    path = root / "images/train/1.png"
    page = Image.open(path).convert("RGB")
    page.save(path.with_suffix(".tiff"), save_all=True, append_images=[page])
    path.unlink()
    return {}


@hostile("the image has 2 pages; expected one")
def an_animated_image(root: Path) -> Options:
    path = root / "images/val/1.png"
    frames = [Image.fromarray(COLOURS[blocks(i)]) for i in range(2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return {}


@hostile("floating-point values")
def a_mask_of_floats(root: Path) -> Options:
    path = masks(root)[1]
    Image.fromarray(blocks().astype(np.float32)).save(path.with_suffix(".tif"))
    path.unlink()
    return {}


@hostile("label ids range from -1 to 2")
def a_mask_with_negative_ids(root: Path) -> Options:
    path = masks(root)[1]
    ids = blocks().astype(np.int32)
    ids[0, 0] = -1
    Image.fromarray(ids).save(path.with_suffix(".tif"))
    path.unlink()
    return {}


@hostile()
def a_mask_of_whole_numbers_in_32_bits(root: Path) -> Options:
    path = masks(root)[1]
    Image.fromarray(blocks().astype(np.int32)).save(path.with_suffix(".tif"))
    path.unlink()
    return {}


@hostile("the mask is 24x48 (height x width); expected 32x48")
def a_mask_of_another_size(root: Path) -> Options:
    Image.fromarray(blocks()[:24]).save(masks(root)[-1])
    return {}


@hostile("the mask is 48x32 (height x width); expected 32x48")
def a_mask_turned_by_90_degrees(root: Path) -> Options:
    Image.fromarray(np.rot90(blocks()).copy()).save(masks(root)[0])
    return {}


@hostile("cannot read this mask (it is empty)")
def a_mask_of_no_bytes(root: Path) -> Options:
    masks(root)[0].write_bytes(b"")
    return {}


@hostile("cannot read this image (it is empty)")
def an_image_of_no_bytes(root: Path) -> Options:
    (root / "images/val/0.png").write_bytes(b"")
    return {}


@hostile("cannot read this mask")
def a_page_of_html_for_a_mask(root: Path) -> Options:
    masks(root)[0].write_text("<html><body>404 not found</body></html>")
    return {}


@hostile("cannot read this mask")
def a_mask_that_is_cut_off(root: Path) -> Options:
    path = masks(root)[-1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return {}


@hostile("cannot read this mask")
def a_mask_with_a_damaged_byte(root: Path) -> Options:
    path = masks(root)[0]
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 0xFF
    path.write_bytes(bytes(data))
    return {}


@hostile("cannot read this image")
def an_image_that_is_cut_off(root: Path) -> Options:
    path = root / "images/val/2.png"
    path.write_bytes(path.read_bytes()[:-40])
    return {}


@hostile("cannot read this image")
def a_photograph_that_is_cut_off(root: Path) -> Options:
    path = root / "images/train/2.png"
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    Image.fromarray(noise).save(path.with_suffix(".jpg"))
    path.unlink()
    data = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").write_bytes(data[: len(data) // 2])
    return {}


@hostile("cannot read this image")
def a_bitmap_that_is_cut_off(root: Path) -> Options:
    path = root / "images/train/2.png"
    Image.open(path).save(path.with_suffix(".bmp"))
    path.unlink()
    data = path.with_suffix(".bmp").read_bytes()
    path.with_suffix(".bmp").write_bytes(data[: len(data) // 2])
    return {}


@hostile("more than 8 bits per channel")
def an_image_of_sixteen_bits(root: Path) -> Options:
    Image.fromarray(blocks().astype(np.uint16)).save(root / "images/train/0.png")
    return {}


@hostile("cannot read this image")
def a_postscript_program_called_png(root: Path) -> Options:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n{} loop\n%%EOF\n"
    (root / "images/train/0.png").write_bytes(program)
    return {}


@hostile("megapixels; expected at most 179")
def an_image_over_the_limit(root: Path) -> Options:
    (root / "images/train/0.png").write_bytes(_png_of(20_000, 20_000, 8, 2, zlib.compress(b"\0")))
    return {}


@hostile("megapixels; expected at most 179")
def a_mask_over_the_limit(root: Path) -> Options:
    masks(root)[0].write_bytes(_png_of(300_000, 700, 8, 0, zlib.compress(b"\0")))
    return {}


@hostile("cannot read this image")
def an_image_with_an_absurd_size(root: Path) -> Options:
    (root / "images/train/0.png").write_bytes(_png_of(0, 32, 8, 2, zlib.compress(b"\0")))
    return {}


@hostile("the image has an orientation tag and the mask has none")
def a_photograph_with_an_orientation_tag(root: Path) -> Options:
    path = root / "images/train/0.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()
    return {}


@hostile("cannot read this array")
def an_array_of_objects(root: Path) -> Options:
    (root / "images/train/0.png").unlink()
    np.save(root / "images/train/0.npy", np.array([{}], object), allow_pickle=True)
    return {}


@hostile("cannot read this array")
def an_array_that_promises_too_much(root: Path) -> Options:
    (root / "images/train/0.png").unlink()
    path = root / "images/train/0.npy"
    np.save(path, np.zeros((32, 48, 3), np.uint8))
    content = path.read_bytes().replace(b"(32, 48, 3)", b"(9999999999, 48, 3)")
    path.write_bytes(content.replace(b"         \n", b" \n"))
    return {}


# Folders -----------------------------------------------------------------------------------------


@hostile()
def hidden_files_and_folders(root: Path) -> Options:
    for kind in ("images", "masks"):
        for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "."):
            place = root / kind / "train" / folder
            place.mkdir(exist_ok=True)
            shutil.copy(root / "masks/train/0.png", place / "._0.png")
            (place / "Thumbs.db").write_bytes(b"\xd0\xcf")
            (place / ".DS_Store").write_bytes(b"\0\0\0\1")
        shutil.copy(
            root / kind / "train/0.png", root / kind / "train/.ipynb_checkpoints/0-checkpoint.png"
        )
        shutil.copy(root / "masks/train/1.png", root / kind / "train/@eaDir/SYNO_THUMB.png")
    return {}


@hostile()
def a_folder_called_png(root: Path) -> Options:
    (root / "images/train/x.png").mkdir()
    (root / "masks/train/y.png").mkdir()
    return {}


@hostile("1 of 6 images in")
def a_folder_in_place_of_a_mask(root: Path) -> Options:
    masks(root)[0].unlink()
    masks(root)[0].parent.joinpath("0.png").mkdir()
    return {}


@hostile("0.png (a named pipe)")
def a_pipe_in_place_of_an_image(root: Path) -> Options:
    (root / "images/train/0.png").unlink()
    os.mkfifo(root / "images/train/0.png")
    return {}


@hostile("2.png (a named pipe)")
def a_pipe_in_place_of_a_mask(root: Path) -> Options:
    (root / "masks/val/2.png").unlink()
    os.mkfifo(root / "masks/val/2.png")
    return {}


@hostile("0.png (a socket)")
def a_socket_in_place_of_an_image(root: Path) -> Options:
    (root / "images/train/0.png").unlink()
    # Addresses are at most 107 bytes long.
    with tempfile.TemporaryDirectory() as short:
        os.symlink(root, f"{short}/r")
        socket.socket(socket.AF_UNIX).bind(f"{short}/r/images/train/0.png")
    return {}


@hostile("0.png (a link to nothing that can be read)")
def a_broken_link(root: Path) -> Options:
    for kind in ("images", "masks"):
        (root / kind / "train/0.png").unlink()
        os.symlink("/nowhere/0.png", root / kind / "train/0.png")
    return {}


@hostile("0.png (a link to nothing that can be read)")
def a_link_to_itself(root: Path) -> Options:
    (root / "masks/train/0.png").unlink()
    os.symlink("0.png", root / "masks/train/0.png")
    return {}


@hostile("0.png (a link to nothing that can be read)")
def a_link_to_a_device_without_end(root: Path) -> Options:
    (root / "masks/train/0.png").unlink()
    os.symlink("/dev/zero", root / "masks/train/0.png")
    return {}


@hostile()
def links_to_files_elsewhere(root: Path) -> Options:
    (root / "store").mkdir()
    for path in masks(root):
        target = root / "store" / f"{path.parent.name}-{path.name}"
        path.rename(target)
        os.symlink(target, path)
    return {}


@hostile()
def a_folder_that_links_to_its_parent(root: Path) -> Options:
    os.symlink("..", root / "images/train/up")
    os.symlink(".", root / "masks/train/here")
    return {}


@hostile("have the same name")
def two_images_of_one_name(root: Path) -> Options:
    Image.open(root / "images/train/0.png").save(root / "images/train/0.jpg")
    return {}


@hostile("holds no image files")
def an_empty_folder_of_masks(root: Path) -> Options:
    for path in root.glob("masks/val/*"):
        path.unlink()
    return {}


# Lists -------------------------------------------------------------------------------------------


@hostile()
def a_list_with_leading_slashes(root: Path) -> Options:
    return listed(root, lines(root, "/{image} /{mask}"))


@hostile()
def a_list_with_spaces_in_names(root: Path) -> Options:
    for kind in ("images", "masks"):
        (root / kind / "train/0.png").rename(root / kind / "train/my street 0.png")
    text = lines(root).replace("train/0.png", "train/my street 0.png")
    return listed(root, text + "\n")


@hostile()
def a_list_of_names_with_spaces(root: Path) -> Options:
    for kind in ("images", "masks"):
        (root / kind / "train/0.png").rename(root / kind / "train/my street 0.png")
    return listed(root, lines(root, "{name}").replace("train/0", "train/my street 0"))


@hostile()
def a_list_with_trailing_spaces_and_tabs(root: Path) -> Options:
    return listed(root, lines(root, "{image}\t{mask} \t "))


@hostile()
def a_list_with_backslashes(root: Path) -> Options:
    return listed(root, lines(root).replace("/", "\\"))


@hostile()
def a_list_of_names_with_backslashes(root: Path) -> Options:
    return listed(root, lines(root, "{name}").replace("/", "\\"))


@hostile()
def a_list_with_a_byte_order_mark(root: Path) -> Options:
    return listed(root, "\ufeff" + lines(root, end="\r\n"))


@hostile()
def a_list_in_utf_16(root: Path) -> Options:
    return listed(root, lines(root, "{name}", "\r\n").encode("utf-16"))


@hostile()
def a_list_with_comments_and_blank_lines(root: Path) -> Options:
    text = "# the first street\n\n" + lines(root, "{name}  # sharp", "\n\n") + "\n   \n#end\n"
    return listed(root, text)


@hostile()
def a_list_with_the_line_ends_of_an_old_mac(root: Path) -> Options:
    return listed(root, lines(root, end="\r"))


@hostile()
def a_list_of_absolute_paths_inside(root: Path) -> Options:
    return listed(root, lines(root.resolve(), "{root}/{image} {root}/{mask}"))


@hostile()
def a_list_with_dots_that_stay_inside(root: Path) -> Options:
    return listed(root, lines(root, "images/../{image} ./{mask}"))


@hostile("which leads out of")
def a_list_of_absolute_paths_elsewhere(root: Path) -> Options:
    other = good(root.parent / "elsewhere").resolve()
    return listed(root, lines(other, "{root}/{image} {root}/{mask}"))


@hostile("which leads out of")
def a_list_that_climbs_out(root: Path) -> Options:
    good(root.parent / "elsewhere")
    return listed(root, lines(root, "../elsewhere/{image} ../elsewhere/{mask}"))


@hostile("which leads out of")
def a_list_of_names_that_climb_out(root: Path) -> Options:
    return listed(root, lines(root, "../../{name}"))


@hostile("which leads out of")
def a_list_of_another_system(root: Path) -> Options:
    return listed(root, lines(root, r"C:\data\{image} C:\data\{mask}"))


@hostile("a second time")
def a_list_with_a_line_twice(root: Path) -> Options:
    return listed(root, lines(root) + "\nimages/train/2.png masks/train/2.png\n")


@hostile("a second time")
def a_list_with_a_name_in_two_forms(root: Path) -> Options:
    return listed(root, lines(root, "{name}") + "\nimages/train/2.png masks/train/2.png\n")


@hostile("is not a text file")
def a_picture_for_a_list(root: Path) -> Options:
    return listed(root, masks(root)[0].read_bytes())


@hostile("is empty")
def a_list_of_nothing_but_comments(root: Path) -> Options:
    return listed(root, "# nothing yet\n\n  # nor here\n")


@hostile("no such list file")
def a_pipe_for_a_list(root: Path) -> Options:
    options = listed(root, "")
    (root / "train.txt").unlink()
    os.mkfifo(root / "train.txt")
    return options


@hostile("the mask is a named pipe")
def a_list_that_names_a_pipe(root: Path) -> Options:
    (root / "masks/pipe").mkdir()
    os.mkfifo(root / "masks/pipe/0")
    return listed(root, lines(root) + "\nimages/val/0.png masks/pipe/0\n")


# Options -----------------------------------------------------------------------------------------


@hostile("threshold and mapping are both set")
def a_threshold_beside_a_mapping(root: Path) -> Options:
    return {**BLACK_WHITE, "threshold": 128}


@hostile("expected 2 classes")
def a_threshold_for_three_classes(root: Path) -> Options:
    return {"threshold": 128}


@hostile("expected a grey level")
def a_threshold_beyond_white(root: Path) -> Options:
    return {**TWO, "threshold": 256}


@hostile("expected at most 119")
def a_tolerance_that_reaches_the_next_id(root: Path) -> Options:
    return {"mapping": {0: 0, 120: 1, 240: 2}, "tolerance": 120}


@hostile("without a mapping")
def a_tolerance_without_a_mapping(root: Path) -> Options:
    return {"tolerance": 3}
