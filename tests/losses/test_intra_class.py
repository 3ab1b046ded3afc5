import pytest
import torch
from torch.nn import functional as F

from segdistill.losses import IntraClassVariation


def drawn(size=6, pixels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = [
        torch.randn(2, c, size, size, generator=generator, dtype=torch.float64) for c in (4, 7)
    ]
    labels = torch.randint(0, 3, (2, pixels or size, pixels or size), generator=generator)
    labels[0, :2] = 255
    return *features, labels


def slow_map(features, labels, extra):
    """{(image, row, column): cosine with the centre of its class}, by loops from the equation."""
    cosines = {}
    for b in range(features.shape[0]):
        for k in range(3):
            places = [
                (y, x)
                for y in range(features.shape[2])
                for x in range(features.shape[3])
                if labels[b, y, x] == k
            ]
            if not places:
                continue
            centre = sum(features[b, :, y, x] for y, x in places) / (len(places) + extra)
            for y, x in places:
                pixel = features[b, :, y, x]
                cosines[b, y, x] = float(pixel @ centre / (pixel.norm() * centre.norm()))
    return cosines


def slow_sum(student, teacher, labels, extra=0.0):
    ours, theirs = (slow_map(features, labels, extra) for features in (student, teacher))
    return sum((ours[place] - theirs[place]) ** 2 for place in ours), len(ours)


def test_default_is_the_mean_over_pixels_with_a_class() -> None:
    student, teacher, labels = drawn()
    total, valid = slow_sum(student, teacher, labels)
    assert valid == 60
    value = IntraClassVariation()(student, teacher, labels)
    torch.testing.assert_close(value.item(), total / valid)


@pytest.mark.parametrize("form", ["ifvd", "cirkd"])
def test_published_forms_are_the_mean_over_all_pixels_at_the_legacy_index(form) -> None:
    student, teacher, labels = drawn(size=6, pixels=45)
    nearest = F.interpolate(labels[:, None].float(), (6, 6), mode="nearest")[:, 0].long()
    total, _ = slow_sum(student, teacher, nearest, 1e-6)
    value = IntraClassVariation(form=form)(student, teacher, labels)
    torch.testing.assert_close(value.item(), total / 72)


def test_default_reads_labels_at_the_stride() -> None:
    student, teacher, labels = drawn(size=6, pixels=45)
    total, valid = slow_sum(student, teacher, labels[:, ::8, ::8])
    value = IntraClassVariation()(student, teacher, labels)
    torch.testing.assert_close(value.item(), total / valid)


def test_published_gradient_is_that_of_ignored_pixels_being_their_own_centres() -> None:
    student, teacher, labels = drawn()
    gradients = []
    for own_centre in (False, True):
        features = student.clone().requires_grad_()
        if own_centre:
            cosines = [_with_own_centres(f, labels) for f in (features, teacher)]
            value = F.mse_loss(*cosines)
        else:
            value = IntraClassVariation(form="ifvd")(features, teacher, labels)
        value.backward()
        gradients.append(features.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-9)


def _with_own_centres(features, labels):
    """Cosines with a map of centres in which a pixel without a class keeps its own feature."""
    rows = []
    for b in range(len(features)):
        for y in range(6):
            for x in range(6):
                centre = features[b, :, y, x]
                if labels[b, y, x] != 255:
                    members = features[b][:, labels[b] == labels[b, y, x]]
                    centre = members.sum(1) / (members.shape[1] + 1e-6)
                rows.append(F.cosine_similarity(features[b, :, y, x], centre, dim=0))
    return torch.stack(rows)


def test_values_worked_by_hand() -> None:
    # One class. Student pixels (1, 0) and (0, 1): centre (1/2, 1/2), both cosines 1/√2. The
    # teacher's are parallel: cosines 1. (1 - 1/√2)² = 0.0857864 at both; two more are ignored.
    student = torch.tensor([[[[1.0, 0.0, 3.0, 0.0]], [[0.0, 1.0, 0.0, 3.0]]]])
    teacher = torch.tensor([[[[1.0, 2.0, 0.0, 5.0]], [[0.0, 0.0, 1.0, 1.0]]]])
    labels = torch.tensor([[[4, 4, 255, 255]]])
    default = IntraClassVariation()(student, teacher, labels).item()
    published = IntraClassVariation(form="ifvd")(student, teacher, labels).item()
    assert default == pytest.approx(0.0857864, abs=1e-6)
    assert published == pytest.approx(0.0857864 / 2, abs=1e-6)


def test_scaling_the_features_of_an_image_changes_nothing() -> None:
    student, teacher, labels = drawn()
    scaled = student * torch.tensor([3.0, 0.1]).view(2, 1, 1, 1)
    loss = IntraClassVariation()
    torch.testing.assert_close(loss(scaled, teacher, labels), loss(student, teacher, labels))


def test_zero_features_have_a_finite_gradient_in_half() -> None:
    student = torch.zeros(2, 4, 6, 6, dtype=torch.float16, requires_grad=True)
    _, teacher, labels = drawn()
    IntraClassVariation()(student, teacher.half(), labels).backward()
    assert (student.grad == 0).all()
