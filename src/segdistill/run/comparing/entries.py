"""The entries of a comparison: methods and variants as recipes that lack only a seed."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segdistill.config import MethodConfig, Recipe, Role, TermConfig, VariantConfig
from segdistill.distillation.catalogue import METHODS, method_terms
from segdistill.distillation.method import override
from segdistill.escaping import terminal_line
from segdistill.names import unknown
from segdistill.run.comparing.settings import is_distilled, role_of, same_settings
from segdistill.run.recipe import joined, variant_teacher, variant_training

RIVALS = ("kd", "cwd", "idd")


@dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Attributes:
        name: As it is asked for: a variant, or a method such as `idd:paper`.
        folder: Start of the names of its run folders.
        recipe: The recipe of its runs, without seed and folder.
    """

    name: str
    folder: str
    recipe: Recipe

    @property
    def role(self) -> Role:
        """Its part in the comparison."""
        return role_of(self.recipe)

    @property
    def label(self) -> str:
        """Its name in tables."""
        plain = "control" if self.role == "control" else self.name
        return plain if self.recipe.label is None else self.recipe.label

    def run(self, seed: int, base: Path) -> Recipe:
        """The recipe of its run with a seed, in its folder inside `base`."""
        train = replace(self.recipe.train, seed=seed)
        return replace(self.recipe, train=train, out=str(base / f"{self.folder}-s{seed}"))


def entries_of(recipe: Recipe, names: Sequence[str]) -> list[Entry]:
    """The entries with these names, checked against each other.

    Raises:
        ValueError: A name is unknown, a variant cannot be built, two entries share a label or a folder,
            or a placebo does not say which of several methods it tests.
    """
    entries = [entry_of(recipe, name) for name in dict.fromkeys(names)]
    entries = [with_tested(entry, recipe, entries) for entry in entries]
    for entry in entries:
        _check_label(entry)
    for what, values in (
        ("label", [terminal_line(entry.label).strip() for entry in entries]),
        ("folder", [entry.folder.casefold() for entry in entries]),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            sharing = [
                e.name for e, value in zip(entries, values, strict=True) if value == twice[0]
            ]
            raise ValueError(
                f"compare: {' and '.join(map(repr, sharing))} have the same {what}, {twice[0]!r}; expected "
                f"one {what} each. {'Set label' if what == 'label' else 'Rename a variant'}"
            )
    return entries


def default_names(recipe: Recipe) -> list[str]:
    """What is compared unless asked otherwise: the control and the variants, or, without variants, the rivals.

    Only the variants, if one of them is that control or a control of its name, such as a tuned one.
    """
    if not recipe.variants:
        return ["supervised", *RIVALS]
    plain = entry_of(recipe, "supervised")
    known = [entry_of(recipe, name) for name in recipe.variants]
    controls = [e for e in known if e.role == "control"]
    there = any(e.label == plain.label or same_settings(e.recipe, plain.recipe) for e in controls)
    return list(recipe.variants) if there else ["supervised", *recipe.variants]


def entry_of(recipe: Recipe, name: str) -> Entry:
    """The variant with this name or, if there is none, the method of the catalogue.

    Raises:
        ValueError: There is neither, or the variant cannot be built.
    """
    if name in recipe.variants:
        return _variant_entry(recipe, name)
    method_name, _, preset = name.partition(":")
    if recipe.variants and method_name not in METHODS:
        known = {**METHODS, **recipe.variants}
        raise ValueError(unknown("method or variant", method_name, known))
    method = MethodConfig(method_name, preset or "default")  # type: ignore[arg-type]
    if method_name != "supervised":
        method = _learning_as(recipe, method)
    return method_entry(recipe, method)


def _learning_as(recipe: Recipe, method: MethodConfig) -> MethodConfig:
    """The method with the labels that the recipe's learns from."""
    own = recipe.chosen_method()
    return replace(method, labels=own.labels, confidence=own.confidence)


def method_entry(recipe: Recipe, method: MethodConfig) -> Entry:
    """The entry of a method of the catalogue; the recipe's terms apply if the method has them."""
    specs = method_terms(method.name, method.preset)
    terms = {name: change for name, change in recipe.terms.items() if name in specs}
    default = method.preset == "default"
    name = method.name if default else f"{method.name}:{method.preset}"
    folder = method.name if default else f"{method.name}-{method.preset}"
    made = replace(recipe, method=method, terms=terms, label=None, role=None)
    return Entry(name, folder, _bare(made))


def _bare(recipe: Recipe) -> Recipe:
    """Without variants, and without a teacher that nothing learns from."""
    teacher = recipe.teacher if is_distilled(recipe) else None
    return replace(
        recipe, teacher=teacher, variants={}, folds={}, tuning=None, tuned=None, tests=None
    )


def _variant_entry(recipe: Recipe, name: str) -> Entry:
    variant = recipe.variants[name]
    if not re.fullmatch(r"[\w+.-]+", name):
        raise ValueError(
            f"variants: {name!r} names a folder; use only letters, digits, '_', '+', '.' and '-'"
        )
    method = variant.method
    if not isinstance(method, MethodConfig):
        method = MethodConfig(method)
        if method.name != "supervised":
            method = _learning_as(recipe, method)
    try:
        terms = _merged_terms(recipe, variant, method)
        changes = {term: vars(change) for term, change in terms.items()}
        override(method_terms(method.name, method.preset), changes)
    except ValueError as error:
        raise ValueError(f"variants.{name}: {error}") from None
    made = replace(
        recipe,
        method=method,
        terms=terms,
        train=variant_training(recipe, name),
        teacher=variant_teacher(recipe, name),
        label=name if variant.label is None else variant.label,
        role=variant.role,
    )
    _check_random(made, variant, f"variants.{name}")
    return Entry(name, name, _bare(made))


def _check_random(recipe: Recipe, variant: VariantConfig, key: str) -> None:
    """Refuse a random teacher of anything but a placebo."""
    if variant.teacher and not is_distilled(recipe):
        raise ValueError(
            f"{key}.teacher is random, but nothing learns from it; expected a method that does. Name one"
        )
    if recipe.random_teacher and is_distilled(recipe) and role_of(recipe) != "placebo":
        raise ValueError(
            f"{key}.role is {recipe.role} with a random teacher; expected placebo. Leave role out"
        )


def _merged_terms(
    recipe: Recipe, variant: VariantConfig, method: MethodConfig
) -> dict[str, TermConfig]:
    """The recipe's changes to terms that the method has or the variant names, and the variant's upon them."""
    specs = method_terms(method.name, method.preset)
    terms = {k: v for k, v in recipe.terms.items() if k in specs or k in variant.terms}
    for name, change in variant.terms.items():
        own_loss = specs[name].loss if name in specs else name
        terms[name] = _merged_term(terms[name], change, own_loss) if name in terms else change
    return terms


def _merged_term(below: TermConfig, upon: TermConfig, own_loss: str) -> TermConfig:
    given = {key: value for key, value in vars(upon).items() if value is not None}
    other = upon.loss not in (None, below.loss or own_loss)
    # Another loss has other options.
    given["options"] = upon.options if other else joined(below.options, upon.options)
    return replace(below, **given)


def with_tested(entry: Entry, recipe: Recipe, entries: Sequence[Entry]) -> Entry:
    """The entry, and for a placebo the label of the method that it tests."""
    variant = recipe.variants.get(entry.name)
    named = None if variant is None else variant.tests
    key = f"variants.{entry.name}"
    if entry.role != "placebo":
        if named is not None:
            raise ValueError(
                f"{key}.tests is {named!r}, but its role is {entry.role}; expected role: placebo"
            )
        return entry
    methods = [other for other in entries if other.role == "method"]
    if named is None:
        name = entry.recipe.chosen_method().name
        alike = [m for m in methods if m.recipe.chosen_method().name == name]
        found = alike if len(alike) == 1 else methods
    else:
        found = [m for m in methods if named in (m.name, m.label)]
    if len(found) != 1:
        known = ", ".join(repr(m.name) for m in methods) or "none, so add one"
        raise ValueError(
            f"{key}.tests is {named or 'null'}; expected the method that the placebo tests, one of those "
            f"compared ({known})"
        )
    return replace(entry, recipe=replace(entry.recipe, tests=found[0].label))


def _check_label(entry: Entry) -> None:
    label = entry.label.strip()
    if not label or label == "teacher" or (label == "control" and entry.role != "control"):
        reason = "it names the teacher's row" if label == "teacher" else "it names a control"
        raise ValueError(
            f"variants.{entry.name}.label is {entry.label!r}; expected "
            f"{f'another text, as {reason}' if label else 'a text'}"
        )
