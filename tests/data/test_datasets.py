"""Requirements on every data set in the table."""

import inspect

import pytest
import torch

from segdistill.config import DataConfig
from segdistill.data import DATASETS, build_dataset
from segdistill.data.dataset import SegmentationDataset
from segdistill.run.opening import open_split, refuse_unread_root
from tests.data import trees


@pytest.fixture(params=sorted(DATASETS))
def built(request, tmp_path):
    """A function that builds the data set with further options."""
    root, options = {
        "camvid": lambda: (request.getfixturevalue("camvid_tree"), {}),
        "folder": lambda: (request.getfixturevalue("folder_tree"), {"classes": ["a", "b", "c"]}),
        "synthetic": lambda: (None, {"count": 6, "size": (32, 48)}),
    }.get(request.param, lambda: (getattr(trees, request.param)(tmp_path), {}))()

    def build(split="train", **more):
        return build_dataset(request.param, root, split, **{**options, **more})

    return build


def test_a_sample_is_an_rgb_image_a_label_of_class_numbers_and_a_name(built):
    dataset = built()
    for index in range(3):
        sample = dataset[index]
        assert sample["image"].dtype == torch.float32 and sample["label"].dtype == torch.int64
        assert sample["image"].shape == (3, *sample["label"].shape)
        assert sample["image"].min() >= 0 and sample["image"].max() <= 1
        ids = set(sample["label"].unique().tolist())
        assert ids <= {*range(dataset.num_classes), 255} and ids != {255}
        assert sample["name"] == dataset.names[index]


def test_raw_reading_and_samples_agree(built):
    image, label = built().read(1)
    sample = built()[1]
    assert image.dtype == label.dtype == torch.uint8
    torch.testing.assert_close(sample["image"], image / 255)
    assert torch.equal(sample["label"], label.long())


def test_the_lists_have_one_entry_for_each_sample_and_class(built):
    dataset = built()
    assert len(dataset) == len(dataset.names) == len(dataset.groups) == len(set(dataset.names))
    assert dataset.num_classes == len(dataset.classes) == len(dataset.palette)
    # ADE20K's published colours show road and skyscraper alike.
    twins = len(dataset.palette) - len(set(dataset.palette))
    assert twins == (1 if dataset.num_classes == 150 else 0)
    assert dataset.task == "semantic"


def test_splits_share_no_sample(built):
    train, val = built("train"), built("val")
    images = [dataset[i]["image"] for dataset in (train, val) for i in range(len(dataset))]
    if train.names[0].startswith("train"):
        assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])
    else:
        assert val.classes == train.classes


def test_the_cache_changes_nothing_and_reads_once(built, monkeypatch):
    plain, cached = built(cache=False), built(cache=True)
    first = cached[2]
    for key in ("image", "label"):
        assert torch.equal(plain[2][key], first[key])
    monkeypatch.setattr(type(cached), "load", lambda *_: pytest.fail("read a second time"))
    assert torch.equal(cached[2]["label"], first["label"])


def test_limit_keeps_the_first_samples(built):
    assert built(limit=2).names == built().names[:2]
    with pytest.raises(ValueError, match="limit is 0"):
        built(limit=0)


def test_an_index_beyond_the_end_is_refused(built):
    with pytest.raises(IndexError, match=r"sample index is 9999; expected -\d+\.\.\d+"):
        built()[9999]


def test_unknown_options_and_splits_name_the_nearest(built):
    with pytest.raises(ValueError, match=r"'limmit'; did you mean 'limit'"):
        built(limmit=3)
    with pytest.raises(ValueError, match=r"'trian'; did you mean 'train'"):
        built("trian")


def test_every_option_is_documented():
    for name, dataset in DATASETS.items():
        for option in inspect.signature(dataset).parameters:
            assert f"{option}: " in (dataset.__doc__ or ""), f"{name} does not explain {option}"


def test_unknown_data_sets_name_the_nearest():
    with pytest.raises(ValueError, match=r"no data set named 'camvit'; did you mean 'camvid'"):
        build_dataset("camvit", "x")


class Custom(torch.utils.data.Dataset):
    """A user's data set: it takes a root and a size, and has no split."""

    def __init__(self, root, size=4):
        self.root, self.size = root, size

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.zeros(3, self.size, self.size), torch.zeros(self.size, self.size).long()


def test_a_root_that_nothing_reads_is_refused() -> None:
    for name in ("synthetic", f"{__name__}.Rootless"):
        config = DataConfig(name, "there")
        with pytest.raises(ValueError, match=rf"there, which the data set '{name}' does not read"):
            refuse_unread_root(config)
        open_split(config, "val")  # as of a run that was trained before
    refuse_unread_root(DataConfig("camvid", "there"))
    refuse_unread_root(DataConfig("synthetic", "there", options={"labelled": "names.txt"}))


class Rootless:
    """A user's data set that knows where its files are."""

    classes = ("a", "b")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(3, 8, 8), torch.zeros(8, 8, dtype=torch.int64)


def test_a_dotted_path_builds_the_users_own_class():
    path = f"{Custom.__module__}.Custom"
    dataset = build_dataset(path, "somewhere", "val", size=8)
    assert dataset.root == "somewhere" and dataset[0][0].shape == (3, 8, 8)
    with pytest.raises(ValueError, match="'sise'; did you mean 'size'"):
        build_dataset(path, "somewhere", sise=8)
    with pytest.raises(ValueError, match="'Costum'; did you mean 'Custom'"):
        build_dataset(path.replace(".Custom", ".Costum"))
    with pytest.raises(ValueError, match=r"no module named 'no_such_package'; check"):
        build_dataset("no_such_package.Thing")


def test_classes_that_are_not_data_sets_are_refused():
    with pytest.raises(
        ValueError, match=r"is the class builtins\.object; expected a subclass of torch"
    ):
        build_dataset("builtins.object")


def test_samples_are_selected_by_group(camvid_tree):
    dataset = build_dataset("camvid", camvid_tree, groups=["Seq05VD"])
    assert set(dataset.groups) == {"Seq05VD"} and len(dataset) == 3
    assert isinstance(dataset, SegmentationDataset)
    with pytest.raises(ValueError, match="'Seq05'; did you mean 'Seq05VD'"):
        build_dataset("camvid", camvid_tree, groups=["Seq05"])
