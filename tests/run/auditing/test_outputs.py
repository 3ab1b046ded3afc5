"""Networks that return no logits, or others in training than in evaluation, are found before step 1."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import segdistill
from segdistill.models import build_model, wrap
from segdistill.models.foreign.relabelled import Relabelled
from segdistill.models.foreign.resampled import ResampledInput
from segdistill.run.auditing import judged_outputs
from segdistill.run.identity import IdentityDiffers
from segdistill.run.networks import load_run_model
from segdistill.run.training.train import rehearse, train
from tests.run import small

Make = Callable[..., Any]
CLASSES = small.CLASSES
IMAGES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


class Tail(nn.Module):
    """Three heads on one body, with dropout and batch norm; `make(main, aux, training)` is what it returns."""

    def __init__(self, make: Make, num_classes: int = CLASSES, drop: float = 0.5) -> None:
        super().__init__()
        self.make, self.drop = make, drop
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)
        )
        self.aux = nn.Conv2d(8, num_classes, 1)
        self.main = nn.Conv2d(8, num_classes, 1)
        self.act = nn.Softmax(1)

    def forward(self, images: Tensor) -> Any:
        features = F.dropout(self.body(images), self.drop, self.training)
        self.act(self.main(features))
        return self.make(self.main(features), self.aux(features), self.training)


def _tail(make: Make, num_classes: int = CLASSES, drop: float = 0.5) -> Tail:
    torch.manual_seed(3)
    return Tail(make, num_classes, drop)


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def _handmade(x: Tensor) -> Tensor:
    return x.exp() / x.exp().sum(1, keepdim=True)


PROBABLE: dict[str, tuple[Make, str]] = {
    "softmax": (lambda m, a, t: m.softmax(1), "softmax"),
    "upsampled": (lambda m, a, t: _up(m.softmax(1))[..., :-1], "softmax"),
    "module": (lambda m, a, t: nn.Softmax(1)(m), "softmax"),
    "by hand": (lambda m, a, t: _handmade(m), "softmax"),
    "mean": (lambda m, a, t: (m.softmax(1) + a.softmax(1)) / 2, "softmax"),
    "in a list": (lambda m, a, t: [m.softmax(1), m], "softmax"),
    "sigmoid": (lambda m, a, t: m.sigmoid(), "sigmoid"),
    "out of a dict": (lambda m, a, t: {"out": torch.sigmoid(_up(m)), "aux": a}, "sigmoid"),
    "log_softmax": (lambda m, a, t: F.log_softmax(m, 1), "log_softmax"),
    "log of softmax": (lambda m, a, t: m.softmax(1).log(), "log_softmax"),
    "upsampled log": (lambda m, a, t: _up(F.log_softmax(m, 1)), "log_softmax"),
}


@pytest.mark.parametrize("owner", ["student", "teacher"])
@pytest.mark.parametrize("name", PROBABLE)
def test_what_is_no_logits_is_refused_unless_declared(name: str, owner: Any) -> None:
    make, kind = PROBABLE[name]
    refused = judged_outputs(owner, wrap(_tail(make), CLASSES), IMAGES, CLASSES).refused
    assert f"the {owner} returns " in refused and f"({kind}); expected logits" in refused
    assert f"set final_activation to {kind} ({owner}.options, or segdistill.wrap)" in refused
    declared: tuple[Any, ...] = (kind, "none")
    for activation in declared:
        model = wrap(_tail(make), CLASSES, final_activation=activation)
        assert not judged_outputs(owner, model, IMAGES, CLASSES).refused
    others = {"softmax", "log_softmax", "sigmoid"} - {kind}
    for activation in others:
        model = wrap(_tail(make), CLASSES, final_activation=activation)  # type: ignore[arg-type]
        refused = judged_outputs(owner, model, IMAGES, CLASSES).refused
        assert f"final_activation of the {owner} is {activation}; expected" in refused
        assert f"Set it to {kind}" in refused


@pytest.mark.parametrize("final", ["softmax", "log_softmax", "sigmoid"])
def test_a_declaration_without_its_activation_is_refused(final: Any) -> None:
    model = wrap(_tail(lambda m, a, t: m), CLASSES, final_activation=final)
    assert "it returns logits in training. Leave it out" in (
        judged_outputs("student", model, IMAGES, CLASSES).refused
    )


def test_one_probability_is_refused_however_little_it_varies() -> None:
    for scale in (1.0, 1e-3):
        model = wrap(_tail(lambda m, a, t, s=scale: (s * m).sigmoid(), 1), 2)
        assert "(sigmoid); expected logits" in judged_outputs("teacher", model, IMAGES, 2).refused


@pytest.mark.parametrize("classes", [1, 2, CLASSES])
@pytest.mark.parametrize(
    "make",
    [
        lambda m, a, t: m,
        lambda m, a, t: 0 * m,
        lambda m, a, t: 1e-3 * m + 0.5,
        lambda m, a, t: 0.5 * m.tanh() + 0.2,
        lambda m, a, t: m.softmax(1) * 7 - 1,
        lambda m, a, t: _up(m.clamp(-50, 50)),
        lambda m, a, t: m.relu() - 1,
        lambda m, a, t: -100 - m.square(),
    ],
)
def test_logits_of_any_size_pass(make: Make, classes: int) -> None:
    several = max(classes, 2)
    for owner in ("student", "teacher"):
        found = judged_outputs(owner, wrap(_tail(make, classes), several), IMAGES, several)  # type: ignore[arg-type]
        assert (found.refused, found.warnings, found.notes) == ("", [], [])


@pytest.mark.parametrize(
    ("make", "ending"),
    [
        (lambda m, a, t: m.relu(), "ends in relu"),
        (lambda m, a, t: F.relu6(_up(m)), "ends in hardtanh"),
        (lambda m, a, t: m.clamp(min=0), "ends in clamp"),
        (lambda m, a, t: m.tanh(), "ends in tanh"),
        (lambda m, a, t: F.logsigmoid(m), "ends in log_sigmoid"),
        (lambda m, a, t: F.hardsigmoid(m), "ends in hardsigmoid"),
        (lambda m, a, t: 1 / (1 + (-20 * m).exp()), "returns values in 0..1 only"),
    ],
)
def test_other_functions_at_the_end_are_a_warning(make: Make, ending: str) -> None:
    found = judged_outputs("teacher", wrap(_tail(make), CLASSES), IMAGES, CLASSES)
    assert not found.refused
    (warning,) = found.warnings
    assert f"the teacher {ending}" in warning and "set final_activation to none" in warning
    quiet = wrap(_tail(make), CLASSES, final_activation="none")
    assert not judged_outputs("teacher", quiet, IMAGES, CLASSES).warnings


@pytest.mark.parametrize(
    ("make", "modes"),
    [
        (
            lambda m, a, t: m if t else m.softmax(1),
            "logits in training and probabilities (softmax)",
        ),
        (
            lambda m, a, t: [m.sigmoid(), a] if t else m,
            "probabilities (sigmoid) in training and log",
        ),
    ],
)
def test_an_activation_in_one_mode_is_refused(make: Make, modes: str) -> None:
    refused = judged_outputs("student", wrap(_tail(make), CLASSES), IMAGES, CLASSES).refused
    assert modes in refused and "expected logits in both" in refused
    model = wrap(_tail(make), CLASSES, final_activation="softmax")
    assert judged_outputs("student", model, IMAGES, CLASSES).refused


def test_a_tap_on_probabilities_is_refused() -> None:
    for tap in ("logits", "aux"):
        model = wrap(_tail(lambda m, a, t: m), CLASSES, taps={"features": "body", tap: "act"})
        refused = judged_outputs("student", model, IMAGES, CLASSES).refused
        assert f"tap {tap!r} ('module.act') reads probabilities (softmax)" in refused


def test_a_teacher_is_looked_at_inside_what_holds_it() -> None:
    def held(module: nn.Module) -> list[nn.Module]:
        labels = [*range(CLASSES - 1), None]
        return [
            Relabelled(module, labels, CLASSES - 1),
            ResampledInput(module, scale=2.0),
            Relabelled(ResampledInput(module, [2, 1, 0]), labels, CLASSES - 1),
            torch.compile(module),  # type: ignore[list-item]
        ]

    for model in held(wrap(_tail(PROBABLE["upsampled"][0]), CLASSES)):
        assert "(softmax)" in judged_outputs("teacher", model, IMAGES, CLASSES).refused
    for model in held(wrap(torch.compile(_tail(lambda m, a, t: m)), CLASSES)):
        assert not judged_outputs("teacher", model, IMAGES, CLASSES).refused


CHOICES: dict[str, tuple[Make, str, int | str | None]] = {
    # What a student returns, what is said of it, and the output that mends it.
    "aux first": (lambda m, a, t: [a, m, m[:, :2]] if t else m, "expected 1,", 1),
    "tuple": (lambda m, a, t: (a, a, m) if t else (m,), "expected 2,", 2),
    "upsampled": (lambda m, a, t: [a, m] if t else _up(m), "expected 1,", 1),
    "sizes": (lambda m, a, t: [_up(a), m] if t else m, "expected 1,", 1),
    "dict": (lambda m, a, t: {"out": a, "main": m} if t else m, "expected main,", "main"),
    "dict in both": (
        lambda m, a, t: {"logits": a if t else m, "fine": m, "aux": a},
        "expected fine,",
        "fine",
    ),
    "nested": (lambda m, a, t: (a, {"head": [m]}) if t else m, "expected 1.head.0,", "1.head.0"),
    "another order": (
        lambda m, a, t: [a, m] if t else [m, a],
        "Return the same logits in both modes",
        None,
    ),
    "their mean": (lambda m, a, t: [a, m] if t else (a + m) / 2, "none of which is what", 0),
    "another head": (lambda m, a, t: a if t else m, "does not train what evaluation reads", 0),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_head_that_evaluation_does_not_read_is_refused(name: str) -> None:
    make, message, output = CHOICES[name]
    refused = judged_outputs("student", wrap(_tail(make), CLASSES), IMAGES, CLASSES).refused
    assert message in refused
    if output is None:
        for place in (0, 1):
            model = wrap(_tail(make), CLASSES, output=place)
            assert judged_outputs("student", model, IMAGES, CLASSES).refused
        return
    assert f"et output to {output} (student.options, or segdistill.wrap)" in refused
    model = wrap(_tail(make), CLASSES, output=output)
    assert not judged_outputs("student", model, IMAGES, CLASSES).refused


@pytest.mark.parametrize(
    ("make", "options", "said", "warned"),
    [
        (
            lambda m, a, t: [m, a] if t else m,
            {},
            "2 tensors of 11 channels (0, 1); 0 is used",
            True,
        ),
        (lambda m, a, t: [a, m], {}, "(0, 1); 0 is used", True),
        (lambda m, a, t: [a, m], {"output": 1}, "(0, 1); 1 is used", False),
        (lambda m, a, t: {"aux": a, "out": m}, {}, "(aux, out); out is used", False),
    ],
)
def test_a_choice_among_several_is_named(
    make: Make, options: dict[str, Any], said: str, warned: bool
) -> None:
    found = judged_outputs("student", wrap(_tail(make), CLASSES, **options), IMAGES, CLASSES)
    assert not found.refused
    (line,) = found.warnings if warned else found.notes
    assert said in line and "To use another, set output (student.options" in line
    assert not (found.notes if warned else found.warnings)


def test_a_tap_on_other_logits_is_a_warning() -> None:
    for tap, same in (("main", True), ("aux", False)):
        model = wrap(
            _tail(lambda m, a, t: _up(m)), CLASSES, taps={"features": "body", "logits": tap}
        )
        found = judged_outputs("student", model, IMAGES, CLASSES)
        assert not found.refused
        assert same == (not found.warnings)


def test_a_network_with_the_contract_is_looked_at_and_ours_are_not_run() -> None:
    model: Any = _tail(lambda m, a, t: [a, m] if t else m)
    model.num_classes, model.taps, model.align_corners, model.multiple_of = CLASSES, {}, False, 1
    model.taps = {"logits": "", "features": "body"}
    refused = judged_outputs("student", model, IMAGES, CLASSES).refused
    assert "expected 1, the one that evaluation reads. Return the same logits" in refused
    ours = build_model("compact", CLASSES)
    ours.forward = None
    assert judged_outputs("student", ours, IMAGES, CLASSES).refused == ""


def test_looking_leaves_no_trace() -> None:
    class Counting(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            self.running_mean = self.running_mean + 1  # replaced, not changed in place
            return super().forward(x)

    net = _tail(lambda m, a, t: [m, a] if t else m)
    net.body[1] = Counting(8)
    model = wrap(net, CLASSES).train()
    net.aux.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    seed = torch.random.get_rng_state()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    judged_outputs("student", model, IMAGES, CLASSES)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert torch.equal(torch.random.get_rng_state(), seed)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Student(Tail):
    """For recipes: returns both heads in training, and probabilities if asked."""

    def __init__(self, num_classes: int, soft: bool = False, several: bool = False) -> None:
        def make(main: Tensor, aux: Tensor, training: bool) -> Any:
            main, aux = (x.softmax(1) if soft else x for x in (main, aux))
            return [aux, main] if several and training else main

        super().__init__(make, num_classes)


def _recipe(out: Path, teacher: dict[str, Any] | None = None, **options: Any) -> Any:
    return small.recipe(
        student={"model": f"{__name__}.Student", "options": options},
        **({} if teacher is None else {"teacher": teacher, "method": "kd"}),
        train={"steps": 2},
        out=str(out),
    )


@pytest.mark.parametrize(
    ("wrong", "mended", "message"),
    [
        ({"soft": True}, {"final_activation": "softmax"}, "set final_activation to softmax"),
        ({"several": True}, {"output": 1}, "Set output to 1"),
        (
            {"soft": True, "several": True},
            {"final_activation": "softmax", "output": 1},
            "set final_activation to softmax",
        ),
    ],
)
def test_train_and_check_refuse_a_student_until_its_recipe_declares_it(
    wrong: dict[str, Any], mended: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe = _recipe(tmp_path / "run", **wrong)
    with pytest.raises(ValueError, match=message) as caught:
        train(recipe, progress=False)
    assert "\n" not in str(caught.value)
    classes = [str(n) for n in range(CLASSES)]
    assert rehearse(recipe, classes) == [str(caught.value)]
    assert not list(tmp_path.glob("run/*.safetensors"))
    recipe = _recipe(tmp_path / "run", **wrong, **mended)
    assert rehearse(recipe, classes) == []
    run = train(recipe, progress=False)
    model = load_run_model(run)
    with torch.no_grad():
        features = model.module.body(IMAGES)  # type: ignore[operator, union-attr]
        logits = model.module.main(features)  # type: ignore[operator, union-attr]
        torch.testing.assert_close(model(IMAGES).softmax(1), logits.softmax(1))


def test_the_head_that_ships_is_the_one_that_learns(tmp_path: Path) -> None:
    run = train(_recipe(tmp_path / "run", several=True, output=1), progress=False)
    torch.manual_seed(0)
    start = build_model(f"{__name__}.Student", CLASSES, several=True).module  # type: ignore[union-attr]
    after = load_run_model(run).module  # type: ignore[union-attr]
    # Weight decay is all that reaches the other one.
    torch.testing.assert_close(start.aux.weight, after.aux.weight, rtol=1e-3, atol=1e-6)  # type: ignore[union-attr]
    assert not torch.allclose(start.main.weight, after.main.weight, rtol=1e-3)  # type: ignore[union-attr]


def test_a_teacher_is_refused_until_its_recipe_declares_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file(Student(CLASSES).state_dict(), tmp_path / "teacher.safetensors")
    teacher: dict[str, Any] = {
        "model": f"{__name__}.Student",
        "weights": str(tmp_path / "teacher.safetensors"),
        "options": {"soft": True},
        "min_miou": 0,
    }
    with pytest.raises(
        ValueError, match=r"the teacher returns probabilities \(softmax\).*teacher.op"
    ):
        train(_recipe(tmp_path / "run", teacher), progress=False)
    teacher["options"]["final_activation"] = "softmax"
    with caplog.at_level(logging.INFO):
        assert train(_recipe(tmp_path / "run", teacher), progress=False).finished


def test_a_run_in_memory_asks_for_the_module_as_it_was_wrapped(tmp_path: Path) -> None:
    data = segdistill.build_dataset("synthetic", size=(32, 48), count=4)

    def call(**told: Any) -> Any:
        torch.manual_seed(0)
        student = Student(CLASSES, soft=True)
        run = segdistill.distill(
            None,
            wrap(student, CLASSES, **told),
            data,
            data,
            "supervised",
            steps=1,
            batch=2,
            crop=(32, 32),
            out=tmp_path,
            progress=False,
        )
        return run, student

    run, student = call(final_activation="softmax")
    with pytest.raises(ValueError, match=r"another output or final_activation .*='softmax'\. Pass"):
        load_run_model(run, model=student)
    load_run_model(run, model=wrap(student, CLASSES, final_activation="softmax"))
    with pytest.raises(IdentityDiffers, match="the taps"):
        call(final_activation="none")


class Bare(Tail):
    """Keeps the contract by itself, so that nothing stands between it and its caller."""

    num_classes, align_corners, multiple_of, input = CLASSES, False, 1, None
    taps: dict[str, str] = {"logits": ""}  # noqa: RUF012


@pytest.mark.parametrize(
    ("make", "owner", "problem"),
    [
        (lambda m, a, t: m.transpose(2, 3), "student", "; expected b k h w. Transpose rows and"),
        (lambda m, a, t: m.transpose(2, 3), "teacher", "; expected b k h w. Transpose rows and"),
        (lambda m, a, t: _up(m).rot90(1, (2, 3)), "student", "Transpose rows and columns"),
        (lambda m, a, t: m.detach(), "student", "logits carry no gradient, so nothing would be"),
        (lambda m, a, t: (100 * m).int(), "student", "returns int32 in training; expected logits"),
        (lambda m, a, t: m if t else (100 * m).long(), "student", "int64 in evaluation; expected"),
        (lambda m, a, t: m + 0j, "teacher", "returns complex64 in evaluation; expected logits"),
    ],
)
@pytest.mark.parametrize("size", [(16, 24), (16, 16), (24, 12)])
def test_maps_that_are_no_logits_of_the_image_are_refused(
    make: Make, owner: Any, problem: str, size: tuple[int, int]
) -> None:
    """Also where the crops are square, which do not tell rows from columns."""
    torch.manual_seed(3)
    assert problem in judged_outputs(owner, Bare(make), torch.rand(2, 3, *size), CLASSES).refused


@pytest.mark.parametrize(
    "make",
    [
        lambda m, a, t: m,
        lambda m, a, t: F.pad(_up(m), (3, 3, 3, 3)),
        lambda m, a, t: m.mean((2, 3), keepdim=True),
        lambda m, a, t: F.interpolate(m, (20, 20)),
        lambda m, a, t: m[..., :-1, :],
    ],
    ids=["stride", "padded", "one cell", "one size", "a row less"],
)
@pytest.mark.parametrize("owner", ["student", "teacher"])
def test_maps_of_any_other_size_pass(make: Make, owner: Any) -> None:
    network = wrap(_tail(make), CLASSES)
    assert judged_outputs(owner, network, IMAGES, CLASSES).refused == ""
    assert all(parameter.grad is None for parameter in network.parameters())


class InPlace(Bare):
    """Changes what it is given, before or after it is read."""

    def __init__(self, late: bool) -> None:
        super().__init__(lambda m, a, t: m)
        self.late, self.head = late, nn.Conv2d(3, CLASSES, 1)

    def forward(self, images: Tensor) -> Any:
        logits = self.head(images if self.late else images.sub_(0.5))
        if self.late:
            images.zero_()
        return logits


@pytest.mark.parametrize("owner", ["student", "teacher"])
@pytest.mark.parametrize("late", [False, True])
def test_a_network_that_changes_its_images_is_refused(owner: Any, late: bool) -> None:
    """The next network, such as the student after its teacher, would see what it left."""
    images = IMAGES.clone()
    found = judged_outputs(owner, InPlace(late), images, CLASSES)
    assert found.refused.startswith(f"the {owner} changes its images in place; expected them")
    assert torch.equal(images, IMAGES)


class Spoils(Tail):
    """Changes what its gradient needs."""

    def forward(self, images: Tensor) -> Any:
        features = self.body(images)
        logits = self.main(features)
        features.zero_()
        return logits


def test_a_student_whose_gradient_cannot_be_computed_is_refused() -> None:
    student = wrap(Spoils(lambda *_: None), CLASSES)
    found = judged_outputs("student", student, IMAGES, CLASSES)
    assert found.refused.startswith("the student fails when its gradient is computed (one of the")
