import math

import pytest
import torch
from torch.nn import functional as F

from segdistill.losses import HolisticKD
from segdistill.losses.critic import Critic
from segdistill.losses.holistic import gradient_penalty, hinge, wasserstein

FORMS = HolisticKD.forms


def built(channels=3, size=(16, 18), dtype=torch.float32, **options) -> HolisticKD:
    loss = HolisticKD(**options)
    shape = torch.Size([2, channels, *size])
    loss.build(shape, shape)
    return loss.to(dtype)


def drawn(channels=3, size=(16, 18), images=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(images, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
        for _ in range(2)
    )
    return student.requires_grad_(), teacher


def slow_attention(layer, x):
    """x + γ·Σ_j softmax_j(q_i · k_j) v_j at each position i, by loops."""
    result = x.clone()
    query, key, value = (conv(x).flatten(2) for conv in (layer.query, layer.key, layer.value))
    for image in range(len(x)):
        for i in range(query.shape[2]):
            scores = [
                math.exp(float(query[image, :, i] @ key[image, :, j])) for j in range(key.shape[2])
            ]
            for j, score in enumerate(scores):
                place = result[image].flatten(1)
                place[:, i] += layer.gate.item() * score / sum(scores) * value[image, :, j]
    return result


def slow_scores(critic, x):
    """The published layout written out, with the stored singular vectors of each kernel."""
    for layer in critic.layers:
        if hasattr(layer, "gate"):
            x = slow_attention(layer, x)
        elif isinstance(layer, torch.nn.Sequential):
            conv = layer[0]
            stored, norm = conv.parametrizations.weight.original, conv.parametrizations.weight[0]
            norm_of_kernel = norm._u @ stored.flatten(1) @ norm._v
            x = F.conv2d(x, stored / norm_of_kernel, conv.bias, stride=2, padding=1)
            x = torch.where(x > 0, x, 0.1 * x)
        else:
            x = F.conv2d(x, layer.weight, layer.bias)
    return x.flatten(1)


@torch.no_grad()
def test_the_critic_agrees_with_its_layout_written_out() -> None:
    critic = built(size=(32, 33), dtype=torch.float64).adversary.critic.eval()
    for layer in critic.layers:
        if hasattr(layer, "gate"):
            layer.gate.fill_(0.7)
    _, teacher = drawn(size=(32, 33), dtype=torch.float64)
    torch.testing.assert_close(critic(teacher), slow_scores(critic, teacher.softmax(1)))


def test_at_65_it_is_the_released_network() -> None:
    loss = built(19, (65, 65), form="skd")
    parameters = sum(p.numel() for p in loss.adversary.parameters())
    vectors = [b for n, b in loss.adversary.named_buffers() if n.endswith(("._u", "._v"))]
    assert parameters == 3_191_721
    assert sum(v.numel() for v in vectors) == 8_432
    assert loss.adversary.critic.layers[-1].kernel_size == (4, 4)
    assert loss.adversary.critic(drawn(19, (65, 65))[1]).shape == (2, 1)


@pytest.mark.parametrize(
    ("size", "kernel", "patches"),
    [
        ((64, 128), (4, 4), 5),
        ((16, 16), (1, 1), 1),
        ((24, 90), (1, 4), 2),
        ((97, 96), (4, 4), 9),
        ((9, 9), (1, 1), 1),
        ((15, 40), (1, 4), 2),
    ],
)
def test_other_sizes_cut_the_last_kernel_or_give_patches(size, kernel, patches) -> None:
    critic = built(2, size).adversary.critic
    assert critic.layers[-1].kernel_size == kernel
    assert critic(drawn(2, size)[1]).shape == (2, patches)


def test_below_sixteen_the_fourth_convolution_is_left_out() -> None:
    # 4·4·19·64 + 64, 4·4·64·128 + 128, 4·4·128·256 + 256; attention 256→32 twice, 256→256, γ; 256 + 1.
    halvings = 19_520 + 131_200 + 524_544
    attention = 2 * (256 * 32 + 32) + 256 * 256 + 256 + 1
    critic = built(19, (9, 15), form="skd").adversary.critic
    assert sum(p.numel() for p in critic.parameters()) == 38 + halvings + attention + 257


def test_too_small_a_map_is_refused_with_the_least_size() -> None:
    with pytest.raises(
        ValueError, match=r"logits are 7x40; the critic expects at least 8x8\. Use larger"
    ):
        built(size=(7, 40))


def test_objectives_worked_by_hand() -> None:
    fake, real = torch.tensor([[1.0], [-2.0]]), torch.tensor([[0.5], [3.0]])
    assert wasserstein(fake, real).item() == -0.5 - 1.75
    # Above -1 by 2 and by nothing; below 1 by 0.5 and by nothing.
    assert hinge(fake, real).item() == (2 + 0) / 2 + (0.5 + 0) / 2


@pytest.mark.parametrize("form", FORMS)
def test_values_are_made_of_the_critics_scores(form) -> None:
    loss = built(form=form, dtype=torch.float64).eval()
    student, teacher = drawn(dtype=torch.float64)
    critic = loss.adversary.critic
    with torch.no_grad():
        low, high = critic(student).flatten().tolist(), critic(teacher).flatten().tolist()
    assert loss(student, teacher).item() == pytest.approx(-sum(low) / 2)
    torch.manual_seed(3)
    value = loss.adversary(student.detach(), teacher).item()
    if form in ("default", "cirkd"):
        wanted = sum(max(0, 1 - x) for x in high) / 2 + sum(max(0, 1 + x) for x in low) / 2
    else:
        torch.manual_seed(3)
        penalty = gradient_penalty(lambda x: critic(x).mean(1), student, teacher).item()
        wanted = sum(low) / 2 - sum(high) / 2 + 10 * penalty
    assert value == pytest.approx(wanted)


def test_the_penalty_of_a_plane_is_that_of_its_slope() -> None:
    normal = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    student, teacher = torch.zeros(3, 2, 1, 1), torch.randn(3, 2, 1, 1)
    # The slope is 5 wherever the points fall.
    value = gradient_penalty(lambda x: (x * normal).sum((1, 2, 3)), student, teacher)
    assert value.item() == pytest.approx((5 - 1) ** 2)


def test_the_penalty_is_taken_between_the_maps_one_share_an_image() -> None:
    """The slope of ‖x‖²/2 is x, which lies at α·2 on the way from 0 to a vector of length 2."""
    student, teacher = torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2)
    torch.manual_seed(0)
    value = gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, student, teacher)
    torch.manual_seed(0)
    shares = torch.rand(4).tolist()
    assert value.item() == pytest.approx(sum((2 * share - 1) ** 2 for share in shares) / 4)


def test_a_flat_critic_has_a_penalty_of_one_and_a_finite_gradient() -> None:
    slope = torch.zeros(1, requires_grad=True)
    value = gradient_penalty(
        lambda x: (slope * x).sum((1, 2, 3)), torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    )
    value.backward()
    assert value.item() == 1
    assert torch.isfinite(slope.grad).all()


@pytest.mark.parametrize("form", ["skd", "cirkd"])
def test_the_critics_gradient_is_that_of_its_value(form) -> None:
    """Central differences in float64: the penalty is differentiated twice on the way."""
    loss = built(form=form, dtype=torch.float64).eval()
    student, teacher = drawn(dtype=torch.float64)
    objective = loss.adversary.requires_grad_(True)

    def value():
        torch.manual_seed(1)
        return objective(student.detach(), teacher)

    value().backward()
    layers = objective.critic.layers
    for weight in (layers[0][0].parametrizations.weight.original, layers[3].value.weight):
        place = (1, 2, *[0] * (weight.ndim - 2))
        with torch.no_grad():
            differences = []
            for move in (1e-5, -2e-5):
                weight[place] += move
                with torch.enable_grad():
                    differences.append(value().item())
            weight[place] += 1e-5
        wanted = (differences[0] - differences[1]) / 2e-5
        assert weight.grad[place].item() == pytest.approx(wanted, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_the_students_gradient_is_that_of_the_value(form) -> None:
    loss = built(form=form, dtype=torch.float64).eval()
    student, teacher = drawn(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), (student,), fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_stays_in_neither_teacher_nor_frozen_critic(form) -> None:
    loss = built(form=form)
    student, teacher = drawn()
    teacher.requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert all(p.grad is None for p in loss.parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_raised_to_float32_in_both_steps(form, dtype) -> None:
    loss = built(form=form).eval()
    student, teacher = drawn(dtype=dtype)
    exact = [tensor.detach().float() for tensor in (student, teacher)]
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
        torch.manual_seed(0)
        critic = loss.adversary(student.detach(), teacher)
    value.backward()
    torch.manual_seed(0)
    torch.testing.assert_close(critic, loss.adversary(*exact))
    torch.testing.assert_close(value, loss(*exact))
    assert value.dtype == critic.dtype == torch.float32
    assert student.grad.dtype == dtype


def test_the_default_reads_probabilities_and_each_image_alone() -> None:
    student, teacher = drawn(images=4)
    shifted = student + torch.randn(4, 1, 16, 18)
    ours, released = built().eval().adversary.critic, built(form="skd").train().adversary.critic
    torch.testing.assert_close(ours(shifted), ours(student), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours(student)[:2], ours(student[:2]), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(released(student)[:2], released(student[:2]), rtol=1e-4, atol=1e-6)
    twice = [torch.cat([tensor, tensor]) for tensor in (student, teacher)]
    loss = built().eval()
    torch.testing.assert_close(loss(*twice), loss(student, teacher), rtol=1e-4, atol=1e-6)


def test_one_power_iteration_a_pass_in_training_and_none_else() -> None:
    critic = built().adversary.critic
    vector = critic.layers[0][0].parametrizations.weight[0]._u
    _, teacher = drawn()
    before = vector.clone()
    critic.eval()(teacher)
    assert torch.equal(vector, before)
    weight = critic.layers[0][0].parametrizations.weight.original.flatten(1)
    side = critic.layers[0][0].parametrizations.weight[0]._v.clone()
    critic.train()(teacher)
    torch.testing.assert_close(vector, F.normalize(weight @ side, dim=0))


def test_the_seed_makes_the_critic_and_leaves_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = built(), built(), built(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    first = [loss.adversary.critic.layers[-1].weight for loss in (one, same, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_a_conditional_critic_reads_the_image_at_the_logits_size() -> None:
    loss = built(form="default", conditional=True).eval()
    student, teacher = drawn()
    images = torch.rand(2, 3, 64, 72)
    value = loss(student, teacher, images)
    assert loss.adversary.critic.layers[0][0].in_channels == 6
    assert value != loss(student, teacher, 1 - images)
    small = F.interpolate(images, (16, 18), mode="bilinear", antialias=True)
    torch.testing.assert_close(value, loss(student, teacher, small))
    with pytest.raises(
        ValueError, match="images have 4 channels; the conditional critic expects RGB"
    ):
        loss(*drawn(), images=torch.rand(2, 4, 64, 64))
    with pytest.raises(
        ValueError, match="images is None; with conditional=True the critic expects"
    ):
        loss(student, teacher)


@pytest.mark.parametrize(
    ("options", "optimizer", "rates", "weight"),
    [
        ({}, torch.optim.Adam, (4e-4, 4e-4 * 0.5**0.9), 1.0),
        ({"form": "skd"}, torch.optim.SGD, (4e-4, 4e-4 * 0.5**0.9), 0.1),
        ({"form": "ifvd"}, torch.optim.Adam, (4e-4, 4e-4 * 0.5**0.9), 0.1),
        ({"form": "cirkd"}, torch.optim.Adam, (4e-4, 4e-4), 0.1),
        (
            {"form": "skd", "optimizer": "adam", "lr": 1e-3, "schedule": "constant"}
            | {"critic_weight": 2},
            torch.optim.Adam,
            (1e-3, 1e-3),
            2.0,
        ),
    ],
)
def test_optimiser_schedule_and_weight_are_the_forms_or_the_options(
    options, optimizer, rates, weight
) -> None:
    adversary = built(**options).adversary
    made = adversary.optimizer(5e-4)
    assert type(made) is optimizer
    group = made.param_groups[0]
    if optimizer is torch.optim.SGD:
        assert (group["momentum"], group["weight_decay"]) == (0.9, 5e-4)
    else:
        assert (group["betas"], group["weight_decay"]) == ((0.9, 0.99), 0)
    assert len(group["params"]) == len(list(adversary.parameters()))
    assert (adversary.learning_rate(0.0), adversary.learning_rate(0.5)) == pytest.approx(rates)
    assert adversary.weight == weight


@pytest.mark.parametrize("form", FORMS)
def test_a_trained_critic_tells_the_teacher_from_the_student(form) -> None:
    loss = built(form=form, optimizer="adam").train()
    student, teacher = drawn()
    student = student.detach()
    teacher = 4 * F.avg_pool2d(teacher, 3, stride=1, padding=1)
    optimizer = loss.adversary.requires_grad_(True).optimizer(0.0)
    torch.manual_seed(0)
    for _ in range(12):
        optimizer.zero_grad()
        loss.adversary(student, teacher).backward()
        optimizer.step()
    critic = loss.adversary.critic
    assert (critic(teacher).min() > critic(student).max()).item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "lsgan"}, "holistic: objective is 'lsgan'; expected wgan or hinge"),
        ({"optimizer": "sdg"}, "holistic: optimizer is 'sdg'; expected sgd or adam"),
        ({"schedule": "step"}, "holistic: schedule is 'step'; expected poly or constant"),
        ({"lr": 0}, "holistic: lr is 0; expected a positive number"),
        ({"critic_weight": -1}, "holistic: critic_weight is -1; expected a positive number"),
    ],
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        HolisticKD(**options)


def test_before_build_there_is_no_critic() -> None:
    with pytest.raises(ValueError, match="there is no critic yet; call build"):
        HolisticKD()(*drawn())


def test_the_critic_alone_needs_no_loss() -> None:
    critic = Critic(5, (20, 20), batch_norm=False, conditional=False)
    assert critic(torch.randn(1, 5, 20, 20)).shape == (1, 1)
