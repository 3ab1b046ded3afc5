import pytest
import torch
from torch import Tensor, nn

from segdistill.distillation.distiller import Distiller
from segdistill.distillation.method import Method, Term, build_loss
from segdistill.distillation.trial import try_losses
from segdistill.losses import CrossEntropy, Loss
from tests.distillation.networks import Tiny, batch


def _squares(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher) ** 2


class Fine(Loss):
    """One that trains, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        torch.rand(3)
        return self.scale * _squares(student, teacher).mean()


class Detached(Fine):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().forward(student.detach(), teacher)


class Counted(Loss):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student.argmax(1) != teacher.argmax(1)).float().mean()


class TeacherOnly(Loss):
    def forward(self, teacher: Tensor) -> Tensor:
        return teacher.mean()


class PerImage(Loss):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return _squares(student, teacher).mean((1, 2, 3))


class Number(Loss):
    def forward(self, student: Tensor, teacher: Tensor) -> float:
        return float(_squares(student, teacher).mean())


class Several(Loss):
    def forward(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        return {"squares": _squares(student, teacher).mean()}


class Nothing(Loss):
    def forward(self, student: Tensor, teacher: Tensor) -> None:
        return None


class Late(Loss):
    """Makes its projection when it is called first."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        if not hasattr(self, "projection"):
            self.projection = nn.Conv2d(student.shape[1], teacher.shape[1], 1)
        return _squares(self.projection(student), teacher).mean()


class Lazy(Loss):
    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.LazyConv2d(3, 1)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return _squares(self.projection(student), teacher).mean()


class Failing(Loss):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return student.reshape(7, -1).mean()


class Changing(Loss):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return _squares(student.mul_(2), teacher).mean()


class Forgetful(Loss):
    def __init__(self) -> None:
        pass

    def forward(self, student: Tensor) -> Tensor:
        return student.mean()


def _tried(loss: Loss) -> Distiller:
    torch.manual_seed(0)
    terms = {"task": Term(CrossEntropy(), 1.0), "mine": Term(loss, 1.0)}
    distiller = Distiller(Tiny(6), Method("own", terms), Tiny(9))
    images, labels = batch()
    distiller.dry_pass(images)
    try_losses(distiller, images, labels)
    return distiller


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Detached, "no gradient of its loss reaches the student"),
        (Counted, "no gradient of its loss reaches the student"),
        (TeacherOnly, "no gradient of its loss reaches the student"),
        (PerImage, "its loss gives float32 of shape (2,); expected one real number as a tensor"),
        (Number, "its loss gives a float; expected one real number"),
        (Several, "its loss gives a dict; expected one real number"),
        (Nothing, "its loss gives None; expected one real number"),
        (
            Late,
            "its loss makes parameters in forward (projection.bias), which would not be trained",
        ),
        (
            Lazy,
            "its loss has parameters without a shape (projection.weight). Make them in __init__",
        ),
        (Failing, "its loss fails on the first crops (RuntimeError: shape '[7, -1]' is invalid"),
        (Changing, "its loss changes student in place"),
    ],
)
def test_a_loss_that_cannot_train_is_refused(loss: type[Loss], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        _tried(loss())
    assert str(caught.value).startswith(f"term 'mine': {message}")


def test_a_trial_changes_nothing() -> None:
    loss = Fine()
    distiller = _tried(loss)
    drawn = torch.random.get_rng_state()
    state = {key: value.clone() for key, value in distiller.state_dict().items()}
    images, labels = batch()
    try_losses(distiller, images, labels)
    torch.testing.assert_close(dict(distiller.state_dict()), state, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert distiller.student.training
    assert loss.get_buffer("calls") == 0
    assert loss.scale.grad is None


def test_losses_of_this_package_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = CrossEntropy()
    monkeypatch.setattr(loss, "forward", lambda student, labels: pytest.fail("called"))
    distiller = Distiller(Tiny(6), Method("own", {"task": Term(loss, 1.0)}))
    images, labels = batch()
    distiller.dry_pass(images)
    try_losses(distiller, images, labels)


def test_a_loss_that_forgets_its_base_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not call super\(\)\.__init__\(\)"):
        build_loss(f"{__name__}.Forgetful")
