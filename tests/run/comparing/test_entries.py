"""Entries of a comparison: roles, labels, and changes that are merged with the recipe's."""

from pathlib import Path
from typing import Any

import pytest

from segdistill.config import Recipe
from segdistill.run.comparing import Entry, default_names, entries_of, is_distilled, same_settings
from segdistill.run.recipe import load_recipe, parse_recipe

TEACHER = {"teacher": {"run": "runs/teacher"}}


def _recipe(*overrides: str, **values: Any) -> Recipe:
    return parse_recipe({**TEACHER, **values}, list(overrides))


def _entries(recipe: Recipe, *names: str) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries_of(recipe, names or list(recipe.variants))}


def test_roles_labels_and_folders() -> None:
    variants = {
        "lr2": {"train": {"lr": 0.5}, "label": "control, lr × 2"},
        "tuned": {"method": "kd", "role": "control"},
        "ours": {"method": "idd"},
        "shuffled": {"method": "idd", "role": "placebo", "label": "shuffled [red]x[/red]"},
    }
    found = _entries(_recipe(variants=variants), "supervised", *variants)
    assert {name: (e.role, e.label, e.recipe.tests) for name, e in found.items()} == {
        "supervised": ("control", "control", None),
        "lr2": ("control", "control, lr × 2", None),
        "tuned": ("control", "tuned", None),
        "ours": ("method", "ours", None),
        "shuffled": ("placebo", "shuffled [red]x[/red]", "ours"),
    }
    assert found["lr2"].run(3, Path("runs/a")).out == "runs/a/lr2-s3"
    assert found["lr2"].recipe.train.lr == 0.5 and found["supervised"].recipe.train.lr == 0.01
    assert found["lr2"].recipe.teacher is None and found["tuned"].recipe.teacher is not None


@pytest.mark.parametrize(
    ("control", "added"),
    [
        ({}, False),
        ({"train": {"lr": 0.5}}, False),  # as tune writes it
        ({"train": {"lr": 0.5}, "label": "other"}, True),
        ({"method": "kd", "label": "other"}, True),
    ],
)
def test_plain_training_is_added_unless_a_variant_is_the_control(
    control: dict[str, Any], added: bool
) -> None:
    recipe = _recipe(variants={"control": control, "kd": {"method": "kd"}})
    names = default_names(recipe)
    assert names == [*(["supervised"] if added else []), "control", "kd"]
    assert entries_of(recipe, names)


def test_a_variant_s_terms_are_merged_with_the_recipe_s() -> None:
    recipe = _recipe(
        "--terms.cross_entropy.options.ohem",
        "0.7",
        "--variants.hot.terms.pixelwise.options.temperature",
        "4",
        terms={
            "cross_entropy": {"options": {"weight": [1.0, 2.0]}},
            "pixelwise": {"weight": 0.3, "options": {"temperature": 2.0, "form": "default"}},
            "attention": {"weight": 5.0, "on": "features"},
        },
        variants={
            "hot": {"method": "kd", "terms": {"pixelwise": {"weight": 0.5}}},
            "cold": {
                "method": "kd",
                "terms": {"pixelwise": {"on": "aux"}, "attention": {"weight": 1}},
            },
            "other": {"method": "kd", "terms": {"pixelwise": {"loss": "channelwise", "weight": 3}}},
        },
    )
    found = {name: entry.recipe.terms for name, entry in _entries(recipe).items()}
    for terms in found.values():
        assert terms["cross_entropy"].options == {"weight": [1.0, 2.0], "ohem": 0.7}
    hot, cold, other = (found[name]["pixelwise"] for name in ("hot", "cold", "other"))
    assert (hot.weight, hot.options) == (0.5, {"temperature": 4, "form": "default"})
    assert (cold.weight, cold.on, cold.options["temperature"]) == (0.3, "aux", 2.0)
    # Another loss has other options, and another weight was given.
    assert (other.loss, other.weight, other.options) == ("channelwise", 3, {})
    assert "attention" not in found["hot"]
    assert (found["cold"]["attention"].weight, found["cold"]["attention"].on) == (1, "features")


def test_options_that_are_mappings_are_merged_at_every_depth() -> None:
    recipe = _recipe(
        terms={"pixelwise": {"options": {"nested": {"a": 1, "b": 2}}}},
        variants={"v": {"method": "kd", "terms": {"pixelwise": {"options": {"nested": {"b": 3}}}}}},
    )
    assert _entries(recipe)["v"].recipe.terms["pixelwise"].options == {"nested": {"a": 1, "b": 3}}


def test_a_variant_s_training_is_merged_with_the_recipe_s() -> None:
    recipe = _recipe(
        "--train.batch",
        "4",
        "--variants.long.train.steps",
        "3000",
        train={"lr": 0.1},
        variants={"long": {"train": {"precision": "bf16"}}, "short": {}},
    )
    found = {name: entry.recipe.train for name, entry in _entries(recipe).items()}
    assert (found["long"].steps, found["long"].batch, found["long"].lr) == (3000, 4, 0.1)
    assert found["long"].precision == "bf16" and found["short"].steps == 1000


def test_a_key_added_to_a_method_keeps_its_name(tmp_path: Path) -> None:
    recipe = _recipe("--variants.v.method.preset", "paper", variants={"v": {"method": "kd"}})
    assert vars(_entries(recipe)["v"].recipe.chosen_method()) == {
        "name": "kd",
        "preset": "paper",
        "labels": "data",
        "confidence": 0.0,
    }
    (tmp_path / "base.yaml").write_text("method: idd\nvariants: {v: {method: skd}}\n")
    (tmp_path / "top.yaml").write_text(
        "base: base.yaml\nmethod: {preset: paper}\nvariants: {v: {method: {preset: paper}}}\n"
    )
    top = load_recipe(tmp_path / "top.yaml")
    assert (top.chosen_method().name, top.chosen_method().preset) == ("idd", "paper")
    variant = top.variants["v"].method
    assert not isinstance(variant, str) and (variant.name, variant.preset) == ("skd", "paper")


def test_a_variant_learns_from_the_labels_that_the_recipe_names() -> None:
    recipe = _recipe(
        method={"name": "kd", "labels": "teacher"},
        variants={"a": {"method": "cwd"}, "plain": {}, "own": {"method": {"name": "cwd"}}},
    )
    labels = {n: e.recipe.chosen_method().labels for n, e in _entries(recipe).items()}
    assert labels == {"a": "teacher", "plain": "data", "own": "data"}


def test_a_supervised_variant_with_a_term_of_the_teacher_keeps_its_teacher() -> None:
    terms = {"attention": {"weight": 1, "on": "features"}}
    found = _entries(_recipe(variants={"attends": {"terms": terms}, "plain": {}}))
    assert found["attends"].recipe.teacher is not None and is_distilled(found["attends"].recipe)
    assert found["plain"].recipe.teacher is None
    assert (found["attends"].role, found["plain"].role) == ("method", "control")


@pytest.mark.parametrize(
    ("variants", "names", "message"),
    [
        ({"a": {}, "b": {"label": "a"}}, (), "'a' and 'b' have the same label, 'a'; expected one"),
        ({"a": {"label": "x\u200b"}, "b": {"label": "x\\u200b"}}, (), "the same label"),
        (
            {"b": {"label": "control"}},
            ("supervised", "b"),
            "'supervised' and 'b' have the same label",
        ),
        ({"kd-paper": {}}, ("kd:paper", "kd-paper"), "the same folder, 'kd-paper'"),
        ({"KD": {"method": "kd"}}, ("kd", "KD"), "the same folder, 'kd'"),
        ({"a": {"label": "teacher"}}, (), "variants.a.label is 'teacher'; expected another text"),
        ({"a": {"method": "kd", "label": "control"}}, (), "label is 'control'.* names a control"),
        ({"a": {"label": "  "}}, (), "variants.a.label is '  '; expected a text"),
        ({"p": {"method": "kd", "role": "placebo"}}, (), r"variants.p.tests is null; .*\(none"),
        (
            {"p": {"method": "skd", "role": "placebo"}},
            ("kd", "cwd", "p"),
            r"tests is null; expected the method .*\('kd', 'cwd'\)",
        ),
        (
            {"p": {"method": "kd", "role": "placebo", "tests": "idd"}},
            ("kd", "p"),
            r"variants.p.tests is idd; expected .*\('kd'\)",
        ),
        (
            {"p": {"method": "kd", "role": "placebo", "tests": "supervised"}},
            ("supervised", "kd", "p"),
            r"tests is supervised; expected .*\('kd'\)",
        ),
        ({"a": {"method": "kd", "tests": "kd"}}, (), "tests is 'kd', but its role is method"),
    ],
)
def test_entries_that_do_not_fit_together_are_refused(
    variants: dict[str, Any], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _entries(_recipe(variants=variants), *names)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"lrr": 1}, r"variants.v.train.lrr: .*did you mean 'lr'"),
        ({"lr": "fast"}, r"variants.v.train.lr is fast; expected a number"),
        ({"lr": float("inf")}, r"variants.v.train.lr is inf; expected a number from 0 to 10\^6"),
        ({"steps": 0}, r"variants.v.train.steps is 0; expected a positive integer"),
        ({"seed": 3}, r"variants.v.train.seed is 3; expected none"),
        ({"steps": None}, r"variants.v.train.steps is null"),
    ],
)
def test_a_variant_s_training_is_checked_as_the_recipe_s(
    train: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _recipe(variants={"v": {"train": train}})


@pytest.mark.parametrize("key", ["label", "tests"])
def test_a_value_of_the_wrong_type_is_named_in_the_words_of_a_recipe(key: str) -> None:
    with pytest.raises(ValueError, match=rf"variants\.\*\.{key} is 5; expected text or null"):
        _recipe(variants={"v": {key: 5}})


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ValueError, match=r"variants.v.role is 'contol'; expected .*'control'"):
        _recipe(variants={"v": {"role": "contol"}})


def test_a_placebo_tests_the_variant_of_its_own_method_or_the_one_it_names() -> None:
    variants = {
        "kd": {"method": "kd"},
        "ours": {"method": "idd", "label": "Ours"},
        "a": {"method": "idd", "role": "placebo"},
        "b": {"role": "placebo", "tests": "kd"},
        "c": {"role": "placebo", "tests": "Ours"},
    }
    found = _entries(_recipe(variants=variants))
    assert {n: found[n].recipe.tests for n in "abc"} == {"a": "Ours", "b": "kd", "c": "Ours"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"method": "kd"}, {"method": "kd", "label": "x"}, True),
        ({"method": "kd"}, {"method": "kd", "terms": {"pixelwise": {"weight": 1.0}}}, True),
        ({"method": "kd"}, {"method": "kd", "train": {"workers": 2, "log_every": 1}}, True),
        ({}, {"method": "kd", "terms": {"pixelwise": {"weight": 0}}}, False),
        ({"method": "kd"}, {"method": "kd", "terms": {"pixelwise": {"weight": 2}}}, False),
        ({"method": "kd"}, {"method": "kd", "train": {"lr": 0.5}}, False),
        ({"method": "kd"}, {"method": {"name": "kd", "preset": "paper"}}, False),
        ({}, {"terms": {"cross_entropy": {"options": {"weight": [1, 2]}}}}, False),
    ],
)
def test_equal_settings_are_told_whatever_their_names(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    found = _entries(_recipe(variants={"a": one, "b": other}))
    assert same_settings(found["a"].run(0, Path("x")), found["b"].run(1, Path("y"))) == same
