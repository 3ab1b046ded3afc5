"""Data sets of which some samples have labels."""

import re
from itertools import pairwise

import pytest
import torch

from segdistill.data import DATASETS, Synthetic, build_dataset
from segdistill.data.folder import Folder
from segdistill.data.labelled import keep_labels, labelled_samples
from segdistill.run.identity.data import data_digest
from tests.data import trees
from tests.data.annotations.exports import yolo
from tests.data.files import ids, save_image, save_mask

SIZE = {"count": 10, "size": (32, 48)}


def names(dataset):
    return [n for n, flag in zip(dataset.names, labelled_samples(dataset), strict=True) if flag]


def synthetic(**options):
    return build_dataset("synthetic", **SIZE, **options)


def test_a_number_and_a_fraction_choose_by_seed():
    three = names(synthetic(labelled=3))
    assert len(three) == 3 and three == names(synthetic(labelled=0.3))
    assert three != names(synthetic(labelled=3, labelled_seed=1))
    assert names(synthetic(labelled=1.0)) == names(synthetic()) == Synthetic(**SIZE).names
    assert len(names(synthetic(labelled=0.01))) == 1


def test_more_labels_include_fewer_and_new_samples_change_no_order():
    chosen = [set(names(synthetic(labelled=count))) for count in range(1, 11)]
    assert all(few < many for few, many in pairwise(chosen))
    for count in (5, 12):
        grown = build_dataset("synthetic", count=20, size=(32, 48), labelled=count)
        old = set(names(grown)) & chosen[-1]
        assert old in chosen and len(old) < count


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_samples_of_any_data_set_lose_their_labels(name, tmp_path, camvid_tree, folder_tree):
    made = {"camvid": lambda: camvid_tree, "folder": lambda: folder_tree, "synthetic": lambda: None}
    root = made.get(name, lambda: getattr(trees, name)(tmp_path / name))()
    options = {"classes": 3} if name == "folder" else SIZE if name == "synthetic" else {}
    whole = build_dataset(name, root, **options)
    some = build_dataset(name, root, **options, labelled=2, cache=True)
    assert some.labelled and some.names == whole.names and len(names(some)) == 2
    for index, flag in enumerate(labelled_samples(some)):
        assert ("label" in some[index]) == flag
        image, label = some.read(index)
        assert torch.equal(image, whole.read(index)[0])
        expected = whole.read(index)[1] if flag else torch.full_like(label, 255)
        assert torch.equal(label, expected)


def test_a_forgotten_mask_is_not_opened(camvid_tree):
    dataset = build_dataset("camvid", camvid_tree, labelled=["0001TP_0001"])
    for path in (camvid_tree / "train" / "labels").glob("*.png"):
        if path.stem != "0001TP_0001":
            path.write_bytes(b"no picture")
    assert [pair.name for pair in dataset.pairs if pair.labelled] == ["0001TP_0001"]
    assert sum("label" in dataset[index] for index in range(len(dataset))) == 1


def test_labels_that_are_drawn_are_forgotten_too(tmp_path):
    pytest.importorskip("pycocotools")
    square = "1 0.125 0.25 0.5 0.25 0.5 0.75 0.125 0.75"
    yolo(tmp_path, {"a": square, "b": square})
    dataset = build_dataset("folder", tmp_path, "all", labels="yolo", labelled=["b"])
    assert names(dataset) == ["b"] and not dataset.pairs[0].labelled
    assert set(dataset.read(0)[1].unique().tolist()) == {255}
    assert 2 in dataset.read(1)[1]


@pytest.mark.parametrize(
    ("labels", "missing", "expected"),
    [
        ("masks", "skip", "'refuse' or 'unlabelled'"),
        ("masks", "empty", "'refuse' or 'unlabelled'"),
        ("coco", "unlabelled", "'refuse' or 'skip'"),
        ("layers", "unlabelled", "'refuse', 'skip' or 'empty'"),
        ("yolo", "unlabelled", "'refuse', 'skip' or 'empty'"),
        ("labelme", "unlabelled", "'refuse', 'skip' or 'empty'"),
    ],
)
def test_missing_is_refused_where_it_means_nothing(labels, missing, expected, tmp_path):
    with pytest.raises(
        ValueError, match=f"^missing is '{missing}' with labels {labels}; expected {expected}"
    ):
        Folder(tmp_path, "all", classes=["a", "b"], labels=labels, missing=missing)


def test_no_mask_for_any_image_is_a_wrong_name_rather_than_no_labels(folder_tree):
    for mask in (folder_tree / "masks").iterdir():
        mask.rename(mask.with_stem(f"x{mask.stem}"))
    with pytest.raises(ValueError, match=r"images in .* have no mask"):
        Folder(folder_tree, "all", classes=3, missing="unlabelled")


def test_names_may_be_listed_in_a_file_beside_the_data(camvid_tree):
    some = ["0001TP_0002", "Seq05VD_f0000"]
    (camvid_tree / "few.txt").write_text(f"# two frames\n{some[0]}.png\n\n{some[1]}\n")
    for labelled in ("few.txt", some):
        assert sorted(names(build_dataset("camvid", camvid_tree, labelled=labelled))) == some


def test_groups_are_chosen_first(camvid_tree):
    drive = build_dataset("camvid", camvid_tree, groups=["Seq05VD"], labelled=2)
    assert len(drive) == 3 and len(names(drive)) == 2


@pytest.mark.parametrize(
    ("labelled", "message"),
    [
        (0, "labelled is 0; expected 1 to 10, the samples with labels"),
        (11, r"labelled is 11; expected 1 to 10, .* a fraction with a decimal point, such as 0\.1"),
        (0.0, r"labelled is 0\.0; expected a fraction above 0, at most 1"),
        (1.5, r"labelled is 1\.5; expected a fraction"),
        (float("nan"), "labelled is nan; expected a fraction"),
        (
            True,
            "option labelled is True; expected text or an integer or a number or a list of text",
        ),
        ([], "labelled names no samples; expected at least one"),
        (["nowhere"], "labelled: no sample named 'nowhere'"),
        ("nowhere.txt", r"nowhere\.txt: no such file\. Set `labelled` to a text file of names"),
    ],
)
def test_bad_choices_are_refused(labelled, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build_dataset("synthetic", **SIZE, labelled=labelled)


def test_an_empty_list_and_a_sample_without_mask_are_refused(folder_tree):
    (folder_tree / "none.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"none\.txt names no samples"):
        build_dataset("folder", folder_tree, "all", classes=3, labelled="none.txt")
    (folder_tree / "masks" / "007.png").unlink()
    options = {"classes": 3, "missing": "unlabelled"}
    with pytest.raises(ValueError, match="labelled names '007', which has no labels"):
        build_dataset("folder", folder_tree, "all", **options, labelled=["007"])


def test_a_misspelt_option_is_told_of_labelled():
    with pytest.raises(ValueError, match="named 'labeled'; did you mean 'labelled'"):
        build_dataset("synthetic", labeled=3)


class Own(torch.utils.data.Dataset):
    classes = ("a", "b")

    def __init__(self, flags=None):
        if flags is not None:
            self.labelled_samples = flags

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"image": torch.zeros(3, 8, 8)}


def test_your_own_data_set_says_it_for_each_sample():
    assert labelled_samples(Own()) == [True] * 3
    own = Own([True, False, True])
    assert labelled_samples(own) == [True, False, True]
    assert labelled_samples(torch.utils.data.Subset(own, [2, 1])) == [True, False]
    with pytest.raises(
        ValueError, match="labelled_samples has 2 entries; expected one for each of"
    ):
        labelled_samples(Own([True, False]))
    with pytest.raises(ValueError, match=r"labelled is set for .*Own.*attribute labelled_samples"):
        build_dataset(f"{__name__}.Own", labelled=2)


def test_a_split_without_labels_has_none():
    own = Own()
    own.labelled = False
    assert labelled_samples(own) == [False] * 3


@pytest.mark.parametrize("listed", [False, True])
def test_images_of_a_folder_without_a_mask_are_unlabelled(tmp_path, listed):
    for i in range(4):
        save_image(tmp_path / "images" / f"{i}.png")
    save_mask(tmp_path / "masks" / "2.png", ids(3))
    options = {"classes": 3}
    if listed:
        (tmp_path / "all.txt").write_text("0\n2\n3\n")
        options["list_file"] = "all.txt"
    with pytest.raises((ValueError, FileNotFoundError), match="mask"):
        Folder(tmp_path, "all", **options)
    dataset = Folder(tmp_path, "all", **options, missing="unlabelled")
    assert len(dataset) == 3 + (not listed) and names(dataset) == ["2"]
    save_mask(tmp_path / "masks" / "9.png", ids(3))
    if not listed:
        with pytest.raises(ValueError, match=re.escape("have no image (9)")):
            Folder(tmp_path, "all", **options, missing="unlabelled")


def test_which_samples_are_labelled_is_part_of_the_datas_identity(camvid_tree):
    for build in (lambda **o: build_dataset("camvid", camvid_tree, **o), synthetic):
        digests = {data_digest(build(**o)) for o in ({}, {"labelled": 3}, {"labelled": 4})}
        assert len(digests) == 3
        # All of them is no change.
        assert data_digest(build(labelled=1.0)) == data_digest(build())


def test_labels_are_not_given_back():
    dataset = synthetic(labelled=2)
    kept = names(dataset)
    with pytest.raises(ValueError, match="which has no labels"):
        keep_labels(dataset, [name for name in dataset.names if name not in kept][:1])
