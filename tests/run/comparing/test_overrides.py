"""Options of the command line that would not reach what is compared."""

import pytest

from segdistill.config import FoldConfig, MethodConfig, Recipe, TermConfig, VariantConfig
from segdistill.run.comparing import refuse_without_effect
from tests.run import small


@pytest.fixture
def recipe() -> Recipe:
    made = small.recipe()
    made.variants = {
        "control": VariantConfig(),
        "kd": VariantConfig(
            method=MethodConfig("kd"),
            terms={"pixelwise": TermConfig(weight=2.0, options={"temperature": 4})},
            train={"lr": 0.1},
        ),
        "slow": VariantConfig(train={"lr": 0.01}),
    }
    made.folds = {"a": FoldConfig(data={"train_options": {"seed": 3}}), "b": FoldConfig()}
    return made


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--train.lr", "0.5"],
            r"^--train\.lr has no effect on variants\.kd, variants\.slow, which set it themselves; expected one "
            r"value\. Use --variants\.kd\.train\.lr, or",
        ),
        (["--train={lr: 1}"], r"--train has no effect on variants\.kd"),
        (
            ["--terms.pixelwise.weight=0"],
            r"terms\.pixelwise\.weight has no effect on variants\.kd,",
        ),
        (["--terms.pixelwise.options.temperature=1"], "no effect on variants"),
        (["--data.train_options.seed=1"], r"no effect on folds\.a, which"),
        (["--train.seed", "4"], r"--train\.seed is 4; expected none, .* Use --first_seed"),
    ],
)
def test_an_option_that_a_row_or_a_fold_replaces_is_refused(
    words: list[str], message: str, recipe: Recipe
) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_without_effect(recipe, words, None)


@pytest.mark.parametrize(
    "words",
    [
        ["--train.steps", "3", "--out", "x", "--terms.pixelwise.on=logits"],
        ["--variants.kd.train.lr=1", "--terms.pairwise.weight=0", "--data.train_options.limit=2"],
    ],
)
def test_options_that_reach_every_row_are_taken(words: list[str], recipe: Recipe) -> None:
    refuse_without_effect(recipe, words, None)


def test_only_what_is_compared_counts(recipe: Recipe) -> None:
    refuse_without_effect(recipe, ["--train.lr=1"], ["control"])
    with pytest.raises(ValueError, match=r"on variants\.slow, which"):
        refuse_without_effect(recipe, ["--train.lr=1"], ["control", " slow"])
