"""Pairing the user's files, and the splits."""

import os
import shutil

import numpy as np
import pytest

from segdistill.data.folder import Folder
from tests.data.files import ids, save_image, save_mask

CLASSES = ["a", "b", "c"]


def test_a_part_of_the_names_is_held_out(folder_tree):
    train = Folder(folder_tree, "train", classes=CLASSES)
    val = Folder(folder_tree, "val", classes=CLASSES)
    everything = Folder(folder_tree, "all", classes=CLASSES)
    assert sorted(train.names + val.names) == everything.names
    # Binomial with n = 40, p = 0.2: 2..15 holds with probability above 0.998.
    assert 2 <= len(val) <= 15
    assert all(int(p.image.stem) == p_image for p, p_image in _blue(val))


def _blue(dataset):
    return [(pair, int(dataset.read(i)[0][2, 0, 0])) for i, pair in enumerate(dataset.pairs)]


def test_adding_files_moves_no_sample_to_another_split(folder_tree):
    before = set(Folder(folder_tree, "val", classes=CLASSES).names)
    for i in range(40, 60):
        save_image(folder_tree / "images" / f"{i:03d}.png")
        save_mask(folder_tree / "masks" / f"{i:03d}.png", ids(3))
    after = set(Folder(folder_tree, "val", classes=CLASSES).names)
    assert {name for name in after if int(name) < 40} == before
    assert set(Folder(folder_tree, "val", classes=CLASSES, seed=1).names) != after


def test_an_empty_held_out_split_is_refused(folder_tree):
    with pytest.raises(ValueError, match=r"'val' has none of the 40 samples .* val_fraction 0"):
        Folder(folder_tree, "val", classes=CLASSES, val_fraction=0.0)
    with pytest.raises(ValueError, match=r"val_fraction is 1\.5"):
        Folder(folder_tree, "val", classes=CLASSES, val_fraction=1.5)


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
def test_split_folders_take_precedence(tmp_path, layout):
    for split, count in (("train", 3), ("val", 2), ("extra", 1)):
        for i in range(count):
            images = tmp_path / layout.format(kind="images", split=split)
            masks = tmp_path / layout.format(kind="masks", split=split)
            save_image(images / f"{split}{i}.jpg")
            save_mask(masks / f"{split}{i}.png", ids(3))
    for split, count in (("train", 3), ("val", 2), ("extra", 1)):
        dataset = Folder(tmp_path, split, classes=3)
        assert dataset.names == [f"{split}{i}" for i in range(count)]
    with pytest.raises(ValueError, match=r"no split folder named 'test'.*known: extra, train, val"):
        Folder(tmp_path, "test", classes=3)


def test_options_name_folders_suffix_and_classes(tmp_path):
    for street in ("one", "two"):
        save_image(tmp_path / "rgb" / street / "0.png")
        save_mask(tmp_path / "truth" / street / "0_ids.png", ids(4) * 10)
    dataset = Folder(
        tmp_path,
        "all",
        image_dir="rgb",
        mask_dir="truth",
        mask_suffix="_ids",
        classes=["ground", "car"],
        mapping={0: 0, 10: 1, 20: 1, 30: None},
        palette=[[1, 2, 3], [4, 5, 6]],
    )
    assert dataset.names == ["one/0", "two/0"] and dataset.groups == ["one", "two"]
    assert dataset.palette == [(1, 2, 3), (4, 5, 6)] and dataset.classes == ["ground", "car"]
    assert np.unique(dataset.read(0)[1]).tolist() == [0, 1, 255]


def test_a_list_gives_samples_and_order(folder_tree):
    (folder_tree / "train.txt").write_text("007\n003.png\n")
    (folder_tree / "val.txt").write_text("images/001.png masks/002.png\n")
    train = Folder(folder_tree, "train", classes=3, list_file="{split}.txt")
    assert train.names == ["007", "003"]
    val = Folder(folder_tree, "val", classes=3, list_file="{split}.txt")
    assert val.pairs[0].image.name == "001.png" and val.pairs[0].mask.name == "002.png"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("007\n999\n", FileNotFoundError, r"list\.txt names '999', which has no image file"),
        ("images/001.png masks/999.png\n", FileNotFoundError, r"entry 1: no such file .*999\.png"),
        ("a b c\n", ValueError, "entry 1 is 'a b c'; expected `image mask`"),
        ("\n", ValueError, "is empty"),
    ],
)
def test_bad_lists_are_refused(folder_tree, text, error, message):
    (folder_tree / "list.txt").write_text(text)
    with pytest.raises(error, match=message):
        Folder(folder_tree, classes=3, list_file="list.txt")


def test_a_missing_list_is_named(folder_tree):
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such list file"):
        Folder(folder_tree, classes=3, list_file="none.txt")


def test_unpaired_files_are_named_on_both_sides(folder_tree):
    (folder_tree / "masks" / "004.png").unlink()
    (folder_tree / "images" / "009.png").unlink()
    with pytest.raises(ValueError) as error:
        Folder(folder_tree, classes=3)
    text = str(error.value)
    assert "1 of 39 images" in text and "(004)" in text
    assert "1 of 39 masks" in text and "(009)" in text and "mask_suffix" in text


def test_the_side_that_is_complete_is_not_mentioned(folder_tree):
    (folder_tree / "images" / "009.png").unlink()
    with pytest.raises(ValueError, match=r"^1 of 40 masks in \S+ have no image \(009\); expected"):
        Folder(folder_tree, classes=3)


def test_advice_about_images_without_a_mask_is_only_given_for_them(folder_tree):
    (folder_tree / "images" / "009.png").unlink()
    for spoil in (lambda: None, (folder_tree / "masks" / "004.png").unlink):
        spoil()
        with pytest.raises(ValueError) as error:
            Folder(folder_tree, classes=3)
        assert "unlabelled" not in str(error.value)
    save_image(folder_tree / "images" / "009.png")
    with pytest.raises(ValueError, match="Set `missing` to unlabelled"):
        Folder(folder_tree, classes=3)


@pytest.mark.parametrize("options", [{}, {"mask_dir": None}])
def test_pictures_of_other_formats_are_counted_once(folder_tree, caplog, options):
    (folder_tree / "images/deeper").mkdir()
    for name in ("x.heic", "y.HEIC", "deeper/z.avif", "notes.txt", ".hidden.gif"):
        (folder_tree / "images" / name).write_bytes(b"picture")
    for split in ("train", "val"):
        Folder(folder_tree, split, classes=3, **options)
    (line,) = [one.getMessage() for one in caplog.records]
    assert line == (
        f"{folder_tree}/images: pictures of these formats are not read: .heic 2, .avif 1. Convert them to "
        "PNG or JPEG"
    )


def test_a_folder_with_other_formats_only_says_so(folder_tree):
    for path in (folder_tree / "masks").iterdir():
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(
        FileNotFoundError, match=r"holds no image files; .* not read: \.gif 40\. Con"
    ):
        Folder(folder_tree, classes=3)


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JFIF"])
def test_all_endings_of_jpeg_are_read(tmp_path, ending):
    save_image(tmp_path / "images/a.jpg")
    (tmp_path / "images/a.jpg").rename(tmp_path / f"images/a.{ending}")
    assert Folder(tmp_path, "all", classes=3, mask_dir=None).read(0)[0].shape == (3, 12, 16)


def test_two_images_of_one_name_are_refused(folder_tree):
    save_image(folder_tree / "images" / "004.jpg")
    with pytest.raises(ValueError, match=r"004\.jpg and .*004\.png have the same name"):
        Folder(folder_tree, classes=3)


def test_missing_folders_say_what_is_there(folder_tree):
    with pytest.raises(
        FileNotFoundError,
        match=r"truth: no such folder.*images, masks\. Set data\.options: \{image_dir: images, mask_dir: masks\}",
    ):
        Folder(folder_tree, classes=3, mask_dir="truth")
    (folder_tree / "images").rename(folder_tree / "photos")
    (folder_tree / "masks").rename(folder_tree / "Labels")
    with pytest.raises(FileNotFoundError, match=r"\{image_dir: photos, mask_dir: Labels\}"):
        Folder(folder_tree, classes=3)
    with pytest.raises(FileNotFoundError, match=r"\{image_dir: photos\}"):
        Folder(folder_tree, classes=3, mask_dir=None)
    (folder_tree / "photos").rename(folder_tree / "images")
    with pytest.raises(FileNotFoundError, match=r"no such folder\. Set `root` to the folder"):
        Folder(folder_tree / "none", classes=3)
    shutil.rmtree(folder_tree / "images")
    (folder_tree / "images").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no image files; expected one of \.jpg"):
        Folder(folder_tree, classes=3)


def test_root_and_classes_must_be_given(folder_tree):
    with pytest.raises(ValueError, match="folder: `classes` is missing"):
        Folder(folder_tree)
    with pytest.raises(ValueError, match="folder: `root` is missing"):
        Folder(classes=3)


def test_files_that_are_not_images_are_skipped(folder_tree):
    (folder_tree / "images" / "Thumbs.db").write_text("x")
    (folder_tree / "images" / "._001.png").write_text("x")
    assert len(Folder(folder_tree, "all", classes=3)) == 40


@pytest.mark.parametrize(
    "folder",
    [
        *(".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"),
        *("System Volume Information", "#recycle", "__pycache__"),
    ],
)
def test_hidden_folders_and_those_of_operating_systems_are_skipped(folder_tree, folder):
    for kind in ("images", "masks"):
        save_image(folder_tree / kind / folder / "001.png")
    assert len(Folder(folder_tree, "all", classes=3)) == 40


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_what_would_never_answer_is_named_and_not_opened(folder_tree, kind):
    place = folder_tree / kind
    (place / "x.png").mkdir()  # a folder is no file, whatever its name
    assert len(Folder(folder_tree, "all", classes=3)) == 40
    os.mkfifo(place / "pipe.PNG")
    (place / "link.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError) as error:
        Folder(folder_tree, "all", classes=3)
    assert f"{place}/link.png (a link to nothing that can be read)" in str(error.value)
    assert f"{place}/pipe.PNG (a named pipe)" in str(error.value)


@pytest.mark.parametrize(
    "line",
    ["/images/my 1.png /masks/my 1.png", "images\\my 1.png\tmasks\\my 1.png", "my 1", "/my 1.png",
     "images/my 1.png", "images/my 1.png masks/my 1.png  # blurred", "./my 1   "],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_line_of_a_list_may_be_written_in_many_ways(folder_tree, line, encoding):
    for kind in ("images", "masks"):
        (folder_tree / kind / "001.png").rename(folder_tree / kind / "my 1.png")
    text = f"# first\r\n\r\n{line}\r\n003\r\n"
    (folder_tree / "list.txt").write_bytes(text.encode(encoding))
    pairs = Folder(folder_tree, classes=3, list_file="list.txt").pairs
    assert [(p.image.name, p.mask.name) for p in pairs] == [("my 1.png",) * 2, ("003.png",) * 2]


def test_a_line_that_names_files_in_two_ways_is_refused(folder_tree):
    for name in ("a", "b c", "a b", "c"):
        (folder_tree / name).write_bytes(b"")
    (folder_tree / "list.txt").write_text("a b c\n")
    with pytest.raises(ValueError, match=r"names files in 2 ways; .* by a tab"):
        Folder(folder_tree, classes=3, list_file="list.txt")


@pytest.mark.parametrize(
    "line",
    ["../other/1.png masks/001.png", "{other}/1.png masks/001.png", "../other/1", "/etc/hostname",
     "images/../../other/1.png masks/001.png", "D:/images/001.png D:/masks/001.png"],
)  # fmt: skip
def test_no_line_of_a_list_leads_out_of_the_root(folder_tree, line):
    other = save_image(folder_tree.parent / "other" / "1.png").parent
    (folder_tree / "list.txt").write_text(line.format(other=other) + "\n")
    with pytest.raises(ValueError, match=r"entry 1 is '.*', which leads out of .*folder; expected"):
        Folder(folder_tree, classes=3, list_file="list.txt")


def test_no_sample_is_listed_twice(folder_tree):
    (folder_tree / "list.txt").write_text("003\n001\nimages/003.png masks/003.png\n")
    with pytest.raises(ValueError, match=r"entry 3 names 'images/003' a second time"):
        Folder(folder_tree, classes=3, list_file="list.txt")
    # Two annotators of one image are two samples.
    (folder_tree / "list.txt").write_text(
        "images/003.png masks/003.png\nimages/003.png masks/1.png\n"
    )
    save_mask(folder_tree / "masks" / "1.png", ids(3))
    assert len(Folder(folder_tree, classes=3, list_file="list.txt")) == 2


def _layouts(root, move):
    """The forty pictures and masks of a tree, in each of the four layouts."""
    yield "val", {}
    (root / "names.txt").write_text("003\n001\n")
    yield "val", {"list_file": "names.txt"}
    (root / "pairs.txt").write_text("images/003.png masks/003.png\n")
    yield "val", {"list_file": "pairs.txt"}
    for split, name in (("train", "000"), ("val", "001")):
        for kind in ("images", "masks"):
            move(root / kind / f"{name}.png", root / kind / split / f"{name}.png")
    yield "val", {}
    for split, name in (("train", "000"), ("val", "001")):
        for kind in ("images", "masks"):
            move(root / kind / split / f"{name}.png", root / split / kind / f"{name}.png")
    for kind in ("images", "masks"):
        shutil.rmtree(root / kind)
    yield "val", {}


def test_images_without_masks_are_found_in_every_layout(folder_tree):
    def move(source, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)

    seen = 0
    for split, options in _layouts(folder_tree, move):
        paired = Folder(folder_tree, split, classes=CLASSES, **options)
        unlabelled = Folder(folder_tree, split, classes=CLASSES, mask_dir=None, **options)
        assert paired.labelled and not unlabelled.labelled
        assert [pair.image for pair in unlabelled.pairs] == [pair.image for pair in paired.pairs]
        assert sorted(unlabelled[0]) == ["image", "name"]
        assert (unlabelled.read(0)[1] == 255).all()
        seen += 1
    assert seen == 5


def test_without_masks_no_mask_folder_is_required(folder_tree):
    shutil.rmtree(folder_tree / "masks")
    assert len(Folder(folder_tree, "all", classes=3, mask_dir=None)) == 40
    images = Folder(folder_tree / "images", "all", classes=3, image_dir=".", mask_dir=None)
    assert len(images) == 40
