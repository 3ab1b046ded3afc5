"""`segdistill check`: audits the data and the teacher of a recipe before any long work."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table

from segdistill.config import DataConfig, Recipe, to_dict
from segdistill.data.dataset import list_names
from segdistill.data.label_map import colour_text
from segdistill.data.labelled import labelled_samples
from segdistill.distillation.catalogue import build_method
from segdistill.escaping import terminal_line
from segdistill.names import height_by_width
from segdistill.run.auditing.data_audit import (
    Findings,
    Split,
    judge,
    judge_both,
    judge_sizes,
    missing_labels,
    open_for_audit,
    split_of,
)
from segdistill.run.auditing.pixels import judged_pixels
from segdistill.run.auditing.proposal import proposals
from segdistill.run.auditing.samples import write_samples
from segdistill.run.auditing.survey import Survey, survey
from segdistill.run.auditing.suspects import suspect
from segdistill.run.auditing.teacher import judged, one_sided, unmeasurable
from segdistill.run.console import render, say
from segdistill.run.evaluation import Protocol, measure, predicted_pixels
from segdistill.run.folder import recorded_miou
from segdistill.run.networks import load_teacher
from segdistill.run.opening import open_set, resolve_device, with_teacher_classes
from segdistill.run.progress import counting

_ROWS = 32
"""Rows of undeclared ids in the table before `and n more`."""


def check(
    recipe: Recipe,
    name: str = "RECIPE",
    rehearse: Callable[[Recipe, Sequence[str], bool], list[str]] | None = None,
    page: str | None = None,
) -> None:
    """Audit a recipe's data and teacher, and print the findings.

    Every image and mask of both splits, and of further evaluation sets, is read once. The declared mapping
    may be wrong: the ids in the masks are counted without it, and a mapping that would fit is printed.

    Args:
        recipe: The recipe to check.
        name: The recipe's file, for the last line.
        rehearse: Gives the problems of what training builds from a recipe and these class names, with a
            batch if told so.
        page: File that samples of the splits are drawn in; None: none is written.

    Raises:
        OSError: The page cannot be written.
        ValueError: There are problems to fix before training; one line, raised after printing.
    """
    findings = Findings()
    recipe = with_teacher_classes(recipe)
    labelled = recipe.teacher is None
    opened = [open_for_audit(recipe.data, w, findings, labelled) for w in ("train", "val")]
    splits = [split for split in opened if split.dataset is not None]
    surveys = []
    for split in splits:
        with counting(f"reading {split.name}") as progress:
            surveys.append(survey(split.dataset, split.label_map, progress, split.orientation))
        _print_split(split, surveys[-1])
    masked = [pair for pair in zip(splits, surveys, strict=True) if pair[0].labelled]
    if len({tuple(split.classes) for split, _ in masked}) == 1:
        _print_classes([split for split, _ in masked], [one for _, one in masked])
    else:
        for split, one in masked:
            _print_classes([split], [one])
    if page is not None:
        write_samples(Path(page), splits)
        _print(f"samples with their labels: {page}")
    judge(splits, surveys, findings)
    _check_pixels(splits, surveys, findings)
    for split in splits[:1]:
        _check_method(recipe, split, findings)
    judge_sizes(recipe, splits, surveys, findings)
    _check_sets(recipe, splits[:1], surveys[:1], findings)
    proposed = _propose(recipe.data, splits, surveys)
    if recipe.teacher is not None:
        if all(split.opened for split in opened) and not any(one.unusable for one in surveys):
            _check_teacher(recipe, opened[1], findings)
        else:
            findings.warnings.append("the teacher was not measured. Fix the data first")
    if rehearse is not None and splits and splits[0].classes:
        findings.add_problems(rehearse(recipe, splits[0].classes, not findings.problems))
    # Methods are ranked by mIoU, which needs labels.
    comparable = recipe.teacher is not None and all(split.labelled for split in opened[1:])
    command = "compare" if comparable else "train"
    _verdict(findings, f"segdistill {command} {name}", proposed)


def _print_split(split: Split, one: Survey) -> None:
    sizes = [f"{height_by_width(size)} ({count})" for size, count in one.sizes.most_common()]
    modes = [
        f"{mode} ({seen.images}{'' if seen.images == one.samples else f', first {seen.file}'})"
        for mode, seen in sorted(one.modes.items(), key=lambda item: -item[1].images)
    ]
    _print(f"{split.name}: {one.samples} images {_labels_of(split)}")
    if split.name != "train" and one.names:
        _print(f"  names: {list_names(list(one.names.values()))}")
    _print(f"  images, height x width: {list_names(sizes) or 'none could be read'}")
    if split.labelled:
        _print(f"  masks: mode {list_names(modes) or 'none could be read'}")


def _labels_of(split: Split) -> str:
    if not split.labelled:
        return "without labels"
    flags = [pair.labelled for pair in split.dataset] if isinstance(split.dataset, list) else []
    flags = flags or labelled_samples(split.dataset)
    return "with masks" if all(flags) else f"with masks for {sum(flags)} of them"


def _print_classes(splits: Sequence[Split], surveys: Sequence[Survey]) -> None:
    """One row per class, or per raw id without a usable mapping: its ids, pixels and images."""
    columns = [f"{split.name} {unit}" for split in splits for unit in ("%", "images")]
    table = Table("class", "ids", *columns, box=None, pad_edge=False, header_style="bold")
    mapped = surveys[0].label_map is not None
    if mapped:
        ids = _ids_of_classes(surveys)
        for number, name in enumerate([*splits[0].classes, "(ignored)"]):
            title = f"{number} {name}" if number < len(splits[0].classes) else name
            counts = [(s.class_pixels[number], s.class_images[number]) for s in surveys]
            table.add_row(title, ids[number], *_cells(counts, surveys))
    by_colour = surveys[0].by_colour or not (mapped or any(s.ids for s in surveys))
    seen = [s.undeclared if mapped else s.colours if by_colour else s.ids for s in surveys]
    undeclared = sorted({raw for one in seen for raw in one})
    for raw in undeclared[:_ROWS]:
        counts = [(one[raw].pixels, one[raw].images) if raw in one else (0, 0) for one in seen]
        text = colour_text(raw) if by_colour else str(raw)
        table.add_row("(undeclared)", text, *_cells(counts, surveys))
    say(render(table))
    if undeclared[_ROWS:]:
        _print(f"and {len(undeclared) - _ROWS} more ids")


def _ids_of_classes(surveys: Sequence[Survey]) -> list[str]:
    """The raw ids of each class, then the ignored ones, among those that occur."""
    ids: list[set[int]] = [set() for _ in surveys[0].class_pixels]
    for one in surveys:
        assert one.label_map is not None
        for raw in one.raw.keys() - one.undeclared.keys():
            ids[min(int(one.label_map.table[raw]), len(ids) - 1)].add(raw)
    text = colour_text if surveys[0].by_colour else str
    return [list_names([text(raw) for raw in sorted(group)], 6) for group in ids]


def _cells(counts: Sequence[tuple[Any, Any]], surveys: Sequence[Survey]) -> list[str]:
    cells = []
    for (pixels, images), one in zip(counts, surveys, strict=True):
        total = sum(o.pixels for o in one.modes.values())
        cells += [f"{100 * pixels / max(total, 1):.2f}", str(images)]
    return cells


def _propose(config: DataConfig, splits: Sequence[Split], surveys: Sequence[Survey]) -> bool:
    """Print mappings that would fit; returns whether there are any."""
    if config.name != "folder" or not splits:
        return False
    classes = splits[0].classes
    fitting = proposals(surveys, len(classes) or None, config.options.get("palette"))
    for proposal in fitting:
        say(f"\nA mapping to paste under data.options ({proposal.reason}):")
        say(proposal.yaml([terminal_line(name) for name in classes]) or "none: remove `mapping`")
    return bool(fitting)


def _check_pixels(splits: Sequence[Split], surveys: Sequence[Survey], findings: Findings) -> None:
    for split, one in zip(splits, surveys, strict=True):
        if not split.opened or one.faults:
            continue
        with suppress(ValueError, OSError):  # masks that cannot be used are problems already
            refused, warning = judged_pixels(split.dataset, split.name)
            findings.problems += [refused] * bool(refused)
            findings.warnings += [warning] * bool(warning)


def _check_sets(
    recipe: Recipe, train: Sequence[Split], surveys: Sequence[Survey], findings: Findings
) -> None:
    """Audit each further evaluation set by itself, and beside the training split where that could be read."""
    for name in recipe.evaluation:
        try:
            dataset = open_set(recipe, name, train[0].classes if train else None)
        except ValueError as error:
            findings.add_problems([str(error)])
            continue
        split = split_of(f"evaluation.{name}", dataset)
        with counting(f"reading {split.name}") as progress:
            one = survey(split.dataset, split.label_map, progress, split.orientation)
        _print_split(split, one)
        _print_classes([split], [one])
        judge([split], [one], findings)
        _check_pixels([split], [one], findings)
        if train:
            claimed = name == recipe.claims_on
            judge_both([*train, split], [*surveys, one], findings, further=True, claimed=claimed)


def _check_method(recipe: Recipe, train: Split, findings: Findings) -> None:
    """Whether the method can learn from a split without labels."""
    if train.labelled:
        return
    settings, terms = recipe.chosen_method(), to_dict(recipe)["terms"]
    try:
        method = build_method(settings.name, len(train.classes), settings.preset, terms)
        # An optional term is left out for a student without its tap.
        method = method.without(name for name, term in method.terms.items() if term.optional)
    except ValueError as error:
        findings.problems.append(str(error))
        return
    if refused := missing_labels(method, settings.labels, train.name):
        findings.problems.append(refused)


def _check_teacher(recipe: Recipe, val: Split, findings: Findings) -> None:
    assert recipe.teacher is not None
    protocol, absent = Protocol.of(recipe), recipe.evaluate.absent
    device = resolve_device(recipe.train.device)
    try:
        model, origin = load_teacher(recipe.teacher, val.classes)
        source = origin.get("run") or origin.get("model")
        say("\n" + terminal_line(f"teacher: {source}; {origin.get('load', '')}"))
        if recipe.teacher.random:
            return
        if not val.labelled:
            findings.warnings.append(f"the teacher was not measured: {val.name} has no labels")
            findings.add_problems(
                list(filter(None, [unmeasurable(recipe.teacher.min_miou, val.name)]))
            )
            counts = predicted_pixels(model.to(device), val.dataset, protocol)
            findings.warnings += filter(None, [one_sided(counts, val.classes)])
            return
        with counting("measuring the teacher") as progress:
            evaluation = measure(
                model, val.dataset, protocol, absent=absent, device=device, progress=progress
            )
        say(evaluation.table())
        refused, warning = judged(
            100 * evaluation.miou,
            recipe.teacher.min_miou,
            evaluation.confusion,
            recorded_miou(recipe.teacher.run),
            lambda: suspect(model, val.dataset, protocol, absent=absent, device=device),
            thorough=True,
        )
    except (ValueError, OSError) as error:
        findings.problems.append(f"teacher: {error}")
        return
    findings.problems += [refused] * bool(refused)
    findings.warnings += [warning] * bool(warning)


def _verdict(findings: Findings, command: str, proposed: bool) -> None:
    for title, lines in (("problem", findings.problems), ("warning", findings.warnings)):
        for line in lines:
            _print(f"{title}: {line}")
    if findings.problems:
        raise ValueError(
            f"{_counted(len(findings.problems), 'problem')} to fix before training, listed above"
            f"{' with a mapping to paste' if proposed else ''}"
        )
    warnings = f" ({_counted(len(findings.warnings), 'warning')})" if findings.warnings else ""
    say("\n" + terminal_line(f"No problem found{warnings}. Next: {command}"))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _print(line: str) -> None:
    say(terminal_line(line))
