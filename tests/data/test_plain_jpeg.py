"""Plain JPEG files have the pixels that Pillow decodes, and all others are left to it."""

import random
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segdistill.data import files
from segdistill.data.files import read_image, read_with_geometry
from segdistill.data.reading import plain_jpeg
from segdistill.data.reading.plain import plain_pixels

pytest.importorskip("imagecodecs")
SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


def _drawn(width: int = 37, height: int = 29, seed: int = 0) -> Image.Image:
    steps = np.random.default_rng(seed).integers(0, 9, (height, width, 3)).cumsum(0).cumsum(1)
    return Image.fromarray((steps % 256).astype(np.uint8))


def _jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def _plain(content: bytes) -> torch.Tensor | None:
    with Image.open(BytesIO(content)) as image:
        return plain_pixels(image, "RGB")


def _by_pillow(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content)) as image:
        return np.array(image)


def _tagged(tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


@given(
    st.integers(1, 70),
    st.integers(1, 40),
    st.integers(1, 100),
    st.sampled_from(SAMPLINGS),
    st.sampled_from([0, 1, 3]),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_drawn_images_have_the_pixels_of_pillow(
    width: int, height: int, quality: int, sampling: str, restart: int, optimize: bool, seed: int
) -> None:
    content = _jpeg(
        _drawn(width, height, seed),
        quality=quality,
        subsampling=sampling,
        restart_marker_blocks=restart,
        optimize=optimize,
    )
    pixels = _plain(content)
    assert pixels is not None and np.array_equal(pixels, _by_pillow(content))


def test_photographs_of_data_sets_have_the_pixels_of_pillow(real_data: Path) -> None:
    found = [path.read_bytes() for path in (real_data / "samples").rglob("*.jpg")]
    read = [(pixels, content) for content in found if (pixels := _plain(content)) is not None]
    assert len(read) == len(found) > 5
    assert all(np.array_equal(pixels, _by_pillow(content)) for pixels, content in read)


def test_comments_profiles_and_an_upright_tag_do_not_matter() -> None:
    plain = _jpeg(_drawn(), comment=b"a camera", icc_profile=b"x" * 200, dpi=(72, 72))
    without_orientation = Image.Exif()
    without_orientation[0x010F] = "a maker"
    for content in (
        plain,
        *(_jpeg(_drawn(), exif=exif) for exif in (without_orientation, _tagged(1))),
    ):
        pixels = _plain(content)
        assert pixels is not None and np.array_equal(pixels, _by_pillow(content))


@pytest.mark.parametrize("tag", [None, 1])
def test_the_tag_of_an_upright_photograph_is_known(tag: int | None, tmp_path: Path) -> None:
    """A mask is asked whether it has the same."""
    (tmp_path / "photo.jpg").write_bytes(
        _jpeg(_drawn(), exif=_tagged(tag) if tag else Image.Exif())
    )
    assert read_with_geometry(tmp_path / "photo.jpg")[1].tag == tag


def test_a_picture_that_was_looked_at_can_still_be_decoded_by_pillow() -> None:
    with Image.open(BytesIO(_jpeg(_drawn()))) as image:
        assert plain_pixels(image, "RGB") is not None
        assert np.array_equal(np.array(image), _by_pillow(_jpeg(_drawn())))


def _numbered(content: bytes, number: int) -> bytes:
    """The last channel under another number, in the frame and in the scan."""
    frame, scan = content.index(b"\xff\xc0") + 16, content.index(b"\xff\xda") + 9
    changed = bytearray(content)
    assert changed[frame] == changed[scan] == 3
    changed[frame] = changed[scan] = number
    return bytes(changed)


def _sampled(content: bytes, sampling: int) -> bytes:
    """The first channel at another sampling."""
    at = content.index(b"\xff\xc0") + 11
    return content[:at] + bytes([sampling]) + content[at + 1 :]


def _sized(content: bytes, width: int, height: int) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[at + 4 :]


LEFT_TO_PILLOW = {
    "turned": _jpeg(_drawn(), exif=_tagged(6)),
    "progressive": _jpeg(_drawn(), progressive=True),
    "grey": _jpeg(_drawn().convert("L")),
    "CMYK": _jpeg(_drawn().convert("CMYK")),
    "Adobe's RGB": _jpeg(_drawn(), keep_rgb=True),
    "other channel numbers": _numbered(_jpeg(_drawn()), 82),
    "4:4:0": _sampled(_jpeg(_drawn()), 0x12),
    "4:1:1": _sampled(_jpeg(_drawn()), 0x41),
    "wider than Pillow's library takes": _sized(_jpeg(_drawn(3, 8)), 65501, 8),
    "two ends": _jpeg(_drawn()) + b"\xff\xd9",
    "trailing bytes": _jpeg(_drawn()) + b"more",
    "no end": _jpeg(_drawn())[:-2],
    "half of it": _jpeg(_drawn())[:600],
    "no pixels": _jpeg(_drawn())[: _jpeg(_drawn()).index(b"\xff\xda")] + b"\xff\xd9",
    "the size of another": _jpeg(_drawn()).replace(b"\0\x1d\0\x25", b"\0\0\0\x25"),
}


@pytest.mark.parametrize("kind", LEFT_TO_PILLOW)
def test_what_is_not_plain_is_left_to_pillow(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(LEFT_TO_PILLOW[kind])
    called: list[int] = []
    result = _result(path, fast=True, monkeypatch=monkeypatch, called=called)
    assert not called and result == _result(path, fast=False, monkeypatch=monkeypatch)


def _result(
    path: Path, *, fast: bool, monkeypatch: pytest.MonkeyPatch, called: list[int] | None = None
) -> str:
    """What reading a file gives, or says, with the faster decoder or without it."""

    def tried(image: Image.Image, mode: str) -> torch.Tensor | None:
        pixels = plain_pixels(image, mode) if fast else None
        if pixels is not None and called is not None:
            called.append(1)
        return pixels

    with monkeypatch.context() as patched:
        patched.setattr(files, "plain_pixels", tried)
        try:
            pixels = read_image(path)
            return f"{pixels.shape} {pixels.stride()} {pixels.tolist()}"
        except (ValueError, OSError) as error:
            return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_cut_off_and_changed_files_give_what_pillow_gives(
    sampling: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    content, path = _jpeg(_drawn(19, 13), subsampling=sampling), tmp_path / "picture.jpg"
    chance = random.Random(0)
    changed = [content[:length] for length in range(3, len(content), 7)]
    changed += [content[:at] + content[at + 1 :] for at in range(0, len(content), 5)]
    for at in range(len(content)):
        changed.append(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
    for _ in range(100):
        at, length = chance.randrange(20, len(content)), chance.randrange(1, 30)
        changed.append(content[:at] + chance.randbytes(length) + content[at + length :])
    called: list[int] = []
    for damaged in changed:
        path.write_bytes(damaged)
        found = _result(path, fast=True, monkeypatch=monkeypatch, called=called)
        assert found == _result(path, fast=False, monkeypatch=monkeypatch)
    assert len(called) > 100  # most damage is in the pixels, and is no error to either
    assert not capfd.readouterr().err


def test_a_decoder_of_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another library may smooth colours otherwise."""
    import imagecodecs

    own = imagecodecs.jpeg8_decode

    def other(content: bytes) -> np.ndarray:
        pixels = own(content).copy()
        pixels[-1, -1, 0] ^= 1
        return pixels

    def failing(content: bytes) -> np.ndarray:
        raise ImportError("built without libjpeg")

    find = plain_jpeg.jpeg_decoder.__wrapped__
    assert find() is own
    for decoder in (other, failing):
        monkeypatch.setattr(imagecodecs, "jpeg8_decode", decoder)
        assert find() is None
