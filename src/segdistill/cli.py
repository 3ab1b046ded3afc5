"""The `segdistill` command: a table of commands. Torch is imported only inside a command, not for `--help`."""

import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn, get_args, get_origin

from docstring_parser import parse_from_object
from jsonargparse import ArgumentError, ArgumentParser

from segdistill import __version__
from segdistill.activity import doing, last_activity
from segdistill.arguments import BOOL, Parser, in_words
from segdistill.dotted import search_in
from segdistill.escaping import terminal_line
from segdistill.names import shortened, unknown


def demo(out: str = "runs/demo", seeds: int = 1, first_seed: int = 0) -> None:
    """Train a teacher, a control and two distilled students on synthetic scenes; print a table and write a report.

    Args:
        out: Folder for the runs and report.html. Finished runs in it are reused.
        seeds: Number of seeds; the students are trained once per seed, the teacher once.
        first_seed: First of the seeds, which count up by one.
    """
    from segdistill.run.demo import demo as run_demo

    run_demo(out, seeds, first_seed)


def train(argv: list[str]) -> None:
    """Train the network that a recipe describes; the same command resumes an interrupted run."""
    from segdistill.run.recipe import load_recipe, recipe_name
    from segdistill.run.training.train import train as run_train
    from segdistill.trust import trusting

    trust, words = _trust_in(argv)
    with trusting(trust):
        run_train(load_recipe(words[0], words[1:]), recipe_name(words[0]))


def check(argv: list[str]) -> None:
    """Check a recipe's data and teacher before a long training, and propose fixes."""
    from segdistill.run.auditing.check import check as run_check
    from segdistill.run.recipe import load_recipe
    from segdistill.run.training.train import rehearse
    from segdistill.trust import trusting

    trust, argv = _trust_in(argv)
    known, words = _own_options("check", argv)
    with trusting(trust):
        run_check(load_recipe(argv[0], words), argv[0], rehearse, known.page)


def compare(argv: list[str]) -> None:
    """Train a recipe with several methods and seeds from the same start, and print a verdict."""
    from segdistill.run.compare import compare as run_compare
    from segdistill.run.comparing import refuse_without_effect
    from segdistill.run.recipe import load_recipe, recipe_name
    from segdistill.trust import trusting

    trust, argv = _trust_in(argv)
    known, words = _own_options("compare", argv)
    names = known.methods.split(",") if known.methods else None
    with trusting(trust):
        recipe = load_recipe(argv[0], words)
        refuse_without_effect(recipe, words, names)
        run_compare(
            recipe,
            names,
            known.seeds,
            known.first_seed,
            recipe_name(argv[0]),
            budget=known.budget,
        )


def tune(argv: list[str]) -> None:
    """Choose each method's learning rate and weights by equally many trials, on data that nothing is reported on."""
    from segdistill.run.comparing import refuse_without_effect
    from segdistill.run.recipe import load_recipe, recipe_name
    from segdistill.run.tuning.tune import tune as run_tune
    from segdistill.trust import trusting

    trust, argv = _trust_in(argv)
    known, words = _own_options("tune", argv)
    # The recipe that is written starts from this file, if that is all there is to it.
    source = None if any(not word.startswith("--out=") for word in words) else argv[0]
    names = known.methods.split(",") if known.methods else None
    with trusting(trust):
        recipe = load_recipe(argv[0], words)
        refuse_without_effect(recipe, words, names)
        run_tune(
            recipe,
            names,
            known.trials,
            recipe_name(argv[0]),
            source,
        )


def evaluate(
    run: str,
    weights: Literal["model", "best"] = "model",
    on: str | None = None,
    split: str | None = None,
    window: tuple[int, int] | None = None,
    overlap: float | None = None,
    flip: bool | None = None,
    scales: tuple[float, ...] | None = None,
    absent: Literal["undefined", "zero"] | None = None,
    transfer: bool = False,
    teacher: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    trust: bool = False,
    data: Mapping[str, str] | None = None,
) -> None:
    """Measure a run's network: mIoU, per-class IoU, pixel accuracy and cost.

    Omitted options have the values of the run's recipe.

    Args:
        run: Folder of a finished run, an exported folder, or an .onnx or .xml file in one.
        weights: Weights to load: model for the last step's, best for the best on validation.
        on: Name of a further evaluation set, of the recipe or, with changed data, a new one. Its metrics are
            kept in the run, and taken over where weights, data and protocol are the same.
        split: Split of the run's data, the same as data.val_split; its evaluation split by default.
        window: Height and width of a sliding window, in pixels; the whole image by default.
        overlap: Fraction of a window that overlaps the next, in [0, 1).
        flip: Average the prediction with that of the mirrored image.
        scales: Scales of the image to average over.
        absent: A class in neither labels nor predictions: undefined leaves it out of the mean, zero counts it as 0.
        transfer: Measure what the network has of its teacher instead; it is kept in the run, and reports show it.
        teacher: With transfer, the run to compare with; the teacher of the run's recipe by default.
        device: Device to run on; auto uses a GPU if one is available.
        trust: Import modules of somebody's code that the run names, and remember them as trusted.
        data: Changes to the recipe's data, by key.
    """
    from segdistill.run.commands import evaluate_run, measure_transfer_of_run
    from segdistill.trust import trusting

    protocol = {"window": window, "overlap": overlap, "flip": flip, "scales": scales}
    changes = dict(data or {})
    if split is not None and changes.setdefault("val_split", split) != split:
        raise ValueError(
            f"evaluate: --split is {split} and --data.val_split {changes['val_split']}; expected only one of them"
        )
    if teacher is not None and not transfer:
        raise ValueError(f"evaluate: --teacher is {teacher!r}; expected --transfer true beside it")
    with trusting(trust):
        if transfer:
            given = {
                **protocol,
                "absent": absent,
                "weights": weights if weights == "best" else None,
            }
            measure_transfer_of_run(run, teacher, on, changes, given, device)
        else:
            evaluate_run(run, weights, on, changes, device, absent=absent, **protocol)


def report(runs: list[str], out: str | None = None, trust: bool = False) -> None:
    """Write a self-contained HTML report on runs: tables, curves and pictures.

    Args:
        runs: Run folders, or folders that hold runs.
        out: File to write; report.html beside the runs by default.
        trust: Import modules of somebody's code that the runs name, and remember them as trusted.
    """
    from segdistill.run.reporting.report import report as run_report
    from segdistill.trust import trusting

    with trusting(trust):
        run_report(runs, out)


def predict(
    run: str,
    images: Sequence[str] = (),
    out: str = "predictions",
    weights: Literal["model", "best"] = "model",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    server: str | None = None,
    trust: bool = False,
) -> None:
    """Segment images with a run's network or an exported one; write label masks and colour overlays.

    A run's network is evaluated under the protocol of its recipe.

    Args:
        run: Folder of a finished run, folder written by `export`, or .onnx file.
        images: Image files and folders of them.
        out: Folder for masks and overlays.
        weights: Weights to load: model for the last step's, best for the best on validation.
        device: Device to run on; auto uses a GPU if one is available.
        server: Split of the run's data, such as test, in place of images. Writes only masks, with the label ids
            and file names of the benchmark's test server.
        trust: Import modules of somebody's code that the run names, and remember them as trusted.
    """
    from segdistill.run.commands import predict_run
    from segdistill.trust import trusting

    with trusting(trust):
        predict_run(run, images, out, weights, device, server)


def export(
    run: str,
    out: str | None = None,
    resize: bool = True,
    argmax: bool = True,
    size: tuple[int, int] | None = None,
    opset: int = 18,
    to: Literal["onnx", "openvino"] = "onnx",
    int8: bool = False,
    calibration: int = 64,
    max_drop: float = 1.0,
    max_class_drop: float = 5.0,
    trust: bool = False,
) -> None:
    """Export a run as an ONNX file, checked against PyTorch, with everything needed to deploy it.

    Args:
        run: Folder of a finished run.
        out: Folder to write; RUN/export by default.
        resize: Accept images of any size and return masks of that size, resizing inside the file.
        argmax: Return class ids instead of logits.
        size: Height and width at which the network sees an image; as in the run by default.
        opset: ONNX opset, 18 to 23.
        to: openvino also writes model.xml and model.bin for OpenVINO, which needs the extra of that name.
        int8: Also write model.int8.onnx, a quantised network; with --to openvino also model.int8.xml, which needs
            the extra nncf.
        calibration: Number of training images that calibrate the ranges of int8.
        max_drop: Largest loss of mIoU allowed for int8, in points.
        max_class_drop: Largest loss of IoU allowed for int8 in any class, in points.
        trust: Import modules of somebody's code that the run names, and remember them as trusted.
    """
    from segdistill.run.shipping.export import export as run_export
    from segdistill.trust import trusting

    with trusting(trust):
        run_export(
            run,
            out,
            resize=resize,
            argmax=argmax,
            size=size,
            opset=opset,
            to=to,
            int8=int8,
            calibration=calibration,
            max_drop=max_drop,
            max_class_drop=max_class_drop,
        )


def profile(
    networks: Sequence[str] = (),
    size: tuple[int, int] = (512, 1024),
    classes: int = 19,
    count: Literal["flops", "paper"] = "flops",
    latency: bool = True,
    table: Literal["paper"] | None = None,
    trust: bool = False,
) -> None:
    """Measure parameters, multiply-adds and latency of runs or networks, side by side.

    Args:
        networks: Run folders, names as in `segdistill list models`, or exported folders, .onnx and .xml files,
            which are timed in their runtime and not counted.
        size: Height and width of the image, in pixels.
        classes: Number of classes, for networks given by name.
        count: What is counted as multiply-adds: flops for all operations, paper for convolutions as in the papers.
        latency: Measure latency, too.
        table: paper prints the paper's networks beside the published numbers, in place of networks.
        trust: Import modules of somebody's code that the runs name, and remember them as trusted.
    """
    from segdistill.run.commands import profile_networks
    from segdistill.trust import trusting

    with trusting(trust):
        profile_networks(networks, size, classes, count, latency, table == "paper")


def suggest(
    recipe: Sequence[str] = (),
    *,
    latency: str | None = None,
    candidates: Sequence[str] = (),
    size: str | None = None,
    classes: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    runtime: Literal["onnxruntime", "openvino", "pytorch"] = "onnxruntime",
    builtin: bool = True,
    repeats: int = 50,
    probe: int = 0,
    out: str = "suggested.yaml",
) -> None:
    """Find the largest student that is fast enough on this machine, in the runtime that you ship.

    Args:
        recipe: YAML file whose data and student are used; may be left out.
        latency: Budget for the median time of one image, such as 8ms or 0.008s.
        candidates: Names of further networks, as in a recipe, such as package.module.Class.
        size: Height x width of the image in pixels, such as 512x1024; that of the recipe's data by default, 512x1024
            without a recipe.
        classes: Number of classes without a recipe; 19 by default.
        device: Device to measure on.
        runtime: Runtime to measure in; openvino needs the extra of that name, cuda needs pytorch.
        builtin: Measure the networks of this package, too.
        repeats: Largest number of timed rounds.
        probe: Steps for which the 3 largest within the budget are trained, to choose by mIoU; 0 for none.
        out: File of the recipe to write; an existing one is refused.
    """
    from segdistill.run.suggesting.suggest import suggest as run_suggest

    if latency is None:
        raise ValueError("suggest: there is no --latency; expected a budget, such as --latency 8ms")
    if len(recipe) > 1:
        raise ValueError(
            f"suggest: there are {len(recipe)} recipes ({', '.join(recipe)}); expected one or none"
        )
    run_suggest(
        recipe[0] if recipe else None,
        latency,
        size=size,
        classes=classes,
        device=device,
        runtime=runtime,
        candidates=candidates,
        built_in=builtin,
        repeats=repeats,
        probe=probe,
        out=out,
    )


def reproduce(
    what: Literal["table1", "table2", "table3", "table4", "fig3", "fig4", "fig5"],
    *,
    runs: Sequence[str] = (),
    out: str = "reproduced",
) -> None:
    """Show runs as a table or figure of the paper, beside the published numbers.

    Args:
        what: Table or figure.
        runs: Run folders, or folders that hold runs.
        out: Folder for the page and the picture.
    """
    from segdistill.run.commands import reproduce_exhibit

    reproduce_exhibit(what, runs, out)


def list_names(
    what: Sequence[Literal["losses", "methods", "models", "datasets", "keys"]] = (),
) -> None:
    """List the names that a recipe may use.

    Args:
        what: Kinds to list: losses, methods, models, datasets, keys. None lists the kinds.
    """
    from segdistill.run.listing import list_kinds, list_names

    if not what:
        list_kinds()
    for kind in what:
        list_names(kind)


_WITH_RECIPE: dict[str, Callable[[list[str]], None]] = {
    "check": check,
    "train": train,
    "compare": compare,
    "tune": tune,
}
_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "evaluate": evaluate,
    "report": report,
    "export": export,
    "predict": predict,
    "profile": profile,
    "suggest": suggest,
    "reproduce": reproduce,
    "list": list_names,
}


def _trust_in(argv: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether `--trust` is among the words, and the others. A recipe cannot say it: it is the user's word."""
    words, given = [], "false"
    left = list(argv)
    while left:
        name, equals, text = (word := left.pop(0)).partition("=")
        if name != "--trust":
            words.append(word)
        elif equals:
            given = text
        else:
            given = left.pop(0) if left and left[0].lower() in BOOL else "true"
    if given.lower() not in BOOL:
        raise ValueError(f"--trust is {given}; expected true or false")
    return given.lower() in ("true", "yes"), words


def _check_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--page",
        type=str,
        help="HTML file to write: samples of each split with their labels drawn over them",
    )


def _compare_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=str,
        help="methods, and variants of the recipe, separated by commas; idd:paper chooses a preset and "
        "supervised is the control. Default: supervised and all variants or, without variants, "
        "supervised,kd,cwd,idd",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="number of seeds; every method is trained once per seed",
    )
    parser.add_argument(
        "--first_seed", type=int, default=0, help="first of the seeds, which count up by one"
    )
    parser.add_argument(
        "--budget",
        type=Literal["steps", "time"],
        default="steps",
        help="steps: all rows train for train.steps; time: all train for as long as the slowest row, with costs of "
        "steps that are measured once and kept in costs.json",
    )


def _tune_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=str,
        help="methods, and variants of the recipe, separated by commas; default: those of compare",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=9,
        help="number of trials of each method; more trials add to fewer",
    )


_BUDGET = Literal["steps", "time"]
_OPTIONS: dict[str, tuple[Callable[[ArgumentParser], None], dict[str, Any]]] = {
    "check": (_check_options, {"page": str}),
    "compare": (
        _compare_options,
        {"methods": str, "seeds": int, "first_seed": int, "budget": _BUDGET},
    ),
    "tune": (_tune_options, {"methods": str, "trials": int}),
}
"""Options of commands with a recipe that are no keys of it, and their types."""


def _own_options(command: str, argv: Sequence[str]) -> tuple[Any, list[str]]:
    """The values of a command's own options, and the words that are keys of the recipe.

    Raises:
        ValueError: An option is neither, or has a wrong value.
    """
    from segdistill.run.recipe import KEYS as keys
    from segdistill.run.recipe import split_options

    add, kinds = _OPTIONS[command]
    parser = ArgumentParser(exit_on_error=False)
    add(parser)
    options = {name: f"--{name}={text}" for name, text in split_options(argv[1:]).items()}
    for name in options:
        if name.partition(".")[0] not in [*kinds, *keys]:
            known = [f"--{known}" for known in (*kinds, *keys)]
            raise ValueError(f"{command}: {unknown('option', f'--{name}', known)}")
    try:
        values = parser.parse_args([options.pop(name) for name in kinds if name in options])
    except ArgumentError as error:
        raise ValueError(f"{command}: {in_words(error, kinds)}") from None
    return values, list(options.values())


def _data_options(parser: ArgumentParser) -> None:
    """The keys of a recipe's data as options of `evaluate`; their values are read as in a recipe."""
    from segdistill.run.recipe import measured_data_keys

    group = parser.add_argument_group("data", "Changes to the recipe's data, by key.")
    for key, text in measured_data_keys().items():
        group.add_argument(f"--data.{key}", type=str, help=f"{text}; the recipe's if omitted")


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").splitlines()[0]


def _parser(command: str | None) -> ArgumentParser:
    """The parser with all commands; only the options of `command` are built."""
    parser = ArgumentParser(
        prog="segdistill",
        description="Distil semantic segmentation networks: a large teacher into a small student.",
        epilog="segdistill COMMAND --help explains a command and its options.",
        version=__version__,
        exit_on_error=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subcommands(required=True, dest="command")
    for name, function in {**_WITH_RECIPE, **_COMMANDS}.items():
        one = ArgumentParser(description=function.__doc__, exit_on_error=False)
        if name == command:
            one = _command_parser(name, function)
        commands.add_subcommand(name, one, help=_first_line(function))
    return parser


def _command_parser(name: str, function: Callable[..., Any]) -> ArgumentParser:
    if name in _WITH_RECIPE:
        from segdistill.run.recipe import recipe_parser

        parser = recipe_parser()
        parser.description = _first_line(function)
        # Spelled out it would list every key, ahead of the description.
        parser.usage = f"segdistill {name} RECIPE [--KEY VALUE ...]"
        parser.add_argument("recipe", help="YAML file; every option below overrides a key of it")
        parser.add_argument(
            "--trust",
            type=bool,
            default=False,
            help="import modules of somebody's code that the run at teacher.run names, and remember "
            "them as trusted",
        )
        if name in _OPTIONS:
            _OPTIONS[name][0](parser)
        return parser
    parser = Parser(description=_first_line(function), exit_on_error=False)
    texts = {p.arg_name: p.description for p in parse_from_object(function).params}
    # A default of () marks optional positional arguments.
    parameters = signature(function).parameters.values()
    by_hand = [p for p in parameters if p.default in (p.empty, ())]
    keys_of_data = ["data"] if name == "evaluate" else []
    for parameter in by_hand:
        option = "--" if parameter.kind is parameter.KEYWORD_ONLY else ""
        if get_origin(parameter.annotation) in (list, Sequence):
            needed = parameter.default is parameter.empty
            several: dict[str, Any] = {"nargs": "+"} if needed else {"nargs": "*", "default": ()}
            kind = get_args(parameter.annotation)[0]
            parser.add_argument(
                option + parameter.name, type=kind, help=texts[parameter.name], **several
            )
        else:
            kind, text = parameter.annotation, texts[parameter.name]
            parser.add_argument(option + parameter.name, type=kind, help=text)
    parser.add_function_arguments(function, skip={*(p.name for p in by_hand), *keys_of_data})
    if keys_of_data:
        _data_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit: 0 success, 2 user error, 130 or 143 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    search_in(str(Path.cwd()))
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    if not argv:
        argv = ["--help"]
    stopped: list[int] = []
    try:
        with _signals_heard(stopped), doing(f"running {argv[0]}", " ".join(argv[1:2])):
            _dispatch(argv, debug)
    except KeyboardInterrupt:
        _end_stopped(stopped[-1] if stopped else signal.SIGINT)
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            print(f"segdistill: {terminal_line(error)}", file=sys.stderr)
            sys.exit(error.exit_code)  # type: ignore[attr-defined]
        if stopped:  # libraries turn an interrupt into errors of theirs
            _end_stopped(stopped[-1])
        if debug:
            raise
        line, code = _refusal(error)
        print(f"segdistill: {terminal_line(line)}", file=sys.stderr)
        sys.exit(code)


def _end_stopped(number: int) -> NoReturn:
    while_ = f" while {last_activity()}" if last_activity() else ""
    print(f"segdistill: stopped by {signal.Signals(number).name}{while_}", file=sys.stderr)
    sys.exit(128 + number)


@contextmanager
def _signals_heard(stopped: list[int]) -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, and record both."""

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    # A job in the background of a shell does not hear Ctrl-C.
    heard = [signal.SIGTERM, signal.SIGINT]
    heard = [one for one in heard if signal.getsignal(one) is not signal.SIG_IGN]
    try:
        before = {one: signal.signal(one, stop) for one in heard}
    except ValueError:  # not in the main thread, whose handlers stay
        yield
        return
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _refusal(error: Exception) -> tuple[str, int]:
    """The one-line message of an exception, and the exit code: 2 for a user error, 1 for an internal error."""
    # "[Errno 28] .." says nothing to a user that the words after it do not.
    text = " ".join(re.sub(r"^\[Errno \d+\] ", "", str(error)).split())
    while_ = f" while {last_activity()}" if last_activity() else ""
    if isinstance(error, MemoryError) or re.search(r"out of memory|can't allocate memory", text):
        return (
            f"out of memory{while_}. Lower train.batch or train.crop, or raise train.accumulate",
            2,
        )
    if text.startswith("Symlink loop from"):  # Path.resolve, as a RuntimeError
        return (
            f"{text.removeprefix('Symlink loop from ')[1:-1]} is a link to itself. Check the path",
            2,
        )
    if text == "embedded null byte":  # the system names no file
        text = f"a path holds the character \\0, which no file name can hold{while_}. Remove it"
    if isinstance(error, (ValueError, OSError, ArgumentError)):
        return shortened(text, 1000), 2
    file = Path(tempfile.mkdtemp(prefix="segdistill-")) / "trace.txt"
    file.write_text("".join(traceback.format_exception(error)))
    return (
        f"unexpected {type(error).__name__}{while_}: {text:.300}. This is a bug in segdistill or in "
        f"a custom class; the full trace is in {file}",
        1,
    )


def _dispatch(argv: list[str], debug: bool) -> None:
    command = argv[0]
    if not command.startswith("-") and command not in {**_WITH_RECIPE, **_COMMANDS}:
        raise ValueError(unknown("command", command, [*_WITH_RECIPE, *_COMMANDS]))
    if command in _WITH_RECIPE and not {"-h", "--help"} & set(argv):
        if len(argv) < 2 or argv[1].startswith("-"):
            raise ValueError(
                f"{command} has no recipe; expected a YAML file before the options, such as "
                f"segdistill {command} RECIPE.yaml --train.lr 0.1"
            )
        _set_up(debug)
        _WITH_RECIPE[command](argv[1:])
        return
    try:
        config = _parser(command).parse_args(argv)
    except ArgumentError as error:
        parameters = signature(_COMMANDS[command]).parameters if command in _COMMANDS else {}
        kinds = {name: one.annotation for name, one in parameters.items()}
        bare = [
            name
            for name, one in parameters.items()
            if one.default in (one.empty, ()) and one.kind is not one.KEYWORD_ONLY
        ]
        raise ValueError(f"{command}: {in_words(error, kinds, bare)}") from error
    _set_up(debug)
    values = vars(config[command])
    if "data" in values:
        values["data"] = {k: text for k, text in vars(values["data"]).items() if text is not None}
    _COMMANDS[command](**values)


def _set_up(debug: bool) -> None:
    from segdistill.run.console import set_up_logging

    # What matters of a file is told in our words; Pillow's warnings name no file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    set_up_logging(debug)
