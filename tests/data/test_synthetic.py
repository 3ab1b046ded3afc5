"""Generated scenes: reproducible, disjoint, balanced, and hard in the documented ways."""

import random

import numpy as np
import pytest
import torch

from segdistill.data.synthetic.dataset import Synthetic
from segdistill.data.synthetic.dice import Dice
from segdistill.data.synthetic.paints import CLASSES, paint
from tests.scenes import draw


@pytest.fixture(scope="module", autouse=True)
def drawn_each_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Synthetic, "load", draw)
        yield


@pytest.fixture(scope="module")
def scenes():
    dataset = Synthetic(count=120, seed=3)
    images, labels = zip(*(dataset.read(i) for i in range(len(dataset))), strict=True)
    return dataset, torch.stack(images), torch.stack(labels)


def test_a_scene_depends_only_on_seed_split_and_index():
    long, short = Synthetic(count=8), Synthetic(count=5)
    for index in (4, 0):
        for a, b in zip(long.read(index), short.read(index), strict=True):
            assert torch.equal(a, b)
    others = [Synthetic(count=5, seed=1), Synthetic(split="val", count=5)]
    for other in others:
        assert not torch.equal(other.read(4)[0], short.read(4)[0])
    assert not torch.equal(short.read(3)[0], short.read(4)[0])


# The type checker draws from the global generator which item of a list it looks at.
@pytest.mark.usefixtures("unchecked")
def test_global_generators_are_not_advanced():
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    Synthetic(count=2, seed=9).read(1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_every_class_occurs_in_most_scenes(scenes):
    dataset, _, labels = scenes
    for number, name in enumerate(dataset.classes):
        present = (labels == number).flatten(1).any(1).float().mean()
        assert present > 0.7, f"{name} occurs in {present:.0%} of the scenes"
        share = (labels == number).float().mean()
        assert 0.005 < share < 0.5, f"{name} covers {share:.1%}"


def test_classes_differ_in_position(scenes):
    dataset, _, labels = scenes
    rows = torch.arange(labels.shape[1])[None, :, None].expand_as(labels).float()
    mean = {name: rows[labels == i].mean() for i, name in enumerate(dataset.classes)}
    assert mean["sky"] < mean["building"] < mean["road"]
    assert mean["sign"] < mean["car"] and mean["pole"] < mean["pavement"]


def test_road_and_pavement_have_similar_colours(scenes):
    dataset, images, labels = scenes
    colours = images.permute(0, 2, 3, 1).float()
    road, pavement = (colours[labels == dataset.classes.index(n)] for n in ("road", "pavement"))
    apart = (road.mean(0) - pavement.mean(0)).abs().max()
    assert apart < 0.5 * road.std(0).min(), "the two differ by their mean colour"


def test_some_scenes_have_an_ignored_bonnet(scenes):
    _, _, labels = scenes
    ignored = (labels == 255).flatten(1).any(1).float().mean()
    assert 0.1 < ignored < 0.5
    assert not (labels[:, :48] == 255).any()


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (192, 256)])
def test_any_size_works(size):
    image, label = Synthetic(count=1, size=size).read(0)
    assert image.shape == (3, *size) and label.shape == size


def test_a_larger_picture_shows_the_same_scene():
    small = Synthetic(count=4, size=(96, 128))
    large = Synthetic(count=4, size=(192, 256))
    for index in range(4):
        a, b = small.read(index)[1], large.read(index)[1][::2, ::2]
        assert (a == b).float().mean() > 0.9


def test_invalid_options_are_refused():
    with pytest.raises(ValueError, match=r"size is \[16, 128\]; expected \[height, width\], 32"):
        Synthetic(size=(16, 128))
    with pytest.raises(ValueError, match="count is 0"):
        Synthetic(count=0)


def test_dice_are_fair_and_within_bounds():
    dice = Dice(torch.Generator().manual_seed(0))
    numbers = [dice.number(2, 4) for _ in range(3000)]
    assert [round(numbers.count(n) / 3000, 1) for n in (1, 2, 3, 4, 5)] == [0, 0.3, 0.3, 0.3, 0]
    values = [dice.uniform(-1, 3) for _ in range(3000)]
    assert -1 <= min(values) < -0.98 and 2.98 < max(values) <= 3
    assert all(0 <= c <= 255 for label in range(len(CLASSES)) for c in paint(dice, label))
