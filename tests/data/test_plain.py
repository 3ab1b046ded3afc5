"""Plain PNG files have the pixels that Pillow decodes, and all others are left to it."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segdistill.data import files
from segdistill.data.files import open_mask, read_image
from segdistill.data.reading import plain
from segdistill.data.reading.plain import plain_pixels

pytest.importorskip("imagecodecs")
MODES = ("L", "RGB")


def _drawn(mode: str, width: int = 7, height: int = 5, seed: int = 0) -> Image.Image:
    shape = (height, width, len(mode)) if mode != "L" else (height, width)
    steps = np.random.default_rng(seed).integers(0, 9, shape).cumsum(0).cumsum(1)
    return Image.fromarray((steps % 256).astype(np.uint8))


def _png(image: Image.Image, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def _chunk(kind: bytes, content: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _with_chunk(content: bytes, chunk: bytes, before: bytes = b"IDAT") -> bytes:
    at = content.index(before) - 4
    return content[:at] + chunk + content[at:]


def _with_pixels(content: bytes, stream: bytes) -> bytes:
    return content[:33] + _chunk(b"IDAT", stream) + _chunk(b"IEND")


def _plain(content: bytes) -> torch.Tensor | None:
    with Image.open(BytesIO(content)) as image:
        return plain_pixels(image, image.mode if image.mode in MODES else "RGB")


def _results(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reading a file as image and as mask gives, or says, with and without the faster decoder."""
    found = []
    for decoder in (plain_pixels, lambda image, mode: None):
        monkeypatch.setattr(files, "plain_pixels", decoder)
        for read in (read_image, lambda file: torch.from_numpy(open_mask(file).colours())):
            try:
                pixels = read(path)
                found.append(f"{pixels.shape} {pixels.stride()} {pixels.tolist()}")
            except (ValueError, OSError) as error:
                found.append(f"{type(error).__name__}: {error}")
    monkeypatch.undo()
    return found


@given(
    st.sampled_from(MODES),
    st.integers(1, 70),
    st.integers(1, 40),
    st.integers(0, 9),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_drawn_images_have_the_pixels_of_pillow(
    mode: str, width: int, height: int, level: int, seed: int
) -> None:
    image = _drawn(mode, width, height, seed)
    pixels = _plain(_png(image, compress_level=level))
    assert pixels is not None
    assert np.array_equal(pixels.squeeze(-1) if mode == "L" else pixels, np.array(image))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", range(5))
def test_every_filter_of_a_row_has_the_pixels_of_pillow(mode: str, number: int) -> None:
    rows = np.random.default_rng(1).integers(0, 256, (5, 1 + 7 * len(mode)), np.uint8)
    rows[:, 0] = number
    rows = rows[:, : 1 + 7 * (1 if mode == "L" else 3)]
    content = _with_pixels(_png(_drawn(mode)), zlib.compress(rows.tobytes()))
    pixels = _plain(content)
    assert pixels is not None
    expected = np.array(Image.open(BytesIO(content)))
    assert np.array_equal(pixels.numpy().reshape(expected.shape), expected)


def test_frames_of_cityscapes_are_plain_and_have_the_pixels_of_pillow(real_data: Path) -> None:
    found = [*(real_data / "samples").glob("cityscapes/*/val/*/*8bit.png")]
    found += (real_data / "samples").glob("cityscapes/*/val/*/*labelIds.png")
    assert len(found) == 2
    for path in found:
        with Image.open(path) as image:
            pixels = plain_pixels(image, image.mode)
            assert pixels is not None
            expected = np.array(image)
        assert np.array_equal(pixels.numpy().reshape(expected.shape), expected)


def test_a_picture_that_was_looked_at_can_still_be_decoded_by_pillow() -> None:
    with Image.open(BytesIO(_png(_drawn("RGB")))) as image:
        assert plain_pixels(image, "RGB") is not None
        assert np.array_equal(np.array(image), np.array(_drawn("RGB")))


def test_comments_and_colour_spaces_do_not_matter() -> None:
    info = PngInfo()
    info.add_text("Software", "a camera")
    content = _png(_drawn("RGB"), pnginfo=info, dpi=(72, 72))
    content = _with_chunk(content, _chunk(b"gAMA", struct.pack(">I", 20000)))
    pixels = _plain(_with_chunk(content, _chunk(b"tEXt", b"Comment\0x"), b"IEND"))
    assert pixels is not None and np.array_equal(pixels, np.array(_drawn("RGB")))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


_XMP = b'XML:com.adobe.xmp\0<x tiff:Orientation="6"/>'
LEFT_TO_PILLOW = {
    "exif": _png(_drawn("RGB"), exif=_exif()),
    "xmp": _with_chunk(_png(_drawn("RGB")), _chunk(b"tEXt", _XMP)),
    "exif as text": _with_chunk(
        _png(_drawn("RGB")), _chunk(b"tEXt", b"exif\0" + _exif().tobytes())
    ),
    "xmp behind the pixels": _with_chunk(_png(_drawn("RGB")), _chunk(b"tEXt", _XMP), b"IEND"),
    "compressed text": _with_chunk(
        _png(_drawn("RGB")), _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b"))
    ),
    "profile": _png(_drawn("RGB"), icc_profile=b"x" * 200),
    "transparent grey": _png(_drawn("L"), transparency=3),
    "transparent colour": _png(_drawn("RGB"), transparency=(1, 2, 3)),
    "palette": _png(_drawn("L").convert("P")),
    "suggested palette": _with_chunk(_png(_drawn("RGB")), _chunk(b"PLTE", bytes(6))),
    "alpha": _png(_drawn("RGB").convert("RGBA")),
    "grey and alpha": _png(_drawn("L").convert("LA")),
    "one bit": _png(_drawn("L").convert("1")),
    "16 bits": _png(Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000)),
    "unknown chunk": _with_chunk(_png(_drawn("L")), _chunk(b"prVt")),
    "much text": _with_chunk(_png(_drawn("L")), _chunk(b"tEXt", b"a\0" + bytes(2**20))),
    "two headers": _with_chunk(_png(_drawn("L")), _png(_drawn("L"))[8:33]),
    "pixels in two places": _with_chunk(
        _with_chunk(_png(_drawn("L")), _chunk(b"tIME", bytes(7)), b"IEND"), _chunk(b"IDAT"), b"IEND"
    ),
    "trailing bytes": _png(_drawn("L")) + b"more",
    "no end": _png(_drawn("RGB"))[:-12],
    "WebP": (lambda s: (_drawn("RGB").save(s, "WEBP"), s.getvalue())[1])(BytesIO()),
    "animation": _png(_drawn("RGB"), save_all=True, append_images=[_drawn("RGB", seed=1)]),
}


@pytest.mark.parametrize("kind", LEFT_TO_PILLOW)
def test_what_is_not_plain_is_left_to_pillow(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _plain(LEFT_TO_PILLOW[kind]) is None
    path = tmp_path / "picture.png"
    path.write_bytes(LEFT_TO_PILLOW[kind])
    image, mask, *pillow = _results(path, monkeypatch)
    assert [image, mask] == pillow


def _rows(mode: str = "RGB", filtered: int = 0, rows: int = 5) -> bytes:
    row = bytes([filtered, *range(7 * len(mode))])
    return row * rows


STREAMS = {
    "too short": zlib.compress(_rows(rows=4)),
    "too long": zlib.compress(_rows(rows=9)),
    "an unknown filter": zlib.compress(_rows(filtered=7)),
    "a wrong checksum": zlib.compress(_rows())[:-1] + b"\0",
    "no checksum": zlib.compress(_rows())[:-4],
    "cut off": zlib.compress(np.random.default_rng(0).bytes(110))[:60],
    "not compressed": bytes(60),
    "a preset dictionary": b"\x78\xbb" + bytes(60),
    "a larger window": b"\x88\x1c" + zlib.compress(_rows())[2:],
    "nothing": b"",
    "more behind it": zlib.compress(_rows()) + b"more",
}


@pytest.mark.parametrize("kind", STREAMS)
def test_damaged_pixels_give_what_pillow_gives(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(_with_pixels(_png(_drawn("RGB")), STREAMS[kind]))
    image, mask, *pillow = _results(path, monkeypatch)
    assert [image, mask] == pillow


@pytest.mark.parametrize("mode", MODES)
def test_cut_off_and_changed_files_give_what_pillow_gives(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content, path = _png(_drawn(mode)), tmp_path / "picture.png"
    changed = [content[:length] for length in range(1, len(content))]
    for at in range(len(content)):
        changed.append(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
    for damaged in changed:
        path.write_bytes(damaged)
        image, mask, *pillow = _results(path, monkeypatch)
        assert [image, mask] == pillow
    assert not capfd.readouterr().err


def test_a_file_that_is_larger_than_its_pixels_is_not_read() -> None:
    read: list[int] = []

    class Counting(BytesIO):
        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            read.append(-1 if size is None else size)
            return super().read(size)

    with Image.open(Counting(_png(_drawn("L")) + bytes(2**22))) as image:
        read.clear()
        assert plain_pixels(image, "L") is None
    assert not read


def test_without_the_decoder_pillow_reads_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _drawn("RGB").save(tmp_path / "picture.png")
    monkeypatch.setattr(plain, "_decoder", lambda: None)
    assert np.array_equal(read_image(tmp_path / "picture.png").permute(1, 2, 0), _drawn("RGB"))


def test_what_the_decoder_cannot_read_pillow_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(content: bytearray) -> np.ndarray:
        raise RuntimeError("png_decode returned an error")

    _drawn("RGB").save(tmp_path / "picture.png")
    for decoder in (failing, lambda content: np.zeros((2, 2), np.uint8)):
        monkeypatch.setattr(plain, "_decoder", lambda decoder=decoder: decoder)
        assert np.array_equal(read_image(tmp_path / "picture.png").permute(1, 2, 0), _drawn("RGB"))
