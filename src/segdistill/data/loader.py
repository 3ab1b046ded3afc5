"""Batches of samples for training and evaluation."""

import builtins
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict
from weakref import WeakSet

import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, get_worker_info

from segdistill.data.channels import in_unit_range
from segdistill.data.dataset import PairDataset, SegmentationDataset
from segdistill.data.labelled import labelled_samples
from segdistill.data.order import Key, Order
from segdistill.data.randomness import generator_for
from segdistill.data.samples import Indexed, check_label, hands_on, read_sample, require_indexed
from segdistill.data.strong import NOTHING_MORE, Strong, with_box
from segdistill.data.transforms import Augment


class Batch(TypedDict):
    """A batch from the loaders: images in 0..1, labels int64 with 255 ignored, and names of the samples.

    `labelled` says which samples have labels; the others are 255 everywhere. `student` holds the images in
    stronger colours, where these are asked for.
    """

    image: Float[Tensor, "b c h w"]
    label: Int64[Tensor, "b h w"]
    name: list[str]
    labelled: Bool[Tensor, " b"]
    student: NotRequired[Float[Tensor, "b c h w"]]


def training_loader(
    dataset: Indexed,
    augment: Augment,
    batch: int,
    seed: int,
    start_step: int,
    steps: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    num_classes: int | None = None,
    labelled: int | None = None,
    strong: Strong = NOTHING_MORE,
) -> Iterator[Batch]:
    """Batches for the optimizer steps `start_step .. steps - 1` of this process.

    Augmentation depends only on (seed, epoch, index). No global generator is touched, and neither
    `workers` nor `world` changes a sample. Starting late costs one permutation.

    Args:
        dataset: A `SegmentationDataset`, or any data set of `{"image", "label"[, "name"]}` or
            `(image, label)` with images uint8 or floating point `c h w`. Samples without labels
            (`segdistill.data.labelled.labelled_samples`) may leave out "label": all their pixels are
            ignored.
        augment: Makes a crop of fixed size from a sample.
        batch: Samples per step, over all processes.
        seed: Seed of order and augmentation.
        start_step: First step to yield, counted from 0.
        steps: Length of the whole run; step `steps` is no longer yielded.
        rank: Number of this process, which reads the rank-th part of every batch.
        world: Number of processes; divides `batch`.
        workers: Processes that read ahead; 0 reads in this one, and pairs of files in a thread of it, one
            batch ahead. Close the iterator to end them early.
        num_classes: Refuse label ids not below this number; by default the data set's `num_classes`.
        labelled: Samples with labels in each batch, evenly spread over the processes; the others have none.
            None: all samples in one order, as they come.
        strong: A second view in stronger colours, and boxes of other samples: each of one that has labels as
            the sample itself, or has none. The other is read and augmented for it.

    Raises:
        ValueError: The numbers do not fit together, or a sample is bad (file and value are named).
    """
    _check_share(rank, world)
    if batch < 1 or batch % world:
        raise ValueError(
            f"batch is {batch}; expected a positive multiple of {world}, the number of processes, "
            f"such as {max(1, batch // world) * world}"
        )
    if not 0 <= start_step <= steps:
        raise ValueError(f"start_step is {start_step}; expected 0..{steps}, the length of the run")
    samples = _Samples(dataset, augment, seed, num_classes, strong)
    share = batch // world
    _check_labelled(labelled, batch, samples.labelled)
    steps_left = range(start_step, steps)
    order = Order(samples.labelled, seed, steps_left, batch, rank * share, share, labelled)
    batches = _batches(samples, order, workers)
    return _ahead(batches) if not workers and _runs_in_any_thread(dataset) else batches


def evaluation_loader(
    dataset: Indexed,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    num_classes: int | None = None,
) -> Iterator[Batch]:
    """Every image once, one at a time, at its native size.

    Args:
        dataset: As for `training_loader`.
        rank: Number of this process, which reads samples `rank, rank + world, ..`.
        world: Number of processes. No image is repeated or added as padding.
        workers: Processes that read ahead; 0 reads in this one.
        num_classes: Refuse label ids not below this number; by default the data set's `num_classes`.
    """
    _check_share(rank, world)
    samples = _Samples(dataset, _Whole(), 0, num_classes)
    order = [[(0, index)] for index in range(rank, len(samples), world)]
    return _batches(samples, order, workers)


class _Whole:
    """The whole image unchanged, where `Augment` would cut a crop."""

    def __call__(
        self, image: Num[Tensor, "c h w"], label: Num[Tensor, "h w"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "c h w"], Int64[Tensor, "h w"]]:
        return in_unit_range(image), label.long()


@dataclass(frozen=True)
class _Failure:
    """An error passed from a worker process to the main one."""

    kind: str
    message: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> "_Failure":
        return cls(type(error).__name__, str(error), traceback.format_exc())

    def error(self) -> Exception:
        """The error as it was raised, or a RuntimeError if its type cannot be rebuilt from a message."""
        kind = getattr(builtins, self.kind, None)
        if kind in (ValueError, FileNotFoundError, PermissionError, OSError, TypeError):
            error: Exception = kind(self.message)
        else:
            error = RuntimeError(f"reading the data failed: {self.kind}: {self.message}")
        error.add_note(self.trace)
        return error


class _Samples(Dataset[Any]):
    """Transformed samples by (epoch, index); errors are returned, not raised.

    A DataLoader wraps an error of its workers in many lines of trace; a `_Failure` keeps the
    one line that is meant for the user.
    """

    def __init__(
        self,
        dataset: Indexed,
        transform: Augment | _Whole,
        seed: int,
        num_classes: int | None,
        strong: Strong = NOTHING_MORE,
    ) -> None:
        require_indexed(dataset)
        self.strong = strong
        self.dataset, self.transform, self.seed = dataset, transform, seed
        self.labelled = labelled_samples(dataset)
        self.alike = {
            kind: [index for index, flag in enumerate(self.labelled) if flag == kind]
            for kind in (False, True)
        }
        known = num_classes or getattr(dataset, "num_classes", None)
        self.num_classes = known if isinstance(known, int) else None
        self.reading: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labelled)

    def note(self, name: str) -> None:
        """Leave word of what this worker reads, where the main process can see it."""
        worker = get_worker_info()
        if self.reading is None or worker is None:
            return
        text = f"{time.time():.3f} {name}".encode()[: self.reading.shape[1]]
        row = self.reading[worker.id]
        row.zero_()
        row[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def __getitems__(self, keys: Sequence[Key]) -> "Batch | _Failure":
        try:
            samples = [self._mixed(epoch, index) for epoch, index in keys]
            batch = _stacked(samples, [self.labelled[index] for _, index in keys])
            if self.strong.photometric:
                pairs = zip(keys, batch["image"], strict=True)
                views = [self.strong.view(image, self.seed, *key) for key, image in pairs]
                batch["student"] = torch.stack(views)
            return batch
        except Exception as error:
            return _Failure.of(error)
        finally:
            self.note("")

    def _mixed(self, epoch: int, index: int) -> tuple[Tensor, Tensor, str]:
        """A sample, with a box of another one where one is drawn."""
        image, label, name = self._sample(epoch, index, "augment")
        alike = self.alike[self.labelled[index]] if self.strong.cutmix else []
        drawn = self.strong.partner(len(alike), self.seed, epoch, index)
        if drawn is not None:
            which, box = drawn
            # By a generator of its own: the other may be the sample itself, in another crop.
            other, other_label, _ = self._sample(epoch, alike[which], f"cutmix of {index}")
            image, label = with_box(image, label, other, other_label, box)
        return image, label, name

    def _sample(self, epoch: int, index: int, stream: str) -> tuple[Tensor, Tensor, str]:
        self.note(_name_of(self.dataset, index))
        image, label, name = read_sample(self.dataset, index)
        ours = isinstance(self.dataset, SegmentationDataset) and hands_on(self.dataset)
        # Our data sets checked ids on reading; check again only if `num_classes` differs.
        if not ours or getattr(self.dataset, "num_classes", None) != self.num_classes:
            check_label(label, self.num_classes, name)
        generator = generator_for(stream, self.seed, epoch, index)
        return *self.transform(image, label, generator), name


def _stacked(samples: Sequence[tuple[Tensor, Tensor, str]], labelled: Sequence[bool]) -> Batch:
    images, labels, names = zip(*samples, strict=True)
    return {
        "image": torch.stack(images),
        "label": torch.stack(labels),
        "name": list(names),
        "labelled": torch.tensor(labelled),
    }


def _batches(samples: _Samples, order: Any, workers: int) -> Iterator[Batch]:
    if workers < 0:
        raise ValueError(f"workers is {workers}; expected 0 or above")
    if workers:
        reading: Any = torch.zeros((workers, 256), dtype=torch.uint8)
        samples.reading = reading.share_memory_()
        _watched.add(samples)
    loader = DataLoader(
        samples,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=_leave_signals_to_the_main_process,
        # Without a generator, a DataLoader draws its workers' seed from the global one.
        generator=generator_for("workers", samples.seed),
    )
    return _unwrapped(loader)


def _runs_in_any_thread(dataset: Any) -> bool:
    """Whether samples are read by this package alone: other code may draw from global generators, or hold
    what belongs to one thread, such as a connection to a database."""
    while isinstance(dataset, Subset) and hands_on(dataset):
        dataset = dataset.dataset
    kind = type(dataset)
    return isinstance(dataset, PairDataset) and (kind.__getitem__, kind.read, kind.load) == (
        PairDataset.__getitem__,
        PairDataset.read,
        PairDataset.load,
    )


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches; a thread prepares the next one while one is used, and ends with this iterator."""
    with ThreadPoolExecutor(1, "segdistill-loader") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


_watched: "WeakSet[_Samples]" = WeakSet()


def busy_workers() -> list[tuple[int, str, float]]:
    """Each worker of this process's loaders that is reading: its number, the sample, and for how many seconds."""
    busy = []
    for samples in list(_watched):
        rows = [] if samples.reading is None else samples.reading.tolist()
        for worker, row in enumerate(rows):
            began, _, name = bytes(row).rstrip(b"\0").decode(errors="replace").partition(" ")
            if name:
                busy.append((worker, name, time.time() - float(began)))
    return busy


def _name_of(dataset: Any, index: int) -> str:
    names = getattr(dataset, "names", None)
    return str(names[index]) if isinstance(names, list) else f"sample {index}"


def _leave_signals_to_the_main_process(_worker: int) -> None:
    """Ctrl-C reaches a whole group of processes: the main one stops its workers, in silence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _unwrapped(loader: "DataLoader[Any]") -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, _Failure):
            raise batch.error()
        yield batch


def _as_is(batch: Any) -> Any:
    return batch


def _check_labelled(labelled: int | None, batch: int, flags: Sequence[bool]) -> None:
    if labelled is None:
        return
    if not 0 <= labelled <= batch:
        raise ValueError(f"labelled is {labelled}; expected 0..{batch}, the images of a batch")
    if (labelled and not any(flags)) or (labelled < batch and all(flags)):
        raise ValueError(
            f"labelled is {labelled} of {batch}, and {sum(flags)} of {len(flags)} samples have labels; expected "
            "samples of both kinds where both are asked for"
        )


def _check_share(rank: int, world: int) -> None:
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank}; expected 0..{world - 1} for {world} processes")
