import pytest
import torch

from segdistill.distillation.catalogue import build_method, method_terms
from segdistill.distillation.method import build_loss


def test_the_total_weighs_each_term() -> None:
    off = {name: {"weight": 0} for name in ("cross_entropy_aux", "cross_entropy_aux_coarse")}
    method = build_method("kd", 3, terms={"pixelwise": {"weight": 2.5}, **off})
    values = {"cross_entropy": torch.tensor(1.0), "pixelwise": torch.tensor(4.0)}
    assert set(method.terms) == set(values)
    assert float(method.total(values)) == 1.0 + 2.5 * 4.0


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [1, 1, 1]), ("linear", [1, 0.5, 0]), ("cosine", [1, 0.5, 0])],
)
def test_a_weight_follows_its_schedule_from_the_first_step_to_the_last(
    schedule: str, factors: list[float]
) -> None:
    method = build_method("kd", 3, terms={"pixelwise": {"weight": 4.0, "schedule": schedule}})
    found = [method.weights(progress) for progress in (0.0, 0.5, 1.0)]
    assert [each["pixelwise"] for each in found] == pytest.approx([4 * f for f in factors])
    assert [each["cross_entropy"] for each in found] == [1, 1, 1]
    values = {name: torch.tensor(2.0) for name in method.terms}
    others = method.total(values, 1.0) - 2 * found[2]["pixelwise"]
    assert float(method.total(values, 0.5) - others) == pytest.approx(2 * 4 * factors[1])


def test_a_cosine_falls_slowly_at_both_ends() -> None:
    term = build_method("kd", 3, terms={"pixelwise": {"schedule": "cosine"}}).terms["pixelwise"]
    assert term.weight_at(0.25) == pytest.approx((1 + 0.5**0.5) / 2)
    assert build_method("kd", 3).terms["pixelwise"].weight_at(0.7) == term.weight


def test_an_override_keeps_what_it_does_not_name() -> None:
    plain = method_terms("cwd")["channelwise"]
    term = build_method("cwd", 3, terms={"channelwise": {"options": {"temperature": 2.0}}}).terms[
        "channelwise"
    ]
    assert term.weight == plain.weight
    assert term.loss.temperature == 2.0
    assert term.source == "recipe"


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            {"chanelwise": {"weight": 1.0}},
            "terms.chanelwise: no loss named 'chanelwise'; did you mean 'channelwise'",
        ),
        (
            {"channelwise": {"schedule": "cosin"}},
            r"terms\.channelwise: schedule is 'cosin'; expected constant, linear or cosine",
        ),
        ({"pairwise": {}}, "terms.pairwise.weight is missing; expected a number"),
        (
            {"channelwise": {"weight": -1.0}},
            r"terms\.channelwise\.weight is -1\.0; expected 0 \(off\) or a positive number",
        ),
        (
            {"channelwise": {"options": {"temprature": 2}}},
            "terms.channelwise: .*did you mean 'temperature'",
        ),
    ],
)
def test_a_bad_override_is_refused_by_its_path(terms: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_method("cwd", 3, terms=terms)


def test_unknown_methods_and_presets_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'idd'"):
        build_method("iddd", 3)
    with pytest.raises(ValueError, match="did you mean 'paper'"):
        build_method("idd", 3, preset="papr")


def test_a_loss_of_ones_own_is_named_by_its_dotted_path() -> None:
    loss = build_loss("torch.nn.MSELoss", reduction="sum")
    assert float(loss(torch.ones(3), torch.zeros(3))) == 3.0
    with pytest.raises(ValueError, match=r"loss 'torch\.nn\.NoSuchLoss': no class or function"):
        build_loss("torch.nn.NoSuchLoss")
    with pytest.raises(ValueError, match=r"did you mean 'pixelwise'"):
        build_loss("pixelwse")


def test_an_unknown_form_names_the_term_and_the_known_forms() -> None:
    wanted = r"^terms\.pairwise: form is 'ours'; expected default, skd or cirkd$"
    with pytest.raises(ValueError, match=wanted):
        build_method("skd", 3, terms={"pairwise": {"options": {"form": "ours"}}})


def test_the_released_weights_of_ifvd() -> None:
    weights = {name: term.weight for name, term in method_terms("ifvd", "paper").items()}
    assert weights["pixelwise"] == 10
    assert weights["intra_class"] == 200
    assert method_terms("ifvd", "paper")["intra_class"].on == "features_released"


def test_the_released_weights_of_attention_transfer() -> None:
    weights = {name: term.weight for name, term in method_terms("at", "paper").items()}
    assert weights["attention"] == 1e4
    assert weights["pixelwise"] == 1
    assert "pixelwise" not in method_terms("at")


def test_the_released_dist_is_on_the_auxiliary_head_too() -> None:
    terms = method_terms("dist", "paper")
    assert (terms["dist"].on, terms["dist"].weight) == ("logits", 1.0)
    assert (terms["dist_aux"].on, terms["dist_aux"].weight) == ("aux", 0.4)
    assert not terms["dist"].optional
    assert terms["dist_aux"].optional


def test_the_released_weights_of_cirkd() -> None:
    weights = {name: term.weight for name, term in method_terms("cirkd", "paper").items()}
    assert weights["pixelwise"] == weights["image_relation"] == 1
    assert method_terms("cirkd", "paper")["image_relation"].on == "features_released"


def test_the_released_weight_of_hints() -> None:
    term = method_terms("hint", "paper")["hint"]
    assert (term.weight, term.options, term.on) == (10, {"form": "cirkd"}, "features_released")
    assert term.source == "released code"
    assert method_terms("hint")["hint"].source == "assumed"


def test_every_constant_of_bpkd_is_assumed() -> None:
    terms = {name: method_terms("bpkd", "paper")[name] for name in ("boundary", "body")}
    assert {name: (term.weight, term.options) for name, term in terms.items()} == {
        "boundary": (50, {"part": "edge", "form": "paper"}),
        "body": (20, {"part": "body", "form": "paper"}),
    }
    for preset in ("default", "paper"):
        found = method_terms("bpkd", preset)
        assert {found[name].source for name in terms} == {"assumed"}
        assert {found[name].loss for name in terms} == {"boundary"}


@pytest.mark.parametrize(
    ("method", "form", "weight"),
    [
        ("skd", "skd", 0.1),
        ("idd", "skd", 0.1),
        ("ifvd", "ifvd", 0.001),
        ("cwd_features", "cirkd", 0.001),
    ],
)
def test_the_critic_is_in_the_published_presets_alone(
    method: str, form: str, weight: float
) -> None:
    term = method_terms(method, "paper")["holistic"]
    assert (term.weight, term.options, term.on) == (weight, {"form": form}, "logits")
    assert term.source == "released code"
    assert "holistic" not in method_terms(method)


def test_the_released_weights_of_cwd_on_features() -> None:
    terms = method_terms("cwd_features", "paper")
    assert (terms["channelwise"].on, terms["channelwise"].weight) == ("logits", 3)
    features = terms["channelwise_features"]
    assert (features.on, features.weight) == ("features_released", 50)
    assert features.options == terms["channelwise"].options == {"form": "cirkd", "temperature": 4}
