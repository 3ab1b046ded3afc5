"""The order of training: it depends only on the seed, not on processes or the first step."""

import random
import threading
import time

import numpy as np
import pytest
import torch

from segdistill.data import Augment, Synthetic, build_dataset, evaluation_loader, training_loader
from segdistill.data import loader as loaders
from segdistill.data.order import epoch_order

AUGMENT = Augment(crop=(32, 32), scale=(0.5, 1.5), photometric=0.2)


@pytest.fixture(scope="module")
def scenes():
    return Synthetic(count=10, size=(32, 48), seed=2)


def batches(dataset, **options):
    settings = {"batch": 4, "seed": 1, "start_step": 0, "steps": 7, **options}
    return list(training_loader(dataset, AUGMENT, **settings))


def assert_equal(some, others):
    assert len(some) == len(others)
    for a, b in zip(some, others, strict=True):
        assert a["name"] == b["name"]
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])


def joined(parts):
    """Batches of all processes, joined step by step."""
    return [
        {
            "image": torch.cat([p["image"] for p in step]),
            "label": torch.cat([p["label"] for p in step]),
            "name": [name for p in step for name in p["name"]],
        }
        for step in zip(*parts, strict=True)
    ]


def test_batches_have_the_documented_form(scenes):
    batch = batches(scenes)[0]
    assert batch["image"].shape == (4, 3, 32, 32) and batch["image"].dtype == torch.float32
    assert batch["label"].shape == (4, 32, 32) and batch["label"].dtype == torch.int64
    assert len(batch["name"]) == 4


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_see_the_stream_of_one(scenes, world):
    parts = [batches(scenes, rank=rank, world=world) for rank in range(world)]
    assert_equal(joined(parts), batches(scenes))


def test_a_late_start_sees_the_tail(scenes):
    assert_equal(batches(scenes, start_step=5), batches(scenes)[5:])
    assert batches(scenes, start_step=7) == []


def test_starting_after_a_million_epochs_costs_one_permutation(scenes):
    start = 2_500_000
    batch = next(training_loader(scenes, AUGMENT, 4, 1, start, start + 1))
    # Step 2,500,000 of batch 4 begins at sample 10,000,000: the first of epoch 1,000,000.
    expected = [scenes.names[i] for i in epoch_order(10, 1, 1_000_000)[:4]]
    assert batch["name"] == expected


def test_worker_processes_change_nothing(scenes):
    assert_equal(batches(scenes, workers=2), batches(scenes))


def test_each_epoch_holds_every_sample_once_and_batches_cross_its_end(scenes):
    names = [name for batch in batches(scenes, steps=10) for name in batch["name"]]
    epochs = [names[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == scenes.names for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_seed_and_epoch_change_the_augmentation(scenes):
    one = Synthetic(count=1, size=(32, 48))
    images = [b["image"] for b in batches(one, batch=1, steps=3)]
    images += [b["image"] for b in batches(one, batch=1, steps=3, seed=9)]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


# The type checker draws from the global generator which item of a list it looks at.
@pytest.mark.usefixtures("unchecked")
def test_global_generators_are_not_advanced(scenes):
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    batches(scenes)
    batches(scenes, workers=1, steps=2)
    list(evaluation_loader(scenes))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_batches_do_not_depend_on_global_generators(scenes):
    torch.manual_seed(0)
    first = batches(scenes)
    torch.manual_seed(1)
    assert_equal(first, batches(scenes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 6, "world": 4}, "batch is 6; expected a positive multiple of 4, .* such as 4"),
        ({"batch": 0}, "batch is 0"),
        ({"rank": 2, "world": 2}, r"rank is 2; expected 0\.\.1 for 2 processes"),
        ({"start_step": 8}, r"start_step is 8; expected 0\.\.7"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_inconsistent_numbers_are_refused_at_once(scenes, options, message):
    settings = {"batch": 4, "seed": 1, "start_step": 0, "steps": 7, **options}
    with pytest.raises(ValueError, match=message):
        training_loader(scenes, AUGMENT, **settings)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_reported_in_one_line(camvid_tree, workers):
    path = camvid_tree / "train" / "labels" / "0001TP_0001.png"
    path.write_bytes(path.read_bytes()[:50])
    dataset = build_dataset("camvid", camvid_tree)
    with pytest.raises(ValueError) as error:
        batches(dataset, batch=2, workers=workers)
    text = str(error.value)
    assert text.startswith(f"{path}: cannot read this mask") and "\n" not in text
    # The trace is kept for --debug.
    assert "Traceback" in error.value.__notes__[0]


class Custom(torch.utils.data.Dataset):
    """A user's data set of the given items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def pair(label=0, image=None):
    image = torch.rand(3, 32, 32) if image is None else image
    return image, torch.full((32, 32), label, dtype=torch.int64)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_user_code_keeps_its_message(workers):
    for error, kind in ((KeyError("no such thing"), RuntimeError), (OSError("disk"), OSError)):
        with pytest.raises(kind, match=r"no such thing|disk"):
            batches(Custom(pair(), error), batch=2, workers=workers)


def test_custom_data_sets_may_return_pairs_or_dicts():
    image, label = pair(1)
    for item in (
        (image, label),
        {"image": image, "label": label},
        {"image": (image * 255).byte(), "label": label.byte(), "name": "x"},
        (image.double().numpy(), label.numpy().astype(np.uint16)),
    ):
        batch = batches(Custom(item), batch=1, steps=1)[0]
        assert batch["image"].dtype == torch.float32 and batch["image"].max() <= 1
        assert set(batch["label"].unique().tolist()) <= {1, 255}
        assert batch["name"] == (["x"] if isinstance(item, dict) and "name" in item else ["0"])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (pair(7), r"sample 0: label id is 7; expected 0\.\.4, or 255"),
        (pair(-1), r"sample 0: label id is -1; expected 0\.\.4"),
        (pair(image=torch.rand(3, 32, 32) * 255), r"from 0.* to 25.*Divide it by 255"),
        (pair(image=torch.rand(3, 32, 32) * 255 - 128), "Add what was subtracted, and divide"),
        (pair(image=torch.zeros(3, 32, 32, dtype=torch.uint16)), r"image\.float\(\) / 65535"),
        (pair(image=torch.zeros(3, 32, 32).to_sparse()), "image is sparse; expected a dense"),
        (pair(image=torch.zeros(3, 30, 32)), "image is 3x30x32 and label 32x32"),
        (pair(image=torch.zeros(3, 32, 32, dtype=torch.int64)), "image is torch.int64"),
        ((torch.rand(3, 32, 32), torch.zeros(32, 32)), "label is torch.float32"),
        ({"image": torch.rand(3, 32, 32), "mask": 0}, "no 'label' among image, mask"),
        (torch.rand(3, 32, 32), "sample 0 is a Tensor; expected {'image', 'label'}"),
        (("path.png", torch.zeros(32, 32).long()), "image is a str; expected a tensor"),
    ],
)
def test_bad_samples_are_named(item, message):
    with pytest.raises(ValueError, match=message):
        batches(Custom(item), batch=1, steps=1, num_classes=5)


def test_data_sets_without_length_or_samples_are_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(ValueError, match="is a Stream, which has no __len__"):
        batches(Stream())
    with pytest.raises(ValueError, match="empty"):
        batches(Custom())


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_sees_every_image_once(scenes, workers):
    parts = [
        [b["name"][0] for b in evaluation_loader(scenes, rank=r, world=3, workers=workers)]
        for r in range(3)
    ]
    assert sorted(name for part in parts for name in part) == scenes.names
    assert parts[1] == scenes.names[1::3]


def test_evaluation_yields_images_and_labels_unchanged(scenes):
    native = next(evaluation_loader(scenes))
    assert torch.equal(native["image"][0], scenes[0]["image"])
    assert torch.equal(native["label"][0], scenes[0]["label"])


def test_more_processes_than_images(scenes):
    few = Synthetic(count=1, size=(32, 48))
    assert len(list(evaluation_loader(few, rank=0, world=2))) == 1
    assert list(evaluation_loader(few, rank=1, world=2)) == []


class _Photographs:
    labelled = False

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {"image": torch.full((3, 8, 8), index / 2)}


def test_an_unlabelled_data_set_may_leave_out_labels():
    (batch,) = training_loader(_Photographs(), Augment((8, 8)), 2, seed=0, start_step=0, steps=1)
    assert batch["label"].shape == (2, 8, 8) and (batch["label"] == 255).all()
    assert [one["name"] for one in evaluation_loader(_Photographs())] == [["0"], ["1"]]
    labelled = _Photographs()
    labelled.labelled = True
    with pytest.raises(ValueError, match="sample 0 has no 'label'"):
        next(iter(evaluation_loader(labelled)))


@pytest.fixture(scope="module")
def mixed():
    """Ten scenes, three of them with labels."""
    return build_dataset("synthetic", count=10, size=(32, 48), labelled=3)


def test_each_batch_holds_the_stated_number_of_labelled_images(mixed):
    chosen = {name for name, flag in zip(mixed.names, mixed.labelled_samples, strict=True) if flag}
    seen = {True: [], False: []}
    for batch in batches(mixed, labelled=2, steps=12):
        flags = batch["labelled"].tolist()
        assert flags == [False, True, False, True]
        assert flags == [name in chosen for name in batch["name"]]
        valid = (batch["label"] != 255).flatten(1).any(1)
        assert valid.tolist() == flags
        for name, flag in zip(batch["name"], flags, strict=True):
            seen[flag].append(name)
    # 24 visits of each kind: eight epochs of the three labelled scenes, three of the seven others.
    assert all(set(seen[True][i : i + 3]) == chosen for i in range(0, 24, 3))
    assert all(len(set(seen[False][i : i + 7])) == 7 for i in range(0, 21, 7))


@pytest.mark.parametrize("labelled", [1, 3])
def test_the_mix_depends_neither_on_processes_nor_on_the_first_step(mixed, labelled):
    whole = batches(mixed, labelled=labelled)
    assert_equal(batches(mixed, labelled=labelled, start_step=4), whole[4:])
    assert_equal(batches(mixed, labelled=labelled, workers=2), whole)
    parts = [batches(mixed, labelled=labelled, rank=rank, world=2) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert batch["name"] == [name for share in shares for name in share["name"]]
        assert max(int(s["labelled"].sum()) for s in shares) - labelled // 2 <= 1
    assert [b["name"] for b in batches(mixed, labelled=labelled, seed=5)] != [
        b["name"] for b in whole
    ]


def test_all_places_may_be_labelled_or_none(mixed):
    assert all(bool(b["labelled"].all()) for b in batches(mixed, labelled=4))
    assert not any(bool(b["labelled"].any()) for b in batches(mixed, labelled=0))
    # Without a number they come in one order, as they did.
    plain = Synthetic(count=10, size=(32, 48))
    assert [b["name"] for b in batches(mixed)] == [b["name"] for b in batches(plain)]


@pytest.mark.parametrize(
    ("labelled", "message"),
    [
        (5, r"labelled is 5; expected 0\.\.4, the images of a batch"),
        (-1, "labelled is -1"),
        (2, "labelled is 2 of 4, and 10 of 10 samples have labels"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(scenes, labelled, message):
    with pytest.raises(ValueError, match=message):
        batches(scenes, labelled=labelled)


class _SomeAlbums(_Photographs):
    labelled = True
    labelled_samples = (True, False)

    def __getitem__(self, index):
        image = torch.full((3, 8, 8), index / 2)
        return (image,) if index else (image, torch.ones(8, 8).long())


def test_samples_of_your_own_may_leave_out_labels_one_by_one():
    (batch,) = training_loader(_SomeAlbums(), Augment((8, 8)), 2, 0, 0, 1, labelled=1)
    assert batch["labelled"].tolist() == [False, True]
    assert batch["label"].flatten(1).unique(dim=1).tolist() == [[255], [1]]


def files_of(camvid_tree, **options):
    return build_dataset("camvid", camvid_tree, "train", **options)


def threads():
    return [one for one in threading.enumerate() if one.name.startswith("segdistill-loader")]


def settled(count):
    """Whether so many threads of loaders are left, after a moment."""
    end = time.monotonic() + 5
    while len(threads()) != count and time.monotonic() < end:
        time.sleep(0.01)
    return len(threads()) == count


def test_a_thread_changes_nothing(camvid_tree, monkeypatch):
    pairs = files_of(camvid_tree)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    ahead = batches(pairs, batch=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(batches(pairs, batch=2, start_step=4), ahead[4:])
    monkeypatch.setattr(loaders, "_runs_in_any_thread", lambda dataset: False)
    assert_equal(batches(pairs, batch=2), ahead)
    assert settled(0)


def test_a_thread_is_one_batch_ahead_and_ends_when_closed(camvid_tree, monkeypatch):
    asked = []
    real = loaders.read_sample
    monkeypatch.setattr(
        loaders, "read_sample", lambda *given: (asked.append(given[1]), real(*given))[1]
    )
    options = {"batch": 1, "seed": 1, "start_step": 0, "steps": 50}
    loader = training_loader(files_of(camvid_tree), AUGMENT, **options)
    assert not threads() and not asked
    next(loader)
    time.sleep(0.3)
    assert len(asked) == 2 and len(threads()) == 1
    loader.close()
    assert settled(0)


def test_an_error_ends_the_thread_and_belongs_to_its_batch(camvid_tree):
    pairs = files_of(camvid_tree)
    order = [batch["name"][0] for batch in batches(pairs, batch=1, steps=2)]
    bad = next(pair.image for pair in pairs.pairs if pair.name == order[1])
    bad.write_bytes(b"no picture")
    options = {"batch": 1, "seed": 1, "start_step": 0, "steps": 9}
    loader = training_loader(pairs, AUGMENT, **options)
    assert next(loader)["name"] == order[:1]
    with pytest.raises(ValueError, match="cannot read this image"):
        next(loader)
    assert settled(0)


def test_samples_of_other_code_are_read_in_the_main_thread(camvid_tree):
    readers = []

    class Own(type(files_of(camvid_tree))):
        def load(self, position):
            readers.append(threading.current_thread())
            return super().load(position)

    batches(Own(camvid_tree, "train"), batch=2, steps=2)
    assert set(readers) == {threading.main_thread()}
