"""The `segdistill` command: a table of commands. Torch is imported inside a command, never for `--help`."""

import sys
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_origin

from jsonargparse import ArgumentError, ArgumentParser

from segdistill import __version__
from segdistill.arguments import Parser, in_words


def demo(out: str = "runs/demo", seeds: int = 1, first_seed: int = 0) -> None:
    """The whole story on synthetic scenes: teacher, control, students, table and report.html.

    Args:
        out: Folder for the runs and the report.
        seeds: How many times the students are trained, each from another start.
        first_seed: Seed of the first of them.
    """
    from segdistill.run.demo import demo as run_demo

    run_demo(out, seeds, first_seed)


def train(argv: list[str]) -> None:
    """Train what a recipe describes; the same command resumes an interrupted run."""
    from segdistill.run.recipe import load_recipe, recipe_name
    from segdistill.run.training.train import train as run_train

    run_train(load_recipe(argv[0], argv[1:]), recipe_name(argv[0]))


def check(argv: list[str]) -> None:
    """Audit the data and the teacher of a recipe before any long work; propose a mapping that fits."""
    from segdistill.run.auditing.check import check as run_check
    from segdistill.run.recipe import load_recipe

    run_check(load_recipe(argv[0], argv[1:]), argv[0])


def compare(argv: list[str]) -> None:
    """Train a recipe with several methods and seeds, from the same start; print who wins, if anyone."""
    from segdistill.run.compare import compare as run_compare
    from segdistill.run.recipe import load_recipe, recipe_name, split_options

    own = ArgumentParser(exit_on_error=False)
    _compare_options(own)
    options = {name: f"--{name}={text}" for name, text in split_options(argv[1:]).items()}
    known: Any = own.parse_args([options.pop(n) for n in vars(own.get_defaults()) if n in options])
    recipe = load_recipe(argv[0], list(options.values()))
    run_compare(
        recipe,
        known.methods.split(",") if known.methods else None,
        known.seeds,
        known.first_seed,
        recipe_name(argv[0]),
    )


def evaluate(
    run: str,
    weights: Literal["model", "best"] = "model",
    split: str | None = None,
    window: tuple[int, int] | None = None,
    overlap: float | None = None,
    flip: bool | None = None,
    scales: tuple[float, ...] | None = None,
    absent: Literal["undefined", "zero"] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Measure a run's network: mIoU, IoU of each class, pixel accuracy.

    What is not given is as in the run's recipe.

    Args:
        run: Folder of a finished run.
        weights: model for the last weights, best for the best on validation.
        split: Split of the run's data; its evaluation split by default.
        window: Height and width of a sliding window.
        overlap: Share of a window that the next one covers again, 0 up to, not including, 1.
        flip: Average with the mirrored image.
        scales: Scales to average over.
        absent: A class in neither labels nor predictions: undefined leaves it out, zero counts it as 0.
        device: Where to run.
    """
    from segdistill.run.commands import evaluate_run

    protocol = {"window": window, "overlap": overlap, "flip": flip, "scales": scales}
    evaluate_run(run, weights, split, device, absent=absent, **protocol)


def report(runs: list[str], out: str = "report.html") -> None:
    """Write one self-contained HTML file from run folders.

    Args:
        runs: Run folders; a folder that holds runs stands for all of them.
        out: The file.
    """
    from segdistill.run.reporting.report import report as run_report

    run_report(runs, out)


def predict(
    run: str,
    images: Sequence[str] = (),
    out: str = "predictions",
    weights: Literal["model", "best"] = "model",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    server: str | None = None,
) -> None:
    """Segment images with a run's network, or an exported one: id masks and colour overlays.

    A run's network is shown them as its recipe says under evaluate.

    Args:
        run: Folder of a finished run, folder that `export` wrote, or .onnx file.
        images: Image files and folders.
        out: Folder for the masks and overlays.
        weights: model for the last weights, best for the best on validation.
        device: Where to run.
        server: In place of images: a split of the run's data, such as test. Its masks alone, with the
            ids and file names that the benchmark's test server takes.
    """
    from segdistill.run.commands import predict_run

    predict_run(run, images, out, weights, device, server)


def export(
    run: str,
    out: str | None = None,
    resize: bool = True,
    argmax: bool = True,
    size: tuple[int, int] | None = None,
    opset: int = 18,
    int8: bool = False,
    calibration: int = 64,
    max_drop: float = 1.0,
    max_class_drop: float = 5.0,
) -> None:
    """Ship a run: an ONNX file, compared with PyTorch, and the folder around it.

    Args:
        run: Folder of a finished run.
        out: Folder to write; RUN/export by default.
        resize: Take images of any size and answer at that size, resizing inside.
        argmax: Answer with class ids, else with logits.
        size: Height and width at which the network sees an image; as in the run by default.
        opset: ONNX opset, 18 to 23.
        int8: Also write model.int8.onnx.
        calibration: Training images that set the ranges of int8.
        max_drop: Points of mIoU that int8 may lose.
        max_class_drop: Points of IoU that int8 may lose in any class.
    """
    from segdistill.run.shipping.export import export as run_export

    run_export(
        run,
        out,
        resize=resize,
        argmax=argmax,
        size=size,
        opset=opset,
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
) -> None:
    """Parameters, multiply-adds and latency of runs or networks, measured side by side.

    Args:
        networks: Run folders, or names as in `segdistill list models`.
        size: Height and width of the image.
        classes: Number of classes, for networks given by name.
        count: flops counts everything; paper counts convolutions as the papers do.
        latency: Measure latency too.
        table: paper lays the parameters and multiply-adds of the paper's networks beside the published.
    """
    from segdistill.run.commands import profile_networks

    profile_networks(networks, size, classes, count, latency, table == "paper")


def reproduce(
    what: Literal["table1", "table2", "table3", "table4", "fig3", "fig4", "fig5"],
    *,
    runs: Sequence[str] = (),
    out: str = "reproduced",
) -> None:
    """Lay runs out as a table or figure of the paper, beside the published figures.

    Args:
        what: Which table or figure.
        runs: Run folders; a folder that holds runs stands for all of them.
        out: Folder for the page and the picture.
    """
    from segdistill.run.commands import reproduce_exhibit

    reproduce_exhibit(what, runs, out)


def list_names(what: Literal["losses", "methods", "models", "datasets", "keys"]) -> None:
    """Names that a recipe may use.

    Args:
        what: losses, methods, models, datasets, or the keys of a recipe.
    """
    from segdistill.run.commands import list_names as show

    show(what)


_WITH_RECIPE: dict[str, Callable[[list[str]], None]] = {
    "check": check,
    "train": train,
    "compare": compare,
}
_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "evaluate": evaluate,
    "report": report,
    "export": export,
    "predict": predict,
    "profile": profile,
    "reproduce": reproduce,
    "list": list_names,
}


def _compare_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=str,
        help="methods and variants of the recipe, separated by commas; supervised is the control; "
        "by default all variants or, where there are none, supervised,kd,cwd,idd",
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--first_seed", type=int, default=0, help="the first of the seeds")


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").splitlines()[0]


def _parser(command: str | None) -> ArgumentParser:
    """The parser with all commands; only the options of `command` are looked up."""
    parser = ArgumentParser(
        prog="segdistill",
        description="Distil semantic segmentation networks.",
        epilog="--debug before a command shows the trace of an error.",
        version=__version__,
        exit_on_error=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
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
        parser.add_argument("recipe", help="YAML file; every option below overrides a key of it")
        if name == "compare":
            _compare_options(parser)
        return parser
    parser = Parser(description=_first_line(function), exit_on_error=False)
    # A default of () marks words that may be left out.
    parameters = signature(function).parameters.values()
    by_hand = [p for p in parameters if p.default in (p.empty, ())]
    for parameter in by_hand:
        option = "--" if parameter.kind is parameter.KEYWORD_ONLY else ""
        if get_origin(parameter.annotation) in (list, Sequence):
            needed = parameter.default is parameter.empty
            several: dict[str, Any] = {"nargs": "+"} if needed else {"nargs": "*", "default": ()}
            parser.add_argument(option + parameter.name, type=str, **several)
        else:
            parser.add_argument(option + parameter.name, type=parameter.annotation)
    parser.add_function_arguments(function, skip={p.name for p in by_hand})
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 a slip of the user's, 130 or 143 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Dotted paths of a user's own classes are looked for in the working folder, too.
    sys.path.append(str(Path.cwd()))
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    if not argv:
        argv = ["--help"]
    try:
        _dispatch(argv, debug)
    except KeyboardInterrupt:
        print("segdistill: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            print(f"segdistill: {error}", file=sys.stderr)
            sys.exit(error.exit_code)  # type: ignore[attr-defined]
        if debug or not isinstance(error, (ValueError, OSError, ArgumentError)):
            raise
        print(f"segdistill: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _dispatch(argv: list[str], debug: bool) -> None:
    command = argv[0]
    if command in _WITH_RECIPE and not {"-h", "--help"} & set(argv):
        if len(argv) < 2 or argv[1].startswith("-"):
            raise ValueError(
                f"{command}: expected a recipe first, then options: "
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
        bare = [n for n, one in parameters.items() if one.default in (one.empty, ())]
        raise ValueError(in_words(error, kinds, bare)) from error
    _set_up(debug)
    _COMMANDS[command](**vars(config[command]))


def _set_up(debug: bool) -> None:
    from segdistill.run.console import set_up_logging

    set_up_logging(debug)
