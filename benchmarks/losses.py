"""Time and memory of each loss, forward and backward, beside plain versions of some.

    python benchmarks/losses.py --out benchmarks/results/losses.json

Features are those of the paper's pair (512 channels of the teacher, 128 of the student) on the
65 x 65 grid of a 512 x 512 crop; logits and labels have 19 classes at batch 8, and 150 at batch 2.
The labels are blocks, at most 36 classes per image. Times are medians over repeats in which the
cases take turns, so that a disturbance of the machine falls on all. Memory is the high-water
resident size of a fresh process, less that of the same process before the loss ran, inputs in
place. Plain versions follow the text: they loop over the classes, take the differences of tokens, or map
features before they read them.

Every loss of the package is timed in its default form, beside the time of cross-entropy at full size,
which every step pays for; `--forms` adds the published forms, `--losses` leaves out all but some. At the
default size `image_relation`'s `cirkd` holds several copies of a table of more than a thousand
million similarities (4.3 GiB each), so take a smaller `--size` with `--forms`.
"""

import argparse
import inspect
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# The parent must stay small while it starts the processes whose memory is measured: a child's
# high-water mark begins at its parent's size. So torch is imported inside the functions.

TEACHER_WIDTH, STUDENT_WIDTH = 512, 128
SETTINGS = {"19 classes, batch 8": (19, 8), "150 classes, batch 2": (150, 2)}
PLAIN = ["class_tokens", "inter_class", "intra_class", "position", "token_distances"]
PARTS = ["class_tokens", "token_distances"]
TASK = "cross_entropy"

Step = Callable[[], float]


def cases(forms: bool = False, only: list[str] | None = None) -> list[tuple[str, str]]:
    """(loss, version) of everything that is timed: each loss, its forms where asked for, parts, plain versions."""
    from segdistill.losses import LOSSES

    found = [
        (name, form)
        for name, loss in LOSSES.items()
        for form in (loss.forms if forms else loss.forms[:1])
    ]
    found += [*((name, "default") for name in PARTS), *((name, "plain") for name in PLAIN)]
    return [case for case in found if only is None or case[0] in (TASK, *only)]


def reads_logits(name: str) -> bool:
    """Whether a loss is timed on logits: it compares channels as they are, or has no teacher."""
    from segdistill.losses import LOSSES

    loss = LOSSES.get(name)
    if loss is None:
        return False
    compares = loss.matches_channels and not loss.projects
    return compares or "teacher" not in inspect.signature(loss.forward).parameters


def step_of(name: str, version: str, classes: int, batch: int, size: int) -> Step:
    """A function that runs one forward and backward and returns the value.

    Args:
        name: a loss, or one of its parts.
        version: a form of the loss, or `plain`.
        classes: number of classes.
        batch: number of images.
        size: height and width of the features.
    """
    import torch

    generator = torch.Generator().manual_seed(0)

    def drawn(channels: int) -> "Tensor":
        return torch.randn(batch, channels, size, size, generator=generator)

    blocks = torch.randint(0, classes, (batch, 1, 6, 6), generator=generator).float()
    pixels = 8 * (size - 1)
    labels = torch.nn.functional.interpolate(blocks, (pixels, pixels))[:, 0].long()
    if reads_logits(name):
        student, teacher = drawn(classes), drawn(classes)
    else:
        student, teacher = drawn(STUDENT_WIDTH), drawn(TEACHER_WIDTH)
    student.requires_grad_()
    evaluate = (
        _plain(name, student, teacher, classes)
        if version == "plain"
        else _ours(name, version, student, teacher, classes)
    )

    def step() -> float:
        student.grad = None
        value = evaluate(student, teacher, labels)
        value.backward()
        return value.item()

    return step


def _ours(
    name: str, form: str, student: "Tensor", teacher: "Tensor", classes: int
) -> "Callable[[Tensor, Tensor, Tensor], Tensor]":
    import torch

    from segdistill.losses.classwise import class_tokens, sample_labels
    from segdistill.losses.inter_class import token_distances

    if name == "token_distances":
        return _edges(token_distances, classes)
    if name == "class_tokens":

        def tokens(student: "Tensor", teacher: "Tensor", labels: "Tensor") -> "Tensor":
            labels = sample_labels(labels, (student.shape[2], student.shape[3]))
            return class_tokens(student, labels, torch.arange(classes))[0].square().sum()

        return tokens
    loss = _prepared(name, form, student, teacher)
    arguments = list(inspect.signature(loss.forward).parameters)
    critic = getattr(loss, "adversary", None)
    if critic is not None:
        critic.requires_grad_(True)

    def called(student: "Tensor", teacher: "Tensor", labels: "Tensor") -> "Tensor":
        given = {"student": student, "teacher": teacher, "labels": labels, "images": None}
        value: Tensor = loss(*(given[argument] for argument in arguments))
        # A training step pays for the critic's own step, too.
        return value if critic is None else value + critic(student.detach(), teacher)

    return called


def _prepared(name: str, form: str, student: "Tensor", teacher: "Tensor") -> Any:
    from segdistill.losses import LOSSES

    # The fit of a readout before the first step is no part of a step; noise encodes no position.
    options = {"form": form, "steps": 1, "switch_off": "never"}
    known = inspect.signature(LOSSES[name]).parameters
    loss = LOSSES[name](**{key: value for key, value in options.items() if key in known})
    loss.build(student.shape, teacher.shape)
    loss.prepare([(student.detach(), teacher)])
    return loss.train()


def _edges(
    distances: "Callable[[Tensor], Tensor]", classes: int
) -> "Callable[[Tensor, Tensor, Tensor], Tensor]":
    """Distances of as many tokens as classes, by their mean: the first cells of the maps."""

    def edges(student: "Tensor", teacher: "Tensor", labels: "Tensor") -> "Tensor":
        ours, theirs = (x.flatten(2)[..., :classes].mT.contiguous() for x in (student, teacher))
        return distances(ours).mean() / distances(theirs).mean()

    return edges


def _plain(
    name: str, student: "Tensor", teacher: "Tensor", classes: int
) -> "Callable[[Tensor, Tensor, Tensor], Tensor]":
    """The same values: loops over all classes with masks of the features' full size, or step by step."""
    import torch

    if name == "token_distances":
        mode = "donot_use_mm_for_euclid_dist"
        return _edges(lambda tokens: torch.cdist(tokens, tokens, compute_mode=mode), classes)
    return _mapped(student, teacher) if name == "position" else _loop(name, classes)


def _mapped(student: "Tensor", teacher: "Tensor") -> "Callable[[Tensor, Tensor, Tensor], Tensor]":
    """Position: the student's features through the fitted map, then 3x3 convolutions of both networks."""
    import torch
    from torch.nn import functional as F

    from segdistill.losses.position import mask_difference
    from segdistill.losses.ridge import ridge_map

    loss = _prepared("position", "default", student, teacher)
    fitted, readout = loss.adapter, loss.readout

    def masks(features: "Tensor") -> "Tensor":
        read: Tensor = readout.norm(F.conv2d(features, readout.conv.weight)).sigmoid()
        return read

    def position(student: "Tensor", teacher: "Tensor", labels: "Tensor") -> "Tensor":
        weight = ridge_map(fitted.student_moment, fitted.cross_moment, fitted.ridge).to(student)
        with torch.no_grad():
            target = masks(teacher)
        value = mask_difference(
            masks(F.conv2d(student, weight[..., None, None])), target, loss.axes
        )
        fitted.renew(student.detach(), teacher)
        return value

    return position


def _loop(name: str, classes: int) -> "Callable[[Tensor, Tensor, Tensor], Tensor]":
    """The same values, by loops over all classes with masks of the features' full size."""
    import torch

    from segdistill.losses.classwise import sample_labels

    def mask_of(features: "Tensor", labels: "Tensor", k: int) -> "Tensor":
        return (labels[:, None] == k).expand(features.shape).to(features)

    def tokens(features: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
        means, counts = [], []
        for k in range(classes):
            mask = mask_of(features, labels, k)
            count = mask[:, 0].sum((1, 2))
            means.append((features * mask).sum((2, 3)) / count.clamp_min(1)[:, None])
            counts.append(count)
        return torch.stack(means, 1), torch.stack(counts, 1)

    def class_tokens(student: "Tensor", teacher: "Tensor", labels: "Tensor") -> "Tensor":
        here = sample_labels(labels, (student.shape[2], student.shape[3]))
        return tokens(student, here)[0].square().sum()

    def inter_class(student: "Tensor", teacher: "Tensor", labels: "Tensor") -> "Tensor":
        here = sample_labels(labels, (student.shape[2], student.shape[3]))
        (ours, counts), (theirs, _) = tokens(student, here), tokens(teacher, here)
        edges: list[list[tuple[Tensor, Tensor, Tensor]]] = []
        for b in range(len(student)):
            edges.append([])
            for i in range(classes):
                for j in range(i + 1, classes):
                    if min(counts[b, i], counts[b, j]) >= 4:
                        mine = torch.linalg.vector_norm(ours[b, i] - ours[b, j])
                        other = torch.linalg.vector_norm(theirs[b, i] - theirs[b, j])
                        edges[b].append((mine, other, (counts[b, i] * counts[b, j]).sqrt()))
        mean = [torch.stack([edge[n] for image in edges for edge in image]).mean() for n in (0, 1)]
        images = []
        for image in edges:
            squares = [w * (mine / mean[0] - other / mean[1]) ** 2 for mine, other, w in image]
            images.append(torch.stack(squares).sum() / torch.stack([w for *_, w in image]).sum())
        return torch.stack(images).mean()

    def similarity(features: "Tensor", labels: "Tensor") -> "Tensor":
        centres = features
        for k in range(classes):
            mask = mask_of(features, labels, k)
            mean = (features * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1)
            centres = (1 - mask) * centres + mask * mean[..., None, None]
        return torch.nn.functional.cosine_similarity(features, centres)

    def intra_class(student: "Tensor", teacher: "Tensor", labels: "Tensor") -> "Tensor":
        here = sample_labels(labels, (student.shape[2], student.shape[3]))
        return (similarity(student, here) - similarity(teacher, here)).square().mean()

    return {
        "class_tokens": class_tokens,
        "inter_class": inter_class,
        "intra_class": intra_class,
    }[name]


def memory_of(name: str, version: str, classes: int, batch: int, size: int) -> float:
    """MiB that one step adds to the high-water resident size of this process."""
    step = step_of(name, version, classes, batch, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memories(
    size: int, threads: int, forms: bool, only: list[str] | None
) -> dict[tuple[str, str, str], float]:
    """The memory of each case, each in a process of its own."""
    found = {}
    # The table of losses imports torch, so another process reads it.
    chosen = [] if only is None else ["--losses", *only]
    listed = _told("--list-cases", *["--forms"] * forms, *chosen)
    for setting, (classes, batch) in SETTINGS.items():
        for name, version in json.loads(listed):
            case = [name, version, str(classes), str(batch), str(size)]
            output = _told("--threads", str(threads), "--memory-of", *case)
            found[setting, name, version] = float(output)
    return found


def _told(*arguments: str) -> str:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def times(
    size: int, repeats: int, forms: bool, only: list[str] | None
) -> dict[tuple[str, str, str], list[float]]:
    """Milliseconds of each case in each repeat; plain versions' values are checked on the way."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for setting, (classes, batch) in SETTINGS.items():
        steps = {case: step_of(*case, classes, batch, size) for case in cases(forms, only)}
        values = {case: step() for case, step in steps.items()}
        for name in (name for name in PLAIN if (name, "plain") in values):
            ours, plain = values[name, "default"], values[name, "plain"]
            assert abs(ours - plain) <= 1e-3 * abs(plain), (name, ours, plain)
        for _ in range(repeats):
            for case, step in steps.items():
                start = time.perf_counter()
                step()
                row = found.setdefault((setting, *case), [])
                row.append((time.perf_counter() - start) * 1e3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=65, help="height and width of the features")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--forms", action="store_true", help="time the published forms, too")
    parser.add_argument("--losses", nargs="+", help="time these only, and cross-entropy")
    parser.add_argument("--memory-of", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--list-cases", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list_cases:
        print(json.dumps(cases(options.forms, options.losses)))
        return
    of_one = bool(options.memory_of)
    which = (options.forms, options.losses)
    memory = {} if of_one else memories(options.size, options.threads, *which)
    import torch

    torch.set_num_threads(options.threads)
    if options.memory_of:
        name, version, *numbers = options.memory_of
        print(memory_of(name, version, *(int(number) for number in numbers)))
        return
    rows = []
    found = times(options.size, options.repeats, *which)
    for key, values in found.items():
        setting, name, version = key
        task = statistics.median(found[setting, TASK, "default"])
        rows.append(
            {
                "setting": setting,
                "loss": name,
                "version": version,
                "milliseconds": round(statistics.median(values), 2),
                "of_cross_entropy": round(statistics.median(values) / task, 4),
                "mebibytes": round(memory[key], 1),
            }
        )
    show(rows)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "command": "python benchmarks/losses.py " + " ".join(sys.argv[1:]),
            "size": options.size,
            "channels": {"student": STUDENT_WIDTH, "teacher": TEACHER_WIDTH},
            "repeats": options.repeats,
            "threads": options.threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "rows": rows,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def show(rows: list[dict[str, object]]) -> None:
    """Print the rows, each plain version beside its loss."""
    plains = {(row["setting"], row["loss"]): row for row in rows if row["version"] == "plain"}
    print(f"{'':50}{'time, ms':>22}{'':19}{'memory, MiB':>22}")
    print(f"{'':50}{'ours':>11}{'/ task':>11}{'plain':>11}{'ratio':>8}{'ours':>11}{'plain':>11}")
    for row in rows:
        if row["version"] == "plain":
            continue
        ours = row["version"] == "default"
        name = str(row["loss"]) if ours else f"{row['loss']} {row['version']}"
        line = f"{row['setting']!s:22}{name:28}{row['milliseconds']:11.1f}"
        line += f"{row['of_cross_entropy']:11.3f}"
        plain = plains.get((row["setting"], row["loss"])) if ours else None
        if plain:
            ratio = float(str(plain["milliseconds"])) / float(str(row["milliseconds"]))
            line += f"{plain['milliseconds']:11.1f}{ratio:7.1f}x"
        else:
            line += " " * 19
        print(line + f"{row['mebibytes']:11.1f}" + (f"{plain['mebibytes']:11.1f}" if plain else ""))


if __name__ == "__main__":
    main()
