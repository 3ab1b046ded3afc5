import pytest

from segdistill.names import check_options, hint, unknown


def test_the_nearest_name_and_all_known_names_are_listed() -> None:
    assert unknown("loss", "pairwize", ["pixelwise", "pairwise"]) == (
        "no loss named 'pairwize'; did you mean 'pairwise'? (known: pairwise, pixelwise)"
    )


def test_nothing_is_suggested_without_a_near_name() -> None:
    assert unknown("tap", "zzz", ["logits"]) == "no tap named 'zzz' (known: logits)"
    assert unknown("tap", "logits", []) == "no tap named 'logits' (known: none)"


def test_only_the_ten_nearest_of_many_names_are_listed() -> None:
    message = unknown("module", "layer77", [f"layer{i}" for i in range(100)])
    assert "did you mean 'layer77'" in message
    listed = message.split("nearest: ")[1].rstrip(")").split(", ")
    assert len(listed) == 10
    assert listed[0] == "layer77"


def _net(num_classes: int, width: int = 4, *, depth: int = 2) -> None: ...


def _open(width: int = 4, **others: int) -> None: ...


class _Sized:
    def __init__(self, width: int) -> None: ...


def test_an_unknown_option_names_the_nearest_but_not_the_callers_parameters() -> None:
    check_options("net", ["width", "depth"], _net, besides=["num_classes"])
    with pytest.raises(ValueError) as error:
        check_options("net", ["widht"], _net, besides=["num_classes"])
    assert str(error.value) == (
        "no option of net named 'widht'; did you mean 'width'? (known: depth, width)"
    )
    with pytest.raises(ValueError, match="no option of net named 'num_classes'"):
        check_options("net", ["num_classes"], _net, besides=["num_classes"])
    with pytest.raises(ValueError, match=r"'wdth'; did you mean 'width'\? \(known: width\)"):
        check_options("sized", ["wdth"], _Sized)


def test_a_callable_with_kwargs_accepts_any_option_unless_strict() -> None:
    check_options("open", ["widht"], _open)
    with pytest.raises(ValueError, match=r"'widht'; did you mean 'width'\? \(known: width\)"):
        check_options("open", ["widht"], _open, strict=True)


def test_a_callable_without_signature_accepts_any_option() -> None:
    check_options("int", ["bass"], int)


def test_absurd_counts_are_refused_before_anything_is_made() -> None:
    def network(depth: int = 1, seed: int = 0, scale: float = 1.0) -> None: ...

    check_options("net", {"depth": 1000, "seed": 2**62, "scale": 1e18}, network)
    with pytest.raises(ValueError, match=f"option depth is {10**18}; expected at most 1000000000"):
        check_options("net", {"depth": 10**18}, network)


def _named(names: list[str] | int | None = None) -> None: ...


def test_words_that_yaml_takes_for_true_or_false_are_explained() -> None:
    with pytest.raises(
        ValueError, match=r"expected a list of text or an integer.*Quote words such"
    ):
        check_options("set", {"names": [False, True]}, _named)
    with pytest.raises(ValueError, match=r"expected a list of text or an integer or null$"):
        check_options("set", {"names": [1, 2]}, _named)


def test_a_number_that_yaml_takes_for_text_is_spelt_out() -> None:
    assert hint("1e-3") == ". Write 1.0e-3, as YAML takes 1e-3 for text"
    assert hint("-2E5") == ". Write -2.0e+5, as YAML takes -2E5 for text"
    assert hint("e5") == hint("1.0e-3x") == ""
