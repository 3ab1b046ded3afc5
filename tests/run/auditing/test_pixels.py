"""Images that are not in 0..1: found in `check` and before step 1 of a training, by the same words."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Subset

import segdistill
from segdistill.run.auditing import judged_pixels
from segdistill.run.auditing.check import check
from segdistill.run.training.train import rehearse, train
from tests.run import small
from tests.run.plain import NoNorm


def _imagenet(image: Tensor) -> Tensor:
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    return (image - mean) / std


def _dimmed(image: Tensor) -> Tensor:
    """0..255 of scenes at night."""
    return (0.02 * 255) * image


KINDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "imagenet": (_imagenet, "normalised already: leave Normalize out, and declare .*student_input"),
    "standardised": (lambda x: (x - x.mean()) / x.std(), "normalised already: leave Normalize out"),
    "half": (lambda x: (2 * x - 1).half(), r"scaling to \[-1, 1\] by \(x \+ 1\) / 2, and declare"),
    "divided by std": (lambda x: x / 0.25, "scaled already: leave that out, and declare"),
    "0..255": (lambda x: 255 * x, "Divide it by 255"),
    "0..255 at night": (_dimmed, "scaled already: leave that out"),
    "divided twice": (lambda x: x / 255, "divided by 255 twice .* leave one division out"),
    "uint8 of 0..1": (lambda x: x.byte(), "uint8 from 0 to [01]; .* as floating point"),
    "nan": (lambda x: x.where(x > 0.1, torch.nan), "pixels that are not finite"),
    "inf": (lambda x: x.where(x < 0.5, -torch.inf), "pixels that are not finite"),
}


class Scenes(Dataset[tuple[Tensor, Tensor]]):
    """A data set of somebody's own, with images of one of the `KINDS`, or as they should be."""

    classes = ("dark", "middle", "bright")

    def __init__(self, split: str = "train", kind: str = "", normalised: str = "") -> None:
        same = normalised in ("", split)
        self.change = KINDS[kind][0] if kind and same else lambda image: image

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(index))
        image = F.avg_pool2d(image, 3, 1, 1)
        return self.change(image), (3 * image.mean(0)).long().clamp(max=2)


def _recipe(out: Path, **options: Any) -> Any:
    return small.recipe(
        data={"name": f"{__name__}.Scenes", "options": options},
        student={"model": "tests.run.plain.NoNorm"},
        train={"steps": 1, "crop": [8, 8]},
        out=str(out),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_check_and_train_refuse_the_same_images(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = KINDS[kind][1]
    recipe = _recipe(tmp_path / "run", kind=kind)
    with pytest.raises(ValueError, match=message) as caught:
        train(recipe, progress=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("run/*.safetensors"))
    with pytest.raises(ValueError, match="to fix before training"):
        check(recipe, rehearse=rehearse)
    problems = [line for line in capsys.readouterr().out.splitlines() if "problem: " in line]
    if kind != "0..255":  # one line of the survey for all samples
        assert f"problem: {caught.value}" in problems


@pytest.mark.parametrize("split", ["train", "val"])
def test_each_split_is_looked_at(split: str, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path / "run", kind="imagenet", normalised=split)
    with pytest.raises(ValueError, match=f"{split}: the images are float32 from -1"):
        train(recipe, progress=False)


def test_data_in_memory_are_looked_at(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"val: the images are float32 from .* expected RGB in 0..1"
    ):
        segdistill.distill(
            None,
            NoNorm(3),
            Scenes(),
            Subset(Scenes(kind="standardised"), [3, 4, 5]),
            "supervised",
            steps=1,
            out=tmp_path / "run",
            classes=list(Scenes.classes),
            batch=2,
            crop=(8, 8),
            device="cpu",
            progress=False,
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: (255 * x).byte(),
        lambda x: 0.05 * x,
        lambda x: x.double(),
        lambda x: x[:1],
        lambda x: (x > 0.5).float(),
        lambda x: x - 1e-6,
    ],
)
def test_images_in_range_pass(change: Callable[[Tensor], Tensor]) -> None:
    dataset = Scenes()
    dataset.change = change
    assert judged_pixels(dataset, "train") == ("", "")


def test_the_overshoot_of_a_resize_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spotted(image: Tensor) -> Tensor:
        image[0, 0, 0], image[:, 4:8] = -0.4, image[:, 4:8] * 1.2
        return image

    monkeypatch.setitem(KINDS, "spot", (spotted, ""))
    with caplog.at_level(logging.WARNING):
        assert train(_recipe(tmp_path / "run", kind="spot"), progress=False).finished
    assert "train: the images are float32 from -0.4 to" in caplog.text
    assert "Clamp them, as image files hold no such values" in caplog.text


def test_looking_draws_no_random_number_of_the_training() -> None:
    class Augmenting(Scenes):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            image, label = super().__getitem__(index)
            return image * torch.rand(()), label

    state = torch.random.get_rng_state()
    assert judged_pixels(Augmenting(), "train") == ("", "")
    assert torch.equal(torch.random.get_rng_state(), state)
