"""A recipe, the YAML file that makes a run, as dataclasses. Nothing here needs torch."""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import parse_from_object

from segdistill.names import unknown


@dataclass
class DataConfig:
    """The images and labels."""

    name: str = "synthetic"
    """data set: synthetic, cityscapes, voc, ... (`segdistill list datasets`), or the dotted path of a custom class"""
    root: str | None = None
    """folder of the data set; synthetic needs none"""
    size: tuple[int, int] | None = None
    """height and width that images are resized to, in pixels; null: not resized"""
    train_split: str = "train"
    """split to train on"""
    val_split: str = "val"
    """split to evaluate on"""
    options: dict[str, Any] = field(default_factory=dict)
    """more arguments of the data set, such as {seed: 1} or {mapping: {0: 0, 255: 1}}"""
    train_options: dict[str, Any] = field(default_factory=dict)
    """arguments for the training split only, such as {groups: [0001TP]}"""
    val_options: dict[str, Any] = field(default_factory=dict)
    """arguments for the evaluation split only"""


@dataclass
class EvaluationSetConfig:
    """Further labelled data that finished networks are measured on, given as changes to the recipe's data."""

    split: str | None = None
    """split to measure on; null: data.val_split"""
    options: dict[str, Any] = field(default_factory=dict)
    """arguments of the data set, merged with data.options; data.val_options do not apply"""
    root: str | None = None
    """folder of the data set; null: data.root"""
    name: str | None = None
    """another data set, which has none of data.root and data.options; null: data.name"""


@dataclass
class ModelConfig:
    """A network that is trained: the student, or a teacher or control in plain training."""

    model: str = "pspnet_r18"
    """name as in `segdistill list models`, or the dotted path of a custom module"""
    factory: bool = False
    """call model although it is a function that is not annotated to return a torch.nn.Module"""
    weights: str | None = None
    """file of initial weights; null: random, unless an option of the network loads pretrained ones"""
    options: dict[str, Any] = field(default_factory=dict)
    """more arguments of the network, such as {head_width: 64}"""
    taps: dict[str, str] = field(default_factory=dict)
    """tap name -> module path, added to the network's own"""


@dataclass
class TeacherConfig:
    """The frozen network to learn from: a finished run, or a network with trained weights."""

    run: str | None = None
    """folder of a finished run"""
    model: str | None = None
    """name of a network, if there is no run"""
    factory: bool = False
    """call model although it is a function that is not annotated to return a torch.nn.Module"""
    weights: str | None = None
    """file with the network's trained weights"""
    options: dict[str, Any] = field(default_factory=dict)
    """more arguments of the network"""
    taps: dict[str, str] = field(default_factory=dict)
    """tap name -> module path, added to the network's own"""
    labels: dict[str | int, str | int | None] | None = None
    """each of its classes -> class of the data (names or ids; null drops it); null: the same classes"""
    channels: list[int] | None = None
    """indices of the image channels that it reads; null: all"""
    scale: float = 1.0
    """factor by which images are resized for it"""
    min_miou: float | None = None
    """lowest mIoU allowed on the evaluation split, 0 to 100; null: better than chance, 0: no limit"""
    random: bool = False
    """replace its weights by random ones, always the same, as a placebo; it is then neither measured nor refused"""


@dataclass
class MethodConfig:
    """A method of the catalogue, and its preset."""

    name: str = "supervised"
    """supervised, kd, cwd, skd, idd: see `segdistill list methods`"""
    preset: Literal["default", "paper"] = "default"
    """default: weights that transfer between data sets, except that cwd's share grows and dist's falls with the
    number of classes; paper: as published or released"""
    labels: Literal["data", "teacher", "both"] = "data"
    """labels that terms learn from: those of the data, the teacher's class of every pixel, or both: the teacher's on
    images without labels"""
    confidence: float = 0.0
    """the teacher's probability from which its class of a pixel counts as label, 0 to 1; means stay over all"""


@dataclass
class TermConfig:
    """Overrides a term of the method, or adds one. A null keeps the method's value."""

    loss: str | None = None
    """loss of this term (`segdistill list losses`, or a dotted path); null: the term's own name"""
    weight: float | None = None
    """factor of the loss; 0 removes the term"""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """course of the weight; linear and cosine fall from weight at the first step to 0 at the last one"""
    on: str | None = None
    """tap that the loss reads: logits, features, aux, or a custom one"""
    options: dict[str, Any] = field(default_factory=dict)
    """arguments of the loss, such as {temperature: 4}"""
    cells: Literal["declared", "released"] | None = None
    """where cells lie: as networks declare, or by the rules of released codes (preset paper); null: the method's"""


Role = Literal["control", "placebo", "method"]


@dataclass
class VariantConfig:
    """One entry of a comparison: a method and its changes, merged with the recipe's."""

    method: str | MethodConfig = "supervised"
    """method that the variant starts from"""
    terms: dict[str, TermConfig] = field(default_factory=dict)
    """changes to the method's terms, such as {position: {weight: 0}}"""
    train: dict[str, Any] = field(default_factory=dict)
    """changes to train, such as {lr: 0.02}; seeds are those of the comparison"""
    teacher: dict[str, Any] = field(default_factory=dict)
    """{random: true} for a placebo of the same teacher with random weights; all other rows share one teacher"""
    role: Role | None = None
    """control, placebo (of a method) or method; null: control without a teacher, placebo under a random one, otherwise
    method"""
    tests: str | None = None
    """method or variant that a placebo tests; null: the only one of the same method"""
    label: str | None = None
    """name in tables; null: the variant's own name, which names its run folders"""


@dataclass
class FoldConfig:
    """One fold of a comparison: changes that are merged with the recipe's own values."""

    data: dict[str, Any] = field(default_factory=dict)
    """changes to data, such as {train_options: {groups: [0006R0]}}"""
    teacher: dict[str, Any] = field(default_factory=dict)
    """changes to teacher, such as {run: runs/mine/teacher-a}; all rows of the fold share it"""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """changes to evaluation, by the names of its sets"""


@dataclass
class ObserverConfig:
    """An object that watches a training, such as a logger or early stopping."""

    path: str
    """dotted path of its class, such as segdistill.observers.EarlyStopping"""
    options: dict[str, Any] = field(default_factory=dict)
    """arguments of the class, such as {patience: 5}"""


@dataclass
class TrainConfig:
    """How the student is trained."""

    steps: int = 1000
    """optimiser steps"""
    batch: int = 8
    """images per step, over all processes, each of which is a part of it: see accumulate"""
    labelled_share: float | None = None
    """share of each batch that has labels, at least one image, where only some images have; null: as in the training
    split, or 1 where nothing learns from the others"""
    crop: tuple[int, int] = (96, 128)
    """height and width of a training crop, in pixels"""
    scale: tuple[float, float] = (0.75, 1.5)
    """range of the random scale of a crop"""
    flip: float = 0.5
    """probability of a horizontal flip"""
    photometric: float = 0.0
    """strength of random brightness, contrast and saturation; 0: none"""
    strong_photometric: float = 0.0
    """strength of a second change of colours, which only the student sees; the geometry is the teacher's; 0: none"""
    cutmix: float = 0.0
    """probability that a box of a crop is another image's, for student, teacher and labels alike; 0: none"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd with momentum as in the papers, or adamw"""
    lr: float = 0.01
    """base learning rate"""
    head_lr_factor: float = 1.0
    """factor of lr for everything outside the pretrained encoder"""
    momentum: float = 0.9
    """momentum of sgd"""
    weight_decay: float = 5e-4
    """weight decay"""
    power: float = 0.9
    """power of the poly schedule: lr * (1 - step / steps) ** power"""
    warmup: int = 0
    """steps of linear warm-up"""
    clip: float | None = None
    """largest norm of the gradient; null: no clipping"""
    average: float = 0.0
    """decay of an exponential moving average of the student's weights, which is evaluated and saved in their place,
    such as 0.999; 0: none"""
    skip_nonfinite: int = 0
    """number of batches with a non-finite loss or gradient to skip before the training stops"""
    accumulate: int = 1
    """parts that each batch is split into, to save memory; a part has its own batch norm, ohem's threshold,
    inter_class's mean edge, dist's columns, image_relation's pairs, position's moments and critic"""
    precision: Literal["auto", "32", "bf16", "fp16"] = "32"
    """bf16 and fp16 are mixed, fp16 needs a GPU; auto: bf16 where the device has matrix units for it, else 32"""
    channels_last: bool = False
    """memory format of images and networks"""
    seed: int = 0
    """seeds the initial weights, the order of the images and the augmentation"""
    val_every: int = 0
    """steps between evaluations; 0: only at the end"""
    save_every: int = 200
    """steps between checkpoints to resume from"""
    log_every: int = 20
    """steps between rows of metrics.jsonl"""
    workers: int = 0
    """processes that load data; 0: in the main process"""
    hang_after: float = 600.0
    """seconds without progress after which a hanging job is ended; 0: never"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to train"""
    deterministic: bool = False
    """allow only deterministic operations (slower on GPUs; CPUs are deterministic anyway)"""


@dataclass
class EvaluationConfig:
    """How a network is measured; by default on the whole image, once."""

    window: tuple[int, int] | None = None
    """height and width of a sliding window; null: the whole image"""
    overlap: float = 1 / 3
    """fraction of a window that overlaps the next, in [0, 1)"""
    flip: bool = False
    """average the prediction with that of the mirrored image"""
    scales: tuple[float, ...] = (1.0,)
    """scales of the image to average over"""
    absent: Literal["undefined", "zero"] = "undefined"
    """a class in neither labels nor predictions: left out of the mean, or counted as 0 as the papers do"""


@dataclass
class TuningConfig:
    """What `segdistill tune` searches, on data that no reported figure uses."""

    data: dict[str, Any] = field(default_factory=dict)
    """changes to data, such as {val_split: train, val_options: {groups: [0001TP]}}"""
    teacher: dict[str, Any] = field(default_factory=dict)
    """changes to teacher, such as {run: runs/camvid/teacher-without-0001TP-s0}"""
    seeds: list[int] = field(default_factory=lambda: [1000])
    """seeds of each trial, whose result is the mean over them; none of those that are compared"""
    lr: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0, 2.0, 4.0])
    """factors of train.lr, in ascending order, 1 among them"""
    weights: list[float] = field(default_factory=lambda: [0.1, 0.3, 1.0, 3.0, 10.0])
    """factors of all distillation weights of an entry together; as many as of weight_decay"""
    weight_decay: list[float] = field(default_factory=lambda: [0.1, 0.3, 1.0, 3.0, 10.0])
    """factors of train.weight_decay, for entries without distillation weights, such as the control"""


@dataclass
class TunedConfig:
    """What `segdistill tune` chose the settings of the variants on; it writes this itself."""

    trials: dict[str, int] = field(default_factory=dict)
    """number of trials of each variant"""
    student: dict[str, Any] = field(default_factory=dict)
    """settings of the student that differed from their defaults"""
    train: dict[str, Any] = field(default_factory=dict)
    """settings of the training that differed from theirs"""


@dataclass
class Recipe:
    """Everything that makes a run."""

    data: DataConfig = field(default_factory=DataConfig)
    student: ModelConfig = field(default_factory=ModelConfig)
    teacher: TeacherConfig | None = None
    method: str | MethodConfig = "supervised"
    terms: dict[str, TermConfig] = field(default_factory=dict)
    """changes to the method's terms, such as {position: {weight: 0}}, and added terms"""
    variants: dict[str, VariantConfig] = field(default_factory=dict)
    """methods with changed terms, by the names that `segdistill compare` and its tables use"""
    contrasts: list[list[str]] = field(default_factory=list)
    """claims that a comparison tests, as pairs of variants or methods such as [[idd, kd]]; empty: each method against
    every control"""
    claims_on: str | None = None
    """evaluation set that claims and verdicts are made on; null: the evaluation split"""
    thin_classes: list[str] = field(default_factory=list)
    """classes whose mean IoU is a column of its own, such as [pole, sign]"""
    scene_frames: int = 0
    """consecutive images in a block of the bootstrap over scenes; 0: no bootstrap"""
    folds: dict[str, FoldConfig] = field(default_factory=dict)
    """folds of a comparison, by name, each with its own data and teacher; their results are pooled"""
    tuning: TuningConfig | None = None
    tuned: TunedConfig | None = None
    """written by `segdistill tune`"""
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluationConfig = field(default_factory=EvaluationConfig)
    evaluation: dict[str, EvaluationSetConfig] = field(default_factory=dict)
    """further sets to measure finished networks on, by name, such as {unseen: {split: test}}"""
    observers: list[str | ObserverConfig] = field(default_factory=list)
    """classes that watch the training, such as [segdistill.observers.TensorBoard]; with arguments:
    [{path: segdistill.observers.EarlyStopping, options: {patience: 5}}]"""
    out: str | None = None
    """run folder; null: runs/<recipe folder>/<recipe name>-s<seed>"""
    label: str | None = None
    """name of the run in tables; null: its method's name"""
    role: Role | None = None
    """part in a comparison; null: control without a teacher, placebo under a random one, otherwise method"""
    tests: str | None = None
    """label of the method that a placebo tests"""

    def chosen_method(self) -> MethodConfig:
        """The method and its preset, as a `MethodConfig`."""
        return self.method if isinstance(self.method, MethodConfig) else MethodConfig(self.method)

    @property
    def random_teacher(self) -> bool:
        """Whether the teacher has random weights, so that what learns from it is a placebo."""
        return self.teacher is not None and self.teacher.random

    def chosen_observers(self) -> list[ObserverConfig]:
        """The observers and their options, as `ObserverConfig`."""
        return [
            entry if isinstance(entry, ObserverConfig) else ObserverConfig(entry)
            for entry in self.observers or []
        ]


def map_code_names(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """The recipe with `change` applied to each name that may be the dotted path of somebody's code."""

    def terms(old: dict[str, TermConfig]) -> dict[str, TermConfig]:
        # A term without a loss has that of its own name.
        return {
            change(name): replace(term, loss=term.loss and change(term.loss))
            for name, term in old.items()
        }

    teacher = recipe.teacher
    return replace(
        recipe,
        data=replace(recipe.data, name=change(recipe.data.name)),
        evaluation={
            name: replace(one, name=one.name and change(one.name))
            for name, one in (recipe.evaluation or {}).items()
        },
        student=replace(recipe.student, model=change(recipe.student.model)),
        teacher=teacher and replace(teacher, model=teacher.model and change(teacher.model)),
        terms=terms(recipe.terms or {}),
        variants={
            name: replace(variant, terms=terms(variant.terms or {}))
            for name, variant in (recipe.variants or {}).items()
        },
        observers=[replace(one, path=change(one.path)) for one in recipe.chosen_observers()],
    )


def code_names(recipe: Recipe) -> list[str]:
    """The names in a recipe that may be dotted paths of somebody's code, as they stand there."""
    names: list[str] = []

    def note(name: str) -> str:
        names.append(name)
        return name

    map_code_names(recipe, note)
    return names


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Convert a recipe to plain values for YAML and JSON; tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    result: dict[str, Any] = plain(asdict(recipe))
    return result


def check_keys(values: dict[Any, Any], kind: type = Recipe, path: str = "") -> None:
    """Refuse unknown keys, and values in place of mappings.

    Raises:
        ValueError: The message names the key with its path (`terms.channelwise.wieght`), and the nearest
            key or the allowed values.
    """
    types = get_type_hints(kind)
    for entry in fields(kind):
        if entry.name not in values and entry.default is entry.default_factory is MISSING:
            keys = ", ".join(types)
            raise ValueError(f"{path.rstrip('.')} has no {entry.name}; expected the keys {keys}")
    for key, value in values.items():
        if key not in types:
            raise ValueError(f"{path}{key}: {unknown('key', str(key), types)}")
        if value is None and type(None) not in _choices(types[key]):
            raise ValueError(f"{path}{key} is null. Give it a value, or remove the key")
        _check_value(value, types[key], f"{path}{key}")


_LARGEST_SIDE = 2**14
"""Pixels: more than any image that fits into memory as a tensor."""
_RANGES: dict[str, tuple[float, float, str]] = {
    "data.size": (1, _LARGEST_SIDE, f"pixels, 1 to {_LARGEST_SIDE} each"),
    "teacher.channels": (0, 2**15, "channel numbers, 0 to 32768"),
    "teacher.scale": (1 / 64, 64, "a factor from 1/64 to 64"),
    "teacher.min_miou": (0, 100, "a mIoU from 0 to 100"),
    "terms.*.weight": (0, 1e12, "a number from 0 to 10^12"),
    "variants.*.terms.*.weight": (0, 1e12, "a number from 0 to 10^12"),
    "scene_frames": (0, 10**9, "a number of images, 0 to 10^9"),
    "train.steps": (1, 10**9, "a positive integer, at most 10^9"),
    "train.batch": (1, 2**16, "a positive integer, at most 65536"),
    "train.labelled_share": (1e-6, 1, "a fraction from 10^-6 to 1"),
    "train.crop": (1, _LARGEST_SIDE, f"pixels, 1 to {_LARGEST_SIDE} each"),
    "train.scale": (1 / 64, 64, "factors from 1/64 to 64"),
    "train.flip": (0, 1, "a probability from 0 to 1"),
    "train.photometric": (0, 10, "a strength from 0 to 10"),
    "train.strong_photometric": (0, 0.999, "a strength from 0 to 0.999"),
    "train.cutmix": (0, 1, "a probability from 0 to 1"),
    "train.lr": (0, 1e6, "a number from 0 to 10^6"),
    "train.head_lr_factor": (0, 1e6, "a number from 0 to 10^6"),
    "train.momentum": (0, 1, "a number from 0 to 1"),
    "train.weight_decay": (0, 1e6, "a number from 0 to 10^6"),
    "train.power": (0, 100, "a number from 0 to 100"),
    "train.warmup": (0, 10**9, "steps, 0 to 10^9"),
    "train.clip": (1e-12, 1e12, "a number from 10^-12 to 10^12, or null"),
    "train.average": (0, 1 - 1e-6, "a decay from 0 to 0.999999"),
    "train.accumulate": (1, 10**6, "a positive integer, at most 10^6"),
    "train.skip_nonfinite": (0, 10**9, "batches, 0 to 10^9"),
    "train.seed": (0, 2**63 - 1, "an integer from 0 to 2^63 - 1"),
    "train.val_every": (0, 10**9, "steps, 0 to 10^9"),
    "train.save_every": (1, 10**9, "a positive integer, at most 10^9"),
    "train.log_every": (1, 10**9, "a positive integer, at most 10^9"),
    "train.workers": (0, 256, "a number of processes, 0 to 256"),
    "train.hang_after": (0, 1e9, "seconds, 0 to 10^9"),
    "tuning.seeds": (0, 2**63 - 1, "integers from 0 to 2^63 - 1"),
    "tuning.lr": (1e-6, 1e6, "factors from 10^-6 to 10^6"),
    "tuning.weights": (1e-6, 1e6, "factors from 10^-6 to 10^6"),
    "tuning.weight_decay": (1e-6, 1e6, "factors from 10^-6 to 10^6"),
    "evaluate.window": (16, _LARGEST_SIDE, f"pixels, 16 to {_LARGEST_SIDE} each"),
    "evaluate.overlap": (0, 0.95, "a fraction in [0, 0.95]"),
    "evaluate.scales": (1 / 64, 64, "factors from 1/64 to 64"),
}
"""Lowest and highest value of each number in a recipe, and both in words for messages; NaN is refused."""


def check_ranges(recipe: "Recipe") -> None:
    """Refuse numbers out of range, before anything is opened.

    Raises:
        ValueError: A number is out of range; the message names the key, its value and the range.
    """
    values = to_dict(recipe)
    for pattern, (low, high, expected) in _RANGES.items():
        for path, value in _at(values, pattern.split(".")):
            numbers = value if isinstance(value, list) else [value]
            if not all(low <= number <= high for number in numbers if number is not None):
                raise ValueError(f"{path} is {value}; expected {expected}")
    low, high = recipe.train.scale
    if low > high:
        raise ValueError(f"train.scale is [{low}, {high}]; expected the lower factor first")


def _at(values: Any, path: list[str], place: str = "") -> Iterator[tuple[str, Any]]:
    """The values at a path, where `*` matches every key, with their own paths; nulls are skipped."""
    if values is None:
        return
    if not path:
        yield place, values
        return
    keys = list(values) if path[0] == "*" else [path[0]]
    for key in keys:
        yield from _at(values.get(key), path[1:], f"{place}.{key}" if place else str(key))


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _dataclass_in(annotation: Any) -> type | None:
    return next((c for c in _choices(annotation) if isinstance(c, type) and is_dataclass(c)), None)


def _check_value(value: Any, annotation: Any, path: str) -> None:
    inner = _dataclass_in(annotation)
    words = [
        w for kind in _choices(annotation) if get_origin(kind) is Literal for w in get_args(kind)
    ]
    if inner is not None and isinstance(value, dict):
        check_keys(value, inner, f"{path}.")
    elif inner is not None and type(value) not in _choices(annotation):
        keys = ", ".join(entry.name for entry in fields(inner))
        raise ValueError(f"{path} is {value!r:.60}; expected a mapping with keys among {keys}")
    elif get_origin(annotation) is dict and isinstance(value, dict):
        for key, entry in value.items():
            if get_args(annotation)[0] is str and not isinstance(key, str):
                raise ValueError(f"{path} has the key {key!r:.60}; expected text. Quote it")
            _check_value(entry, get_args(annotation)[1], f"{path}.{key}")
    elif get_origin(annotation) is list and isinstance(value, list):
        for number, entry in enumerate(value):
            _check_value(entry, get_args(annotation)[0], f"{path}.{number}")
    elif words and value is not None and value not in words:
        *others, last = map(repr, words)
        known = f"{', '.join(others)} or {last}"
        raise ValueError(f"{path} is {value!r:.60}; expected {known}")


def annotation_at(path: list[str], kind: type = Recipe) -> Any:
    """The type of the value at a path such as `["train", "lr"]`; Any if a recipe does not fix it."""
    here = get_type_hints(kind).get(path[0], Any)
    if len(path) == 1:
        return here
    inner = _dataclass_in(here)
    if inner is not None:
        return annotation_at(path[1:], inner)
    item = get_args(here)[1] if get_origin(here) is dict else Any
    if len(path) == 2:
        return item
    inner = _dataclass_in(item)
    return Any if inner is None else annotation_at(path[2:], inner)


def option_texts(kind: type = Recipe, prefix: str = "") -> dict[str, str]:
    """Every key of a recipe by its path (`train.lr`), with the docstring below its field."""
    texts: dict[str, str] = {}
    types = get_type_hints(kind)
    below = {entry.arg_name: entry.description for entry in parse_from_object(kind).params}
    for entry in fields(kind):
        inner = _dataclass_in(types[entry.name])
        texts[prefix + entry.name] = below.get(entry.name) or (inner and inner.__doc__) or ""
        if inner is not None:
            texts |= option_texts(inner, f"{prefix}{entry.name}.")
    return texts


class _Dumper(yaml.SafeDumper):
    """Writes texts of every kind as plain ones, those that were read from a run, too."""


_Dumper.add_multi_representer(str, lambda dumper, text: dumper.represent_str(str(text)))


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML for `load_recipe`."""
    text: str = yaml.dump(to_dict(recipe), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text
