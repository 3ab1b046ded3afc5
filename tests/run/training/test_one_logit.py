"""Two classes from one logit: the same as two logits, in every loss and after training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import segdistill
from segdistill.data.folder import Folder
from segdistill.distillation.catalogue import METHODS, PRESETS, build_method
from segdistill.distillation.distiller import Distiller
from segdistill.models import wrap
from segdistill.run.evaluation.evaluate import evaluate
from segdistill.run.shipping.onnx_file import Deployed, file_info
from segdistill.run.shipping.predict import load_predictor
from segdistill.run.training.train import train
from tests.run import small
from tests.run.plain import write_scenes

DATA: dict[str, Any] = {"classes": ["ground", "sky"], "mapping": {10: 0, 20: 0, 30: 1}}


class Binary(nn.Module):
    """One output, or two of which the first is always 0; otherwise equal, also in their random numbers."""

    def __init__(self, width: int = 6, outputs: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Conv2d(width, 1, 1)
        if outputs == 2:
            one, self.head = self.head, nn.Conv2d(width, 2, 1)
            with torch.no_grad():
                self.head.weight.copy_(torch.cat([torch.zeros_like(one.weight), one.weight]))
                self.head.bias.copy_(torch.cat([torch.zeros(1), one.bias]))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def _network(width: int, outputs: int) -> Any:
    torch.manual_seed(width)
    model = wrap(Binary(width, outputs), 2)
    model.taps["features_released"] = model.taps["features"]
    return model


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_term_has_the_same_value(method: str, preset: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 2, (2, 32, 32), generator=generator)
    found = []
    for outputs in (1, 2):
        distiller = Distiller(
            _network(6, outputs), build_method(method, 2, preset), _network(9, outputs)
        )
        torch.manual_seed(1)
        distiller.dry_pass(images)
        distiller.prepare([images] * 4)
        values = distiller(images, labels)
        distiller.method.total(values).backward()
        body = distiller.student.module.body[0].weight.grad
        found.append(({name: float(value.detach()) for name, value in values.items()}, body))
    (one, gradient), (two, expected) = found
    assert one == pytest.approx(two, rel=1e-6, abs=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_evaluation_and_the_exported_computation_see_two_classes(tmp_path: Path) -> None:
    dataset = Folder(write_scenes(tmp_path), "val", **DATA)
    one, two = (_network(6, outputs) for outputs in (1, 2))
    assert torch.equal(evaluate(one, dataset).confusion, evaluate(two, dataset).confusion)
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        z = one.module(image)
        probability = one(image).softmax(1)[:, 1:]
    torch.testing.assert_close(probability, z.sigmoid())
    info = file_info(one, DATA["classes"], [[0, 0, 0]] * 2, None, resize=False, argmax=True)
    assert torch.equal(Deployed(one, info)(image)[0], (z[0, 0] > 0).to(torch.uint8))


def test_a_run_of_one_logit_is_trained_rebuilt_and_predicts(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data")
    recipe = small.recipe(
        data={"name": "folder", "root": str(root), "options": DATA},
        student={"model": "tests.run.training.test_one_logit.Binary"},
        train={"crop": [16, 16], "steps": 40, "lr": 0.5},
        out=str(tmp_path / "run"),
    )
    run = train(recipe, progress=False)
    figures = run.evaluation()
    assert figures is not None
    assert figures["classes"] == ["ground", "sky"]
    predictor = load_predictor(run.path)
    image = next((root / "val" / "images").glob("*.png"))
    mask, *_ = segdistill.predict(
        predictor.network,
        [image],
        tmp_path / "out",
        classes=DATA["classes"],
        palette=[[0, 0, 0]] * 2,
    )
    assert set(Image.open(mask).tobytes()) <= {0, 1}


def test_one_output_stands_for_two_classes_only() -> None:
    with pytest.raises(ValueError, match="Conv2d with 3 outputs"):
        wrap(Binary(), 3)
