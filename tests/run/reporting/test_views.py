import base64
import io

import numpy as np
from PIL import Image

from segdistill.run.reporting import views
from tests.run.made_up import PALETTE


def pixels(uri):
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def test_masks_keep_the_palette_exactly_and_ignored_pixels_clear():
    mask = np.array([[0, 10, 255], [3, 3, 200]])
    shown = pixels(views.mask_png(mask, PALETTE))
    assert tuple(shown[0, 1]) == (*PALETTE[10], 255)
    assert tuple(shown[1, 0]) == (*PALETTE[3], 255)
    assert shown[0, 2, 3] == 0


def test_downscaling_a_mask_adds_no_colours():
    mask = np.random.default_rng(0).integers(0, 11, (60, 900))
    shown = pixels(views.mask_png(mask, PALETTE, width=200))
    assert shown.shape == (13, 200, 4)
    assert {tuple(c) for c in shown.reshape(-1, 4)[:, :3]} <= set(PALETTE)


def test_pictures_are_made_smaller_but_never_larger():
    assert pixels(views.png(np.zeros((40, 100, 3), np.uint8), width=50)).shape[:2] == (20, 50)
    assert pixels(views.png(np.zeros((4, 10, 3), np.uint8), width=50)).shape[:2] == (4, 10)


def test_fields_clip_values_and_leave_unknown_ones_transparent():
    shown = pixels(views.field_png(np.array([[np.nan, 0.0, 1.0, 7.0]])))
    assert shown[0, 0, 3] == 0 and (shown[0, 1:, 3] == 255).all()
    assert (shown[0, 2] == shown[0, 3]).all() and (shown[0, 1] != shown[0, 2]).any()


def test_a_matrix_of_many_classes_leaves_the_names_out():
    drawing = views.matrix(
        np.ones((150, 150)), [f"c{i}" for i in range(150)], 1.0, views.SEQUENTIAL
    )
    assert "<text" not in drawing and len(drawing) < 20_000
