"""Teachers that see other channels or another scale of the images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segdistill.distillation.catalogue import METHODS, build_method
from segdistill.distillation.distiller import Distiller
from segdistill.models import wrap
from segdistill.models.foreign.resampled import ResampledInput
from segdistill.models.input import make_input
from segdistill.run.training.train import train
from tests.distillation.networks import Tiny, batch
from tests.run import small
from tests.run.training.test_distill import Plain, Tuples, _distill


class Four(nn.Module):
    """Reads four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(6, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(images)))


class FourPlanes(Tuples):
    """Adds a fourth channel, the mean of the three."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = super().__getitem__(index)
        return torch.cat([image, image.mean(0, keepdim=True)]), label


def test_the_network_sees_the_scaled_image_and_keeps_its_taps() -> None:
    torch.manual_seed(0)
    network = wrap(Plain(4), 3, multiple_of=8)
    seen = []
    network.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    shown = ResampledInput(network, scale=1.5)
    shown(torch.rand(2, 3, 10, 20))
    assert seen == [(2, 3, 16, 32)]  # 15x30, rounded up to eights
    assert (shown.multiple_of, ResampledInput(network).multiple_of) == (1, 8)
    assert shown.taps == {"logits": "module", "features": "module.module.module.2:input"}
    half = torch.full((1, 3, 8, 8), 0.5)
    torch.testing.assert_close(
        ResampledInput(network, scale=2)(half)[..., 2:-2, 2:-2],
        network(half.repeat(1, 1, 2, 2))[..., 2:-2, 2:-2],
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_aligns_a_teacher_at_twice_the_scale(method: str) -> None:
    torch.manual_seed(0)
    teacher = ResampledInput(Tiny(9), scale=2)
    distiller = Distiller(Tiny(6), build_method(method, 3), teacher)
    distiller.dry_pass(batch()[0])
    distiller.prepare([batch()[0]] * 4)
    assert torch.isfinite(distiller.method.total(distiller(*batch())))


def test_a_teacher_run_sees_the_channels_and_scale_of_the_recipe(tmp_path: Path) -> None:
    run = small.teacher(tmp_path / "teacher")
    made = {"run": str(run.path), "min_miou": 0, "scale": 2.0, "channels": [2, 1, 0]}
    student = train(
        small.recipe(teacher=made, method="kd", train={"steps": 2}, out=str(tmp_path / "run")),
        progress=False,
    )
    found, own = student.teacher(), run.evaluation()
    assert found is not None
    assert own is not None
    assert found["shown"] == {"channels": [2, 1, 0], "scale": 2.0}
    assert found["pixel_accuracy"] != own["pixel_accuracy"]


def test_a_student_of_four_channels_learns_from_a_teacher_of_three(tmp_path: Path) -> None:
    sets = {"train_set": FourPlanes(), "val_set": FourPlanes(3)}
    made = {**sets, "teacher": Plain(4), "teacher_channels": [0, 1, 2], "steps": 2}
    four = make_input({"mean": [0.5] * 4, "std": [0.25] * 4})
    run = _distill(tmp_path / "run", Four(), student_input=four, photometric=0.2, **made)
    assert run.finished
    with pytest.raises(ValueError, match="4 channels, so none is number 7"):
        _distill(
            tmp_path / "b", Four(), student_input=four, **{**made, "teacher_channels": [0, 1, 7]}
        )
    with pytest.raises(ValueError, match="picks 1 channels, the teacher reads 3: name 3"):
        _distill(tmp_path / "c", Four(), student_input=four, **{**made, "teacher_channels": [0]})
    with pytest.raises(
        ValueError, match=r"images have 4 channels and the teacher reads 3\. .* select"
    ):
        _distill(tmp_path / "d", Four(), student_input=four, **{**made, "teacher_channels": None})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"channels": [-1]}, "channel numbers, 0 or above"),
        ({"channels": [0, 1]}, "picks 2 channels, the teacher reads 3: name 3"),
        ({"scale": 0}, "a factor above 0"),
    ],
)
def test_invalid_channels_and_scales_are_refused(made: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResampledInput(wrap(Plain(4), 3), **made)  # type: ignore[arg-type]
