"""Masks for a benchmark's server: ids, file names, and the same metrics as `evaluate`."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from segdistill.data import build_dataset
from segdistill.data.published.cityscapes import LABEL_IDS
from segdistill.run.evaluation.evaluate import confusion_matrix, evaluate
from segdistill.run.evaluation.protocol import Protocol
from segdistill.run.shipping.server import predict_for_server
from tests.data import trees


class Columns(nn.Module):
    """Predicts the class number in the red channel, which is the column's in the small data sets."""

    align_corners, multiple_of = True, 1

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        return -(images[:, :1] * 255 - torch.arange(self.num_classes)[:, None, None]).abs()


def test_cityscapes_masks_hold_label_ids_under_official_names(tmp_path):
    dataset = build_dataset("cityscapes", trees.cityscapes(tmp_path / "data"), "test")
    steps = []
    written = predict_for_server(
        Columns(19), dataset, tmp_path / "out", progress=lambda *step: steps.append(step)
    )
    assert [path.name for path in written] == [
        f"{name}_pred_labelIds.png" for name in dataset.names
    ]
    assert sorted((tmp_path / "out").iterdir()) == written
    # The file names that the official evaluation script expects.
    assert all(re.fullmatch(r"[a-z]+_\d{6}_\d{6}.*\.png", path.name) for path in written)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    with Image.open(written[0]) as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.array(mask), np.tile(LABEL_IDS[:16], (12, 1)))


@pytest.mark.parametrize(("name", "shift", "classes"), [("voc", 0, 21), ("ade20k", 1, 150)])
def test_other_servers_expect_their_own_ids(tmp_path, name, shift, classes):
    root = getattr(trees, name)(tmp_path / "data", size=(8, 16))
    dataset = build_dataset(name, root, "test", limit=1)
    (path,) = predict_for_server(Columns(classes), dataset, tmp_path / "out")
    assert path.name == f"{dataset.names[0]}.png"
    # The photographs are JPEGs here, so the red channel is slightly off.
    found = np.array(Image.open(path)).astype(int)
    assert found.min() >= shift and np.abs(found - shift - np.arange(16)).mean() < 2


@pytest.mark.parametrize("options", [{}, {"size": (24, 20)}, {"window": (8, 8), "flip": True}])
def test_masks_score_what_evaluate_says(tmp_path, options):
    dataset = build_dataset("cityscapes", trees.cityscapes(tmp_path / "data"), "val")
    counted = evaluate(Columns(19), dataset, **options).confusion
    to_class = np.full(256, 255)
    to_class[list(LABEL_IDS)] = np.arange(19)
    total = torch.zeros_like(counted)
    written = predict_for_server(Columns(19), dataset, tmp_path / "out", Protocol(**options))
    for index, path in enumerate(written):
        predicted = torch.from_numpy(to_class[np.array(Image.open(path))])
        total += confusion_matrix(dataset[index]["label"], predicted, 19)
    assert torch.equal(total, counted) and int(total.sum()) > 0


def test_masks_of_somebody_else_are_not_overwritten(tmp_path):
    dataset = build_dataset("cityscapes", trees.cityscapes(tmp_path / "data"), "test")
    written = predict_for_server(Columns(19), dataset, tmp_path / "out")
    assert predict_for_server(Columns(19), dataset, tmp_path / "out") == written
    Image.open(written[2]).transpose(Image.Transpose.ROTATE_180).save(written[2])
    message = f"{written[2].name}: predict did not write what is there"
    with pytest.raises(ValueError, match=message):
        predict_for_server(Columns(19), dataset, tmp_path / "out")


def test_a_data_set_without_a_server_is_refused(tmp_path):
    dataset = build_dataset("synthetic", split="test", count=1)
    with pytest.raises(ValueError, match="the data set is Synthetic; expected cityscapes"):
        predict_for_server(Columns(11), dataset, tmp_path)
