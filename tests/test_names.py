from segdistill.names import unknown


def test_the_nearest_name_and_all_known_ones_are_told() -> None:
    assert unknown("loss", "pairwize", ["pixelwise", "pairwise"]) == (
        "no loss named 'pairwize'; did you mean 'pairwise'? (known: pairwise, pixelwise)"
    )


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert unknown("tap", "zzz", ["logits"]) == "no tap named 'zzz' (known: logits)"
    assert unknown("tap", "logits", []) == "no tap named 'logits' (known: none)"


def test_of_many_names_the_ten_nearest_are_listed() -> None:
    message = unknown("module", "layer77", [f"layer{i}" for i in range(100)])
    assert "did you mean 'layer77'" in message
    listed = message.split("nearest: ")[1].rstrip(")").split(", ")
    assert len(listed) == 10
    assert listed[0] == "layer77"
