"""A second view of each crop, and boxes of other samples."""

import math

import pytest
import torch

from segdistill.data import Augment, Synthetic, build_dataset, training_loader
from segdistill.data.strong import Strong, with_box

AUGMENT = Augment(crop=(32, 48), scale=(1.0, 1.0), photometric=0.2)


NONE = Strong()


def batches(dataset, strong=NONE, **options):
    settings = {"batch": 4, "seed": 1, "start_step": 0, "steps": 6, **options}
    return list(training_loader(dataset, AUGMENT, **settings, strong=strong))


@pytest.fixture(scope="module")
def scenes():
    return Synthetic(count=8, size=(32, 48), seed=2)


def assert_equal(some, others):
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys() and a["name"] == b["name"]
        assert all(torch.equal(a[key], b[key]) for key in a.keys() - {"name"})


def test_the_second_view_has_other_colours_and_the_same_geometry(scenes):
    plain, two = batches(scenes), batches(scenes, Strong(photometric=0.8))
    for batch, other in zip(plain, two, strict=True):
        assert "student" not in batch
        assert torch.equal(batch["image"], other["image"])
        assert torch.equal(batch["label"], other["label"])
        assert not torch.equal(other["image"], other["student"])
        for image, view in zip(other["image"], other["student"], strict=True):
            # Grey to grey: brightness, contrast and saturation keep which of two greys is lighter, but for what
            # is clamped.
            weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
            greys = [(one * weights).sum(0).flatten() for one in (image, view)]
            inside = ((view > 0) & (view < 1)).all(0).flatten()
            assert torch.corrcoef(torch.stack([g[inside] for g in greys]))[0, 1] > 0.999


@pytest.mark.parametrize("strong", [Strong(0.8, 0.0), Strong(0.0, 0.7), Strong(0.5, 1.0)])
def test_views_depend_on_the_seed_only(scenes, strong):
    whole = batches(scenes, strong)
    assert_equal(batches(scenes, strong, start_step=4), whole[4:])
    assert_equal(batches(scenes, strong, workers=2), whole)
    ranks = [batches(scenes, strong, rank=rank, world=2) for rank in range(2)]
    for batch, *shares in zip(whole, *ranks, strict=True):
        for key in batch.keys() - {"name"}:
            assert torch.equal(batch[key], torch.cat([share[key] for share in shares]))
    key = "student" if strong.photometric else "image"
    assert not torch.equal(batches(scenes, strong, seed=3)[0][key], whole[0][key])


def test_a_box_is_another_samples_in_image_and_label(scenes):
    plain, mixed = batches(scenes), batches(scenes, Strong(cutmix=0.5))
    changed = 0
    for batch, other in zip(plain, mixed, strict=True):
        assert batch["name"] == other["name"]
        for i in range(4):
            differs = (batch["image"][i] != other["image"][i]).any(0)
            moved = batch["label"][i] != other["label"][i]
            assert not (moved & ~differs).any()
            if not differs.any():
                continue
            changed += 1
            rows, columns = differs.nonzero().T
            height, width = (int(p.max() - p.min()) + 1 for p in (rows, columns))
            assert height * width <= 0.41 * 32 * 48 + 32 + 48
    # 24 crops, each with probability 1/2: below 5 or above 19 with probability 0.002.
    assert 5 <= changed <= 19


def test_a_box_worked_by_hand():
    """4x6: from row 1 (0.25) to 3, from column 3 (0.5) to 5 (0.5 + 1/3)."""
    image, label = torch.zeros(1, 4, 6), torch.zeros(4, 6).long()
    found, ids = with_box(image, label, image + 1, label + 2, (0.25, 0.5, 0.5, 1 / 3))
    expected = torch.zeros(4, 6)
    expected[1:3, 3:5] = 1
    assert torch.equal(found[0], expected) and torch.equal(ids, 2 * expected.long())
    assert image.sum() == 0 and label.sum() == 0


def test_boxes_have_the_stated_areas_and_lie_inside():
    boxes = [Strong(cutmix=1.0).partner(9, 0, 0, i) for i in range(500)]
    chosen = {which for which, _ in boxes}
    assert chosen == set(range(9))
    areas = []
    for _, (top, left, height, width) in boxes:
        assert top >= 0 and left >= 0 and top + height <= 1 + 1e-9 and left + width <= 1 + 1e-9
        assert 0.29 < height / width < 3.4 or max(height, width) == 1
        areas.append(height * width)
    assert min(areas) > 0.01 and max(areas) <= 0.4 + 1e-9
    assert abs(sum(areas) / len(areas) - 0.21) < 0.02
    drawn = [Strong(cutmix=0.3).partner(9, 0, 0, i) is not None for i in range(2000)]
    assert math.isclose(sum(drawn) / 2000, 0.3, abs_tol=0.04)


def test_labelled_images_get_boxes_of_labelled_ones():
    mixed = build_dataset("synthetic", count=8, size=(32, 48), labelled=3)
    for batch in batches(mixed, Strong(cutmix=1.0), labelled=2):
        valid = (batch["label"] != 255).flatten(1)
        assert valid.any(1).tolist() == batch["labelled"].tolist()
        # Scenes label every pixel, so none is lost to a box.
        assert valid[batch["labelled"]].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photometric": 1.0}, r"strong_photometric is 1\.0; expected a number in \[0, 1\)"),
        ({"cutmix": 1.5}, r"cutmix is 1\.5; expected a probability in \[0, 1\]"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Strong(**options)
