import math

import pytest
import torch

from segdistill.geometry import Cells
from segdistill.losses import IGNORED, BoundaryKD
from segdistill.losses.boundary import class_edges


def slow_edges(labels, num_classes, cells, width):
    """Fractions of edge pixels per class and of valid pixels, cell by cell: masks, dilated and eroded, by loops."""
    images, height, wide = labels.shape
    centres = [line.centres().tolist() for line in (cells.rows, cells.columns)]
    rows, columns = cells.size
    edges = torch.zeros(images, num_classes, rows, columns, dtype=torch.float64)
    valid = torch.zeros(images, rows, columns, dtype=torch.float64)
    pixels = torch.zeros(images, rows, columns, dtype=torch.float64)
    for b in range(images):
        for r in range(height):
            for c in range(wide):
                i, j = (
                    min(range(len(line)), key=lambda n, x=x, line=line: (abs(line[n] - x), -n))
                    for x, line in zip((r, c), centres, strict=True)
                )
                around = [
                    int(labels[b, y, x])
                    for y in range(max(r - width // 2, 0), min(r + width // 2 + 1, height))
                    for x in range(max(c - width // 2, 0), min(c + width // 2 + 1, wide))
                ]
                pixels[b, i, j] += 1
                if IGNORED in around:
                    continue
                valid[b, i, j] += 1
                for k in range(num_classes):
                    mask = [float(label == k) for label in around]
                    edges[b, k, i, j] += max(mask) - min(mask)
    return edges / pixels.clamp_min(1)[:, None], valid / pixels.clamp_min(1)


def softmax(values):
    powers = [math.exp(v - max(values)) for v in values]
    return [p / sum(powers) for p in powers]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow_edge(student, teacher, edges, temperature, paper):
    """The edge part, class by class and cell by cell."""
    images, classes, rows, columns = student.shape
    total = 0.0
    for b in range(images):
        values = []
        for k in range(classes):
            weighed, count = 0.0, 0
            for r in range(rows):
                for c in range(columns):
                    if not edges[b, k, r, c] > 0:
                        continue
                    p, q = (
                        softmax(
                            [
                                float(x[b, i, r, c] * edges[b, i, r, c]) / temperature
                                for i in range(classes)
                            ]
                        )
                        for x in (teacher, student)
                    )
                    weighed += float(edges[b, k, r, c]) * kl(p, q)
                    count += 1
            if count:
                values.append(weighed / count)
        if values:
            total += 2 * sum(values) if paper else sum(values) / len(values)
    return temperature**2 * total / images


def slow_body(student, teacher, bodies, temperature):
    """The body part: each class's map as a distribution over the positions."""
    images, classes = student.shape[:2]
    total = 0.0
    for b in range(images):
        for k in range(classes):
            p, q = (
                softmax([v / temperature for v in (x[b, k] * bodies[b, k]).flatten().tolist()])
                for x in (teacher, student)
            )
            total += kl(p, q)
    return temperature**2 * total / (images * classes)


def scene(height=24, width=32, classes=5):
    """Blocks of labels with an ignored rectangle; one image of one class, one ignored."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, classes, (4, height // 8, width // 8), generator=generator)
    labels = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[0, 3:9, 20:] = IGNORED
    labels[2], labels[3] = 1, IGNORED
    return labels


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(4, 5, 6, 8, generator=generator, dtype=torch.float64) for _ in range(2)]


GRIDS = {
    "parts": Cells.by_corners((6, 8), (24, 32), align_corners=False),
    "corners": Cells.by_corners((6, 8), (24, 32)),
    "stride": Cells.at((6, 8), (24, 32), 4),
}


@pytest.mark.parametrize("width", [1, 3, 7])
@pytest.mark.parametrize("grid", GRIDS)
def test_edges_and_valid_pixels_agree_with_loops(grid, width) -> None:
    labels = scene()
    edges, valid = class_edges(labels, 5, GRIDS[grid], width)
    expected = slow_edges(labels, 5, GRIDS[grid], width)
    torch.testing.assert_close(edges.double(), expected[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(valid.double(), expected[1], rtol=1e-6, atol=1e-7)
    assert (edges.sum() > 0) == (width > 1)


def test_more_classes_than_a_word_has_bits() -> None:
    labels = torch.randint(0, 150, (2, 9, 9), generator=torch.Generator().manual_seed(0))
    labels[0, :4, :4], labels[1, 8, 8] = 149, IGNORED
    cells = Cells.by_corners((3, 3), (9, 9), align_corners=False)
    expected = slow_edges(labels, 150, cells, 3)
    for found, value in zip(class_edges(labels, 150, cells, 3), expected, strict=True):
        torch.testing.assert_close(found.double(), value, rtol=1e-6, atol=1e-7)


def over_labelled(mean: float) -> float:
    """A mean over the images of the scene as one over those with a label: one of the four has none."""
    labelled = [any(id != IGNORED for id in image.flatten().tolist()) for image in scene()]
    assert labelled.count(False) == 1 and len(labelled) == 4
    return mean * 4 / 3


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("form", ["default", "paper"])
def test_the_edge_part_agrees_with_loops(pair, form, temperature) -> None:
    edges, _ = slow_edges(scene(), 5, GRIDS["parts"], 7)
    expected = slow_edge(*pair, edges, temperature, form == "paper")
    expected = over_labelled(expected) if form == "default" else expected
    value = BoundaryKD("edge", temperature=temperature, form=form)(*pair, scene())
    assert value.item() == pytest.approx(expected, rel=1e-6) and expected > 0


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("form", ["default", "paper"])
def test_the_body_part_agrees_with_loops(pair, form, temperature) -> None:
    edges, valid = slow_edges(scene(), 5, GRIDS["parts"], 7)
    expected = slow_body(*pair, valid[:, None] - edges, temperature)
    expected = over_labelled(expected) if form == "default" else expected
    value = BoundaryKD("body", temperature=temperature, form=form)(*pair, scene())
    assert value.item() == pytest.approx(expected, rel=1e-6) and expected > 0


@pytest.mark.parametrize("part", ["edge", "body"])
def test_declared_cells_are_read_where_they_lie(pair, part) -> None:
    loss = BoundaryKD(part)
    loss.cells = (GRIDS["corners"],)
    edges, valid = slow_edges(scene(), 5, GRIDS["corners"], 7)
    slow = (
        slow_edge(*pair, edges, 1.0, False)
        if part == "edge"
        else slow_body(*pair, valid[:, None] - edges, 1.0)
    )
    assert loss(*pair, scene()).item() == pytest.approx(over_labelled(slow), rel=1e-6)


def test_value_worked_by_hand() -> None:
    """One row of pixels, classes 0 0 1 1, at full resolution; the two in the middle are edges of both.

    There the teacher has logits (ln 3, 0) and the student (0, 0): 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812. Each class
    has two such cells, so its value is 0.130812; the mean over the classes is the same, and `paper` has 2 (0.130812 +
    0.130812). The outer cells are the body: the student is flat, and class 0 of the teacher is (ln 3, 0, 0, 0)
    over the positions, (3 1 1 1)/6 against 1/4 each, ln 4 - 1.242453 = 0.143841; class 1 is flat. Mean 0.071921.
    """
    labels = torch.tensor([[[0, 0, 1, 1]]])
    student = torch.zeros(1, 2, 1, 4)
    teacher = torch.zeros(1, 2, 1, 4)
    teacher[0, 0, 0, :3] = math.log(3)
    values = [
        BoundaryKD(part, width=3, form=form)(student, teacher, labels).item()
        for part, form in (("edge", "default"), ("edge", "paper"), ("body", "default"))
    ]
    assert values == pytest.approx([0.130812, 4 * 0.130812, 0.071921], abs=1e-6)


def test_the_interior_does_not_reach_the_edge_part_nor_the_edge_the_body(pair) -> None:
    """With all windows pure around a cell its logits are the body's alone, and the other way round."""
    labels = torch.zeros(4, 24, 32, dtype=torch.long)
    labels[:, :, 16:] = 1
    edge, body = (
        BoundaryKD(part)(pair[0].requires_grad_(), pair[1], labels) for part in ("edge", "body")
    )
    gradients = [torch.autograd.grad(value, pair[0])[0].abs() for value in (edge, body)]
    # Pixels 13 to 18 are edges, so of the cells of four pixels those at 12 and 16 are in part.
    inside = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0]).bool()
    assert (gradients[0][..., ~inside] == 0).all() and (gradients[0][:, :2, :, inside] > 0).all()
    # Classes that are not here have no edge, and take no part in the edge's gradient.
    assert (gradients[0][:, 2:] == 0).all() and (gradients[1][:, 2:] > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "edges"}, "part is 'edges'; expected edge or body"),
        ({"width": 4}, "width is 4; expected an odd number of pixels"),
        ({"width": -1}, "width is -1; expected an odd number of pixels"),
    ],
)
def test_what_cannot_be_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=f"^boundary: {message}$"):
        BoundaryKD(**options)
