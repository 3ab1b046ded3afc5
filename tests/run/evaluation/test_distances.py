import numpy as np
import pytest
import torch
from torch import nn

from segdistill.run.evaluation.distances import (
    class_distances,
    class_statistics,
    edge_correlation,
    edges,
    mean_edge,
    normalised,
    read_tap,
)
from segdistill.run.evaluation.protocol import Protocol


class Eye(nn.Module):
    """Features are every `stride`-th pixel of the image; logits are one number per class."""

    multiple_of = 1

    def __init__(self, stride=1):
        super().__init__()
        self.body = nn.AvgPool2d(1, stride)
        self.head = nn.Conv2d(3, 2, 1)
        self.taps = {"logits": "", "features": "body", "entry": "head:input"}

    def forward(self, images):
        return self.head(self.body(images))


class Pairs:
    """Random images with blocky labels of 3 classes, some ignored; class 3 of 4 never occurs."""

    num_classes = 4

    def __init__(self, count=3, size=(7, 9), dtype=torch.float32):
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 4, (count, *size), generator=generator)
        self.labels = torch.where(labels == 3, 255, labels)
        shift = torch.tensor([0.0, 2.0, 5.0, 0.0])[labels.clamp(max=3)]
        noise = torch.rand(count, 3, *size, generator=generator, dtype=torch.float64)
        self.images = (noise + shift[:, None]).to(dtype)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index], "name": str(index)}


def by_loops(dataset, k, min_pixels=1):
    """Distances and variance ratio, straight from their definitions."""
    found = {c: [] for c in range(k)}
    for sample in (dataset[i] for i in range(len(dataset))):
        image, label = sample["image"].double().numpy(), sample["label"].numpy()
        for y in range(label.shape[0]):
            for x in range(label.shape[1]):
                if label[y, x] != 255:
                    found[int(label[y, x])].append(image[:, y, x])
    table = np.full((k, k), np.nan)
    kept = [c for c in range(k) if len(found[c]) >= min_pixels]
    for one in kept:
        for other in kept:
            gap = np.mean(found[one], 0) - np.mean(found[other], 0)
            table[one, other] = np.sqrt((gap**2).sum())
    every = [cell for c in kept for cell in found[c]]
    centre = np.mean(every, 0)
    within = sum(((cell - np.mean(found[c], 0)) ** 2).sum() for c in kept for cell in found[c])
    between = sum(len(found[c]) * ((np.mean(found[c], 0) - centre) ** 2).sum() for c in kept)
    return table, within / between


def test_distances_equal_plain_loops():
    dataset = Pairs()
    table, ratio = by_loops(dataset, 4)
    statistics = class_statistics(Eye(), dataset)
    np.testing.assert_allclose(statistics.distances(min_pixels=1), table, rtol=1e-6)
    assert statistics.within_between(min_pixels=1) == pytest.approx(ratio, rel=1e-6)
    assert np.isnan(table[3]).all()


def test_two_cells_by_hand():
    # Class 0 at (0, 0) and (0, 2): token (0, 1). Class 1 at (3, 5): distance √(9 + 16) = 5.
    image = torch.zeros(3, 1, 3)
    image[0, 0] = torch.tensor([0.0, 0.0, 3.0])
    image[1, 0] = torch.tensor([0.0, 2.0, 5.0])
    pair = [(image, torch.tensor([[0, 0, 1]]))]
    statistics = class_statistics(Eye(), pair, num_classes=2)
    np.testing.assert_allclose(statistics.distances(1), [[0, 5], [5, 0]])
    # Within: 1 + 1. Between, centre (1, 7/3): 2 · (1 + 16/9) + (4 + 64/9) = 50/3.
    assert statistics.within_between(1) == pytest.approx(2 / (50 / 3))


def test_rare_classes_are_blank():
    image = torch.arange(12.0).reshape(3, 1, 4) / 12
    pair = [(image, torch.tensor([[0, 0, 0, 1]]))]
    table = class_distances(Eye(), pair, num_classes=2, min_pixels=2)
    assert table[0, 0] == 0 and np.isnan([table[0, 1], table[1, 0], table[1, 1]]).all()
    assert class_statistics(Eye(), pair, num_classes=2).within_between(min_pixels=2) is None


def test_labels_are_read_where_the_strided_cells_are():
    dataset = Pairs(count=2, size=(8, 8))
    table = class_distances(Eye(stride=2), dataset, min_pixels=1)
    dataset.labels, dataset.images = dataset.labels[:, ::2, ::2], dataset.images[:, :, ::2, ::2]
    np.testing.assert_allclose(table, by_loops(dataset, 4)[0], rtol=1e-6)


def test_padding_to_the_networks_multiple_counts_no_pixel():
    model = Eye()
    plain = class_statistics(model, Pairs())
    model.multiple_of = 4
    padded = class_statistics(model, Pairs())
    torch.testing.assert_close(padded.cells, plain.cells)
    torch.testing.assert_close(padded.sums, plain.sums)


def test_images_and_labels_are_resized_together():
    dataset = Pairs(count=1, size=(8, 8))
    whole = class_statistics(Eye(), dataset, protocol=Protocol((16, 16)))
    # Nearest neighbour doubles each label in both directions.
    torch.testing.assert_close(whole.cells, 4 * class_statistics(Eye(), dataset).cells)


def test_limit_takes_the_first_images():
    limited, first = class_statistics(Eye(), Pairs(3), limit=1), class_statistics(Eye(), Pairs(1))
    assert limited.cells.sum() < class_statistics(Eye(), Pairs(3)).cells.sum()
    assert int((Pairs(3)[0]["label"] != 255).sum()) == int(limited.cells.sum())
    assert first.cells.shape == limited.cells.shape


def test_modes_and_hooks_are_restored():
    model = Eye().train()
    class_statistics(model, Pairs())
    assert model.training and not model.body._forward_hooks


def test_taps_are_read_at_output_and_input():
    model, images = Eye(stride=2), torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(read_tap(model, images, "features"), images[..., ::2, ::2])
    torch.testing.assert_close(read_tap(model, images, "entry"), images[..., ::2, ::2])
    torch.testing.assert_close(read_tap(model, images, "logits"), model(images))


def test_an_unknown_tap_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'features'"):
        read_tap(Eye(), torch.rand(1, 3, 4, 4), "feature")


def test_an_empty_set_and_an_unknown_number_of_classes_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        class_statistics(Eye(), [], num_classes=2)
    with pytest.raises(ValueError, match="Pass num_classes"):
        class_statistics(Eye(), [])


def test_edges_are_the_pairs_above_the_diagonal():
    table = np.array([[0.0, 1, 2], [1, 0, np.nan], [2, np.nan, 0]])
    np.testing.assert_array_equal(edges(table), [1, 2, np.nan])
    assert mean_edge(table) == 1.5
    np.testing.assert_allclose(edges(normalised(table))[:2], [2 / 3, 4 / 3])
    assert mean_edge(np.full((2, 2), np.nan)) is None


def test_correlation_of_edges():
    one = np.zeros((4, 4))
    one[np.triu_indices(4, 1)] = [1, 2, 3, 4, 5, 6]
    assert edge_correlation(one, 3 * one + np.triu(np.ones((4, 4)), 1)) == pytest.approx(1)
    assert edge_correlation(one, -one) == pytest.approx(-1)
    # Two known pairs are always on a line, and constant edges have no correlation.
    assert edge_correlation(one[:3, :3], np.where(one[:3, :3] == 2, np.nan, one[:3, :3])) is None
    assert edge_correlation(one, np.triu(np.ones((4, 4)), 1)) is None
