"""One confusion matrix over the set, against loops over pixels and against torchmetrics."""

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from segdistill.data import build_dataset
from segdistill.run.evaluation.evaluate import (
    Evaluation,
    check_labels,
    class_iou,
    confusion_matrix,
    evaluate,
)
from tests.data import trees


class Reader(nn.Module):
    """Predicts the class number in the red channel, in tenths."""

    def __init__(self, classes: int = 5):
        super().__init__()
        self.num_classes, self.align_corners, self.multiple_of = classes, True, 1
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: Tensor) -> Tensor:
        ids = torch.arange(self.num_classes, device=images.device)
        return -(images[:, :1] * self.scale - ids[:, None, None]).abs()


class Scenes:
    """Samples whose predictions by `Reader` are known."""

    def __init__(self, count: int = 6, classes: int = 5, labelled: int = 5, predicted: int = 5):
        generator = torch.Generator().manual_seed(count)
        self.classes = [f"kind {index}" for index in range(classes)]
        self.items = []
        for index in range(count):
            shape = (7 + index, 9 + 2 * index)
            label = torch.randint(0, labelled, shape, generator=generator)
            label[torch.rand(shape, generator=generator) < 0.2] = 255
            prediction = torch.randint(0, predicted, shape, generator=generator)
            self.items.append((f"scene {index}", prediction, label))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, object]:
        name, prediction, label = self.items[index]
        return {"image": (prediction / 10).expand(3, -1, -1), "label": label, "name": name}


def counted_by_hand(scenes: Scenes, classes: int) -> list[list[int]]:
    matrix = [[0] * classes for _ in range(classes)]
    for _, prediction, label in scenes.items:
        for row in range(label.shape[0]):
            for column in range(label.shape[1]):
                truth = int(label[row, column])
                if truth != 255:
                    matrix[truth][int(prediction[row, column])] += 1
    return matrix


def test_the_matrix_is_that_of_a_loop_over_all_pixels():
    scenes = Scenes()
    result = evaluate(Reader(), scenes)
    assert result.confusion.dtype == torch.int64
    assert result.confusion.tolist() == counted_by_hand(scenes, 5)
    assert result.images == 6
    assert result.classes == [f"kind {index}" for index in range(5)]


def test_metrics_of_a_matrix_by_hand():
    # Rows labels, columns predictions. Class 0: 4 hits, union 4+1+2 = 7. Class 1: 3 hits, union
    # 2+3+0 = 5. Class 2: never labelled but predicted once: 0. Class 3: nowhere.
    confusion = torch.tensor([[4, 0, 1, 0], [2, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    result = Evaluation.from_confusion(confusion)
    assert result.iou == [4 / 7, 3 / 5, 0.0, None]
    assert result.classes_counted == 3
    assert result.miou == pytest.approx((4 / 7 + 3 / 5) / 3)
    assert result.accuracy == [4 / 5, 3 / 5, None, None]
    assert result.pixel_accuracy == 7 / 10
    peers = Evaluation.from_confusion(confusion, absent="zero")
    assert peers.iou == [4 / 7, 3 / 5, 0.0, 0.0]
    assert (peers.miou, peers.classes_counted) == (pytest.approx((4 / 7 + 3 / 5) / 4), 4)


def test_torchmetrics_has_the_same_counts():
    classification = pytest.importorskip("torchmetrics.classification")
    scenes = Scenes(labelled=4, predicted=5)
    matrix = classification.MulticlassConfusionMatrix(5, ignore_index=255)
    jaccard = classification.MulticlassJaccardIndex(5, average="none", ignore_index=255)
    for _, prediction, label in scenes.items:
        matrix.update(prediction[None], label[None])
        jaccard.update(prediction[None], label[None])
    result = evaluate(Reader(), scenes)
    assert torch.equal(result.confusion, matrix.compute())
    torch.testing.assert_close(torch.tensor(result.iou), jaccard.compute())
    assert result.iou[4] == 0.0, "predicted but never labelled"
    assert result.classes_counted == 5


def test_mean_iou_of_torchmetrics_where_it_has_one_matrix_too():
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    scenes = Scenes(count=1)
    _, prediction, label = scenes.items[0]
    # torchmetrics has no ignored label and averages over images: one image, ignored pixels as a sixth class.
    truth = label.where(label != 255, torch.tensor(5))[None]
    guess = prediction.where(label != 255, torch.tensor(5))[None]
    oracle = segmentation.MeanIoU(6, per_class=True, input_format="index")
    oracle.update(guess, truth)
    result = evaluate(Reader(), scenes)
    torch.testing.assert_close(torch.tensor(result.iou), oracle.compute()[:5])


def test_predictions_on_ignored_pixels_do_not_count():
    scenes = Scenes()
    before = evaluate(Reader(), scenes)
    for _, prediction, label in scenes.items:
        prediction[label == 255] = (prediction[label == 255] + 1) % 5
    assert torch.equal(evaluate(Reader(), scenes).confusion, before.confusion)


def test_the_order_of_the_images_does_not_matter():
    scenes = Scenes()
    turned = Scenes()
    turned.items.reverse()
    one, other = evaluate(Reader(), scenes), evaluate(Reader(), turned)
    assert torch.equal(one.confusion, other.confusion)
    assert one.miou == other.miou


@pytest.mark.parametrize("world", [2, 3, 8])
def test_counts_of_all_processes_sum_to_the_whole(world):
    scenes, whole = Scenes(), evaluate(Reader(), Scenes())
    sums: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        sums.append(tensor.clone())
        return tensor + sum(sums[:-1], torch.zeros_like(tensor))

    results = []
    for rank in range(world):  # with 8 processes and 6 images two have nothing to do
        done: list[tuple[int, int]] = []

        def note(*step: int, done: list[tuple[int, int]] = done) -> None:
            done.append(step)

        options = {"rank": rank, "world": world, "all_reduce": keep, "progress": note}
        results.append(evaluate(Reader(), scenes, **options))
        assert len(done) == len(range(rank, 6, world))
    assert len(sums) == world, "each process asks once"
    assert results[-1].images == 6
    assert torch.equal(results[-1].confusion, whole.confusion)
    assert results[-1].miou == whole.miou


def test_images_are_resized_and_labels_are_not():
    class Notes(Reader):
        def forward(self, images: Tensor) -> Tensor:
            self.seen = tuple(images.shape)
            return super().forward(images)

    model, scenes = Notes(), Scenes(count=1)
    result = evaluate(model, scenes, size=(32, 16))
    assert model.seen == (1, 3, 32, 16)
    label = scenes.items[0][2]
    assert result.confusion.sum() == (label != 255).sum()
    assert result.protocol["size"] == [32, 16]
    assert result.protocol["compared_at"] == "the labels' own size"


def test_pairs_of_tensors_and_subsets_are_accepted():
    scenes = Scenes()
    pairs = [(item["image"], item["label"]) for item in (scenes[index] for index in range(6))]
    plain, named = evaluate(Reader(), pairs), evaluate(Reader(), scenes)
    assert torch.equal(plain.confusion, named.confusion)
    assert plain.classes == [f"class {index}" for index in range(5)]
    part = evaluate(Reader(), Subset(Subset(scenes, [0, 1, 2]), [0, 2]))  # type: ignore[arg-type]
    assert (part.images, part.classes) == (2, scenes.classes)


def test_workers_and_channels_last_change_nothing():
    scenes, plain = Scenes(), evaluate(Reader(), Scenes())
    conv = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1))
    first = evaluate(conv, scenes, channels_last=False)
    assert torch.equal(evaluate(conv, scenes, channels_last=True).confusion, first.confusion)
    assert torch.equal(evaluate(Reader(), scenes, workers=1).confusion, plain.confusion)


def test_the_mode_of_the_network_is_restored():
    model = Reader().train()
    evaluate(model, Scenes(count=1))
    assert model.training
    evaluate(model.eval(), Scenes(count=1))
    assert not model.training


def test_a_label_out_of_range_is_named_with_its_image():
    scenes = Scenes()
    scenes.items[2][2][1, 1] = 17
    with pytest.raises(ValueError, match=r"scene 2.*17"):
        evaluate(Reader(), scenes)
    with pytest.raises(
        ValueError, match=r"street.png: label -1 is not a class id; expected 0 to 4, or 255"
    ):
        check_labels(torch.tensor([0, -1]), 5, name="street.png")


def test_the_ignored_id_cannot_be_a_class():
    check_labels(torch.tensor([0, 254, 255]), 255)
    with pytest.raises(ValueError, match=r"label 255 marks ignored pixels.*at most 255 classes"):
        evaluate(Reader(256), Scenes(classes=256))


@pytest.mark.parametrize(
    ("model", "scenes", "message"),
    [
        (Reader(4), Scenes(), "network predicts 4 classes and the data set has 5"),
        (nn.Conv2d(3, 6, 1), Scenes(), "the network predicts 6 classes; expected 5"),
        (
            nn.Conv2d(3, 6, 1),
            [(torch.zeros(3, 2, 2), torch.zeros(2, 2).long())],
            "Give the data set",
        ),
        (Reader(), [], "data set is empty"),
    ],
)
def test_invalid_combinations_are_refused(model, scenes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, scenes)


def test_a_set_without_labels_is_refused_at_once(tmp_path):
    test = build_dataset("cityscapes", trees.cityscapes(tmp_path), "test")
    with pytest.raises(ValueError, match="has no labels; expected labels, or a teacher"):
        evaluate(Reader(19), test)


def test_a_set_without_a_labelled_pixel_has_no_miou():
    scenes = Scenes(count=2)
    for _, _, label in scenes.items:
        label.fill_(255)
    with pytest.raises(ValueError, match="2 images have no labelled pixel"):
        evaluate(Reader(), scenes)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_rule_for_absent_classes_is_refused():
    with pytest.raises(ValueError, match="absent is 'nan'; expected 'undefined' or 'zero'"):
        evaluate(Reader(), Scenes(), absent="nan")  # type: ignore[arg-type]


def test_json_round_trip_keeps_every_figure():
    result = evaluate(Reader(), Scenes(labelled=3, predicted=4), flip=True, scales=(1.0, 0.5))
    assert result.iou[4] is None
    values = json.loads(json.dumps({**result.to_json(), "split": "val"}, allow_nan=False))
    again = Evaluation.from_json(values)
    assert again.to_json() == result.to_json()
    assert torch.equal(again.confusion, result.confusion)
    assert again.protocol["scales"] == [1.0, 0.5] and again.protocol["absent"] == "undefined"
    del values["iou"]
    with pytest.raises(ValueError, match="the evaluation lacks iou"):
        Evaluation.from_json(values)


def test_the_table_is_in_per_cent_and_aligned():
    confusion = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    result = Evaluation.from_confusion(confusion, classes=["sky", "roadside", "car"], images=2)
    assert result.table().splitlines() == [
        "class        IoU %  recall %  pixels %",
        "sky          75.00     75.00     50.00",
        "roadside     80.00    100.00     50.00",
        "car              -         -      0.00",
        "mIoU 77.50 over 2 of 3 classes, pixel accuracy 87.50, 2 images",
    ]


def test_counts_beyond_the_exact_range_of_floats_stay_exact():
    large = 2**53 + 1
    confusion = torch.tensor([[large, 0], [0, 1]]) + confusion_matrix(
        torch.tensor([0]), torch.tensor([0]), 2
    )
    assert confusion[0, 0] == 2**53 + 2
    assert class_iou(confusion) == [1.0, 1.0]


MEMORY = """
import resource, torch
from torch import nn
from segdistill.run.evaluation.evaluate import evaluate
torch.set_num_threads(1)

class Blank:
    def __init__(self, count, side, classes):
        self.count, self.side, self.classes = count, side, ["x"] * classes
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError
        side = self.side
        return {"image": torch.rand(3, side // 8, side // 8).repeat_interleave(8, 1)
                .repeat_interleave(8, 2), "label": torch.zeros(side, side, dtype=torch.int64)}

def high_water():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

few = nn.Conv2d(3, 4, 8, stride=8)
evaluate(few, Blank(4, 384, 4))
start = high_water()
evaluate(few, Blank(40, 384, 4))
images = high_water()
evaluate(nn.Conv2d(3, 100, 8, stride=8), Blank(1, 1024, 100))
print(images - start, high_water() - images)
"""


def test_memory_does_not_grow_with_images_or_classes():
    # In a separate process, since the high-water mark of this one is not informative.
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    more_images, more_classes = map(float, done.stdout.split())
    # MiB. Kept predictions of 36 images would be 40 as int64, and full-size logits 400.
    assert more_images < 15
    assert more_classes < 150
