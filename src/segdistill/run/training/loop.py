"""The only training loop, for teachers, controls and distilled students alike."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from segdistill.activity import doing, get_on
from segdistill.config import TrainConfig
from segdistill.distillation.distiller import Distiller, shares_of
from segdistill.distillation.fractions import fractions, weighed
from segdistill.run.contents import read_metrics
from segdistill.run.folder import WEIGHTS, file_sha256, write_metrics
from segdistill.run.progress import TrainingProgress
from segdistill.run.training.checkpoint import load_checkpoint, save_checkpoint
from segdistill.run.training.job import sum_over_processes
from segdistill.run.training.updates.adversaries import Adversaries
from segdistill.run.training.updates.average import WeightAverage
from segdistill.run.training.updates.finite import (
    NonFiniteLoss,
    check_gradient,
    check_state,
    first_nonfinite,
    nonfinite_in_words,
    not_finite,
)
from segdistill.run.training.updates.optimizer import build_optimizer, learning_rate_factor
from segdistill.run.training.updates.rows import Window, kept_shares, write_row

_log = logging.getLogger(__name__)
_SHARE_PARTS = 40  # of a training; gradient shares are measured once in each


class Interrupted(Exception):
    """The training was interrupted; its state is saved, and the same command resumes it."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped after step {step}. Repeat the command to resume")
        self.exit_code = 128 + signal_number


@dataclass
class Validation:
    """How the loop evaluates the student.

    Attributes:
        run: Evaluates the student at a step and returns the metrics of a row.
        every: Steps between evaluations; 0: none during the training.
        save_best: Called when the score is the best so far; gives the digest of what it wrote.
        score: Key of the metric that decides which is best, a fraction in [0, 1], and its title.
    """

    run: Callable[[int], dict[str, Any]]
    every: int
    save_best: Callable[[], str | None]
    score: tuple[str, str] = ("miou", "mIoU")


@contextmanager
def _signals(at_once: Callable[[], bool], step: Callable[[], int]) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; a second signal interrupts at once.

    Args:
        at_once: Whether the state is on disk and nothing is being changed, so that a signal may interrupt.
        step: The step that the state on disk is of.
    """
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        if at_once():
            raise Interrupted(step(), number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, which keeps its handlers
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Loop:
    """Trains a distiller for a number of steps, resuming from the run's checkpoint.

    A training that is stopped early finishes like any other; the learning rate is not rescaled.

    All randomness in a step depends only on (seed, step, process): torch's generator is reseeded for each
    step, so a resumed run draws the same dropout masks as an uninterrupted one.

    Args:
        fabric: Device, precision and processes.
        distiller: Student, terms and teacher, after the dry pass.
        config: How to train.
        folder: The run's folder.
        loader: Yields the batches starting at a step: `image`, `label`, `name` and `labelled`, and
            `student` where the student sees other images than the teacher.
        validation: The evaluation, or None.
        label: Text beside the progress bar.
        observe: Called with each row, in the first process. A result that is not None is a request to
            stop; its fields are recorded.

    Attributes:
        step: Number of steps done.
        seconds: Time spent on them.
        skipped: Number of skipped batches with non-finite values.
        overflowed: Number of steps that a gradient scaler left out, as gradients overflowed in fp16.
        stopped: Step and fields of the request that stopped the training; None otherwise.
    """

    def __init__(
        self,
        fabric: Fabric,
        distiller: Distiller,
        config: TrainConfig,
        folder: Path,
        loader: Callable[[int], Iterator[Mapping[str, Any]]],
        validation: Validation | None = None,
        label: str = "train",
        observe: Callable[[Mapping[str, Any]], Any] = lambda row: None,
    ) -> None:
        self.fabric, self.distiller, self.config = fabric, distiller, config
        self.folder, self.loader, self.validation, self.label = folder, loader, validation, label
        self.observe = observe
        optimizer = build_optimizer(distiller, config)
        self.module, self.optimizer = fabric.setup(distiller, optimizer)
        self.adversaries = Adversaries(fabric, distiller, config)
        self.average = WeightAverage(distiller.student, config.average)
        self._never_finite = not_finite(distiller.state_dict())
        self.step = 0
        self.best = -math.inf
        self.best_sha256: str | None = None
        self._lost_best: float | None = None
        self.seconds = 0.0
        self.preparation_seconds = 0.0
        self.validated = -1
        self.skipped = 0
        self.overflowed = 0
        self.rows = 0
        self.stopped: dict[str, Any] | None = None
        self._answer: Any = None
        self._failure: Exception | None = None
        self._validating = False
        self._window = Window()
        self._kept: Mapping[str, Tensor] = {}
        self._closed: set[str] = set()
        self._zero: set[str] = set()

    # State -------------------------------------------------------------------------------------

    def restore(self) -> bool:
        """Load the newest state of the run; False if there is no state."""
        state = load_checkpoint(self.folder)
        if state is None:
            if self.fabric.is_global_zero:
                write_metrics(self.folder / "metrics.jsonl", [])
            return False
        self.distiller.load_state_dict(state["distiller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adversaries.load_state_dict(state.get("adversaries", {}))
        self.average.load_state_dict(state.get("average", {}))
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        # States of older versions have none of these, and were saved after the validation of their step.
        self.stopped, self.validated = state.get("stopped"), state.get("validated", self.step)
        self.skipped, self.best_sha256 = state.get("skipped", 0), state.get("best_sha256")
        self.overflowed = state.get("overflowed", 0)
        self.preparation_seconds = state.get("preparation_seconds", 0.0)
        self._window.load_state_dict(state.get("window", {}))
        if self.fabric.is_global_zero:
            self._restore_rows(state.get("rows", 0))
            self._restore_best()
        return True

    def _restore_rows(self, expected: int) -> None:
        """Keep the rows that belong to the state; warn if some of them are lost."""
        path = self.folder / "metrics.jsonl"
        rows = [row for row in read_metrics(path) if self._is_past(row)]
        write_metrics(path, rows)
        if len(rows) < expected:
            _log.warning(
                "%s has lost %d of the %d rows up to step %d: curves lack them, the training does not",
                path,
                expected - len(rows),
                expected,
                self.step,
            )
        self.rows = len(rows)

    def _restore_best(self) -> None:
        """Choose the best weights anew if they are not the ones that were saved with the state.

        They may be newer, from the validation that the state was saved before and that is now repeated.
        """
        path = self.folder / WEIGHTS["best"]
        if self.best_sha256 is None or (path.is_file() and file_sha256(path) == self.best_sha256):
            return
        self.best, self._lost_best = -math.inf, self.best

    def _tell_lost_best(self, score: float) -> None:
        """Warn of best weights that were changed or lost, unless better ones have just replaced them."""
        lost, self._lost_best = self._lost_best, None
        if lost is not None and score <= lost:
            _log.warning(
                "%s is not the file that the training wrote: the best weights are those from step %d on",
                self.folder / WEIGHTS["best"],
                self.step,
            )

    def _is_past(self, row: Mapping[str, Any]) -> bool:
        """Whether a row belongs to the state; a later validation is repeated."""
        if row["step"] == self.step and row.get("kind") == "val":
            return self.validated == self.step
        return bool(row["step"] <= self.step)

    def save(self) -> None:
        """Save the state to resume from.

        Raises:
            NonFiniteLoss: A weight or running statistic is not finite; the state before stays.
        """
        tensors = self.distiller.state_dict() | self.average.named_averages()
        check_state(tensors, self.step, self._never_finite)
        if self.fabric.is_global_zero:
            state = {
                "step": self.step,
                "best": self.best,
                "best_sha256": self.best_sha256,
                "seconds": self.seconds,
                "preparation_seconds": self.preparation_seconds,
                "stopped": self.stopped,
                "validated": self.validated,
                "skipped": self.skipped,
                "overflowed": self.overflowed,
                "rows": self.rows,
                "window": self._window.state_dict(),
                "distiller": self.distiller.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "adversaries": self.adversaries.state_dict(),
                "average": self.average.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            save_checkpoint(self.folder, state)
        self.fabric.barrier()

    # Training ----------------------------------------------------------------------------------

    def run(self, progress: bool = True) -> None:
        """Train from the current step to the last, or until an observer stops the training.

        Afterwards the student has the averaged weights, if `train.average` asks for them.

        Raises:
            Interrupted: SIGINT or SIGTERM was received; the state is saved.
            Exception: `observe` raised it; the state is saved.
            NonFiniteLoss: A term or gradient is not finite; the parameters are those before the step.
        """
        config = self.config
        show = progress and self.fabric.is_global_zero
        with (
            TrainingProgress(self.label, config.steps, self.step, show) as bar,
            _signals(lambda: self._validating, lambda: self.step) as received,
            doing("training", self.label),
            ExitStack() as ends,
        ):
            self.module.train()
            if self.step > 0:  # the state was saved before the validation of its step
                self._validate(bar, save=False)
            batches = self.loader(self.step)
            # Its thread or workers would outlive an error, whose traceback keeps them.
            ends.callback(getattr(batches, "close", lambda: None))
            self._heed(received)
            clock = time.perf_counter()
            while self._goes_on():
                get_on(f"waiting for the images of step {self.step + 1}")
                batch = next(batches)
                loaded = time.perf_counter()
                logs = (self.step + 1) % config.log_every == 0 or self.step + 1 == config.steps
                values, shares = self._attempt(batch, logs, logs and self._measures_shares())
                self.step += 1
                now = time.perf_counter()
                self._window.add(values, now - clock, loaded - clock)
                self.seconds += now - clock
                clock = now
                bar.step(self.step)
                if logs:
                    bar.terms(self.step, self._log(self._window, shares))
                    self._window = Window()
                validated = self._validate(bar)
                if validated:
                    clock = time.perf_counter()
                self._heed(received)
                if self.step % config.save_every == 0 and self._goes_on() and not validated:
                    self.save()
                    clock = time.perf_counter()
            if self._validate(bar):
                self._heed(received)
        if self.overflowed:
            _log.warning(
                "%d of %d steps were left out, as gradients overflowed in fp16",
                self.overflowed,
                self.step,
            )
        self.average.apply()

    def _goes_on(self) -> bool:
        return self.step < self.config.steps and self.stopped is None

    def _measures_shares(self) -> bool:
        """Whether the coming step, a logged one, is the first, or the first of its part of the training.

        The shares make a logged step longer, and their curve needs no more points than these.
        Weights are set by the median over 5 to 10 % of a training, where all logged steps have them.
        """
        step, config = self.step + 1, self.config
        part, before = (_SHARE_PARTS * s // config.steps for s in (step, step - config.log_every))
        weighing = config.steps <= 20 * step <= 2 * config.steps
        return part > before or step == config.log_every or weighing

    def _heed(self, received: list[int]) -> None:
        """Handle requests of observers and signals, in all processes at the same step."""
        asked = [self._answer is not None, self._failure is not None, bool(received)]
        stop, failed, signalled = self._agreed(asked)
        if stop and self.stopped is None and self.step < self.config.steps:
            self.stopped = {"step": self.step, **(vars(self._answer) if self._answer else {})}
        if failed or signalled:
            self.save()
            raise self._failure or Interrupted(
                self.step, received[0] if received else signal.SIGTERM
            )

    def _agreed(self, asked: list[bool]) -> list[bool]:
        """Requests made in any of the processes."""
        if self.fabric.world_size == 1:
            return asked
        flags = torch.tensor([float(flag) for flag in asked], device=self.fabric.device)
        return [bool(count > 0) for count in sum_over_processes(self.fabric, flags)]

    def _attempt(
        self, batch: Mapping[str, Any], logs: bool, with_shares: bool
    ) -> tuple[Mapping[str, Tensor], dict[str, float]]:
        """A training step; up to `train.skip_nonfinite` steps with non-finite values are skipped."""
        get_on(f"step {self.step + 1} of {self.config.steps}")
        if self.skipped >= self.config.skip_nonfinite:
            return self._train_step(batch, logs, with_shares)
        # Running statistics have already been updated when the loss is known.
        before = [(buffer, buffer.clone()) for buffer in self.distiller.buffers()]
        try:
            return self._train_step(batch, logs, with_shares)
        except NonFiniteLoss as error:
            self.skipped += 1
            for buffer, value in before:
                buffer.copy_(value)
            self.optimizer.zero_grad(set_to_none=True)
            self.adversaries.forget()
            _log.warning(
                "skipped a batch, %d of at most %d: %s",
                self.skipped,
                self.config.skip_nonfinite,
                error,
            )
            return {}, {}

    def _train_step(
        self, batch: Mapping[str, Any], logs: bool, with_shares: bool
    ) -> tuple[Mapping[str, Tensor], dict[str, float]]:
        config, method = self.config, self.distiller.method
        torch.manual_seed(_mix(config.seed, self.step, self.fabric.global_rank))
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * group["factor"] * learning_rate_factor(self.step, config)
        parts = self._parts(batch)
        sums: dict[str, Tensor] = {}
        gradients: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        for index, (part, fraction) in enumerate(zip(parts, self._fractions(parts), strict=True)):
            last = index == len(parts) - 1
            with self.fabric.no_backward_sync(self.module, enabled=not last):
                values = self.module(*part)
                self._check_finite(values, batch)
                if with_shares:
                    some = self.distiller.anchor_gradients(
                        self._scale(), fraction, self._progress(self.step)
                    )
                    gradients = _summed(gradients, some)
                if logs:
                    kept = _summed(kept, self.distiller.kept(part[2]))
                values = weighed(values, fraction)
                # Fabric averages gradients over the processes; a batch is the sum of its parts.
                total = method.total(values, self._progress(self.step))
                self.fabric.backward(total * self.fabric.world_size)
            sums = _summed(sums, {name: value.detach() for name, value in values.items()})
        if config.clip is not None:
            self.fabric.clip_gradients(
                self.module, self.optimizer, max_norm=config.clip, error_if_nonfinite=False
            )
        self._check_gradient(batch)
        stepped = self._step_optimizer()
        self.optimizer.zero_grad(set_to_none=True)
        if self.adversaries:
            sums |= self._train_adversaries(batch)
        if stepped:
            self.average.update()
        gradients = {name: self._sum(gradient) for name, gradient in gradients.items()}
        self._kept = {name: self._sum(counts) for name, counts in kept.items()}
        return self._over_processes(sums), shares_of(gradients)

    def _step_optimizer(self) -> bool:
        """Step, unless a gradient of fp16 overflows; a scaler lowers its scale then, as it does after some."""
        scale = self._scale()
        self.optimizer.step()
        overflowed = self._scale() < scale
        self.overflowed += overflowed
        return not overflowed

    def _parts(self, batch: Mapping[str, Any]) -> list[tuple[Tensor, ...]]:
        """Images, labels, which have labels, and the student's images of each part of a batch, on the device."""
        keys = ["image", "label", "labelled", *(["student"] if "student" in batch else [])]
        tensors = [self.fabric.to_device(batch[key]) for key in keys]
        if self.config.channels_last:
            tensors = [
                tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
                for tensor in tensors
            ]
        chunks = (tensor.chunk(self.config.accumulate) for tensor in tensors)
        return list(zip(*chunks, strict=True))

    def _progress(self, step: int) -> float:
        """0 at the first step, 1 at the last: what the schedules of the terms' weights follow."""
        return step / max(self.config.steps - 1, 1)

    def _fractions(self, parts: Sequence[tuple[Tensor, ...]]) -> Sequence[Mapping[str, Tensor]]:
        """Weights of each part in the batch of all processes; empty if the part is the whole batch."""
        if len(parts) == self.fabric.world_size == 1:
            return [{}]
        counted = [self.distiller.denominators(*part[:3]) for part in parts]
        return fractions(counted, self._sum)

    def _sum(self, tensor: Tensor) -> Tensor:
        return tensor if self.fabric.world_size == 1 else sum_over_processes(self.fabric, tensor)

    def _over_processes(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The terms' values for the whole batch, summed over the parts of all processes."""
        if self.fabric.world_size == 1:
            return values
        total = self._sum(torch.stack(list(values.values())))
        return dict(zip(values, total, strict=True))

    def _mean_seconds(self, window: Window) -> tuple[float, float]:
        """Seconds since the last row in total and in waiting for data, averaged over processes."""
        own = torch.tensor([window.seconds, window.waiting], dtype=torch.float64)
        seconds, waiting = (self._sum(own) / self.fabric.world_size).tolist()
        return seconds, waiting

    def _train_adversaries(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        values = self.adversaries.backward()
        self._check_finite(values, batch)
        self._check_gradient(batch)
        self.adversaries.step(self.step)
        return values

    def _check_finite(self, values: Mapping[str, Tensor], batch: Mapping[str, Any]) -> None:
        finite = torch.isfinite(torch.stack([v.detach().float() for v in values.values()])).all()
        if self.config.skip_nonfinite:  # all processes leave out the same steps
            finite = torch.tensor(not self._agreed([not bool(finite)])[0])
        if bool(finite):
            return
        images = self.fabric.to_device(batch["image"])
        own = self.fabric.to_device(batch["student"]) if "student" in batch else images
        plain = {name: float(value.detach()) for name, value in values.items()}
        raise NonFiniteLoss(
            f"step {self.step + 1}: {nonfinite_in_words(plain)} on {', '.join(batch['name'])}"
            f"{first_nonfinite(self.distiller, images, own)}. Lower train.lr or the term's weight, "
            "set train.clip or train.skip_nonfinite, or inspect these files; the last checkpoint is kept"
        )

    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def _scale(self) -> float:
        scaler = self._scaler()
        return float(scaler.get_scale()) if scaler is not None else 1.0

    def _check_gradient(self, batch: Mapping[str, Any]) -> None:
        # A GradScaler handles overflows itself: it skips the step and lowers its scale.
        if self._scaler() is None:
            check_gradient(self.distiller, self.step + 1, batch["name"])

    # Records -----------------------------------------------------------------------------------

    def record(self, row: Mapping[str, Any]) -> None:
        """Write a row and pass it to the observers. Called only in the first process."""
        write_row(self.folder, row)
        self.rows += 1
        try:
            answer = self.observe(row)
        except Exception as error:
            # Raised later by `_heed`, since the other processes must also reach the end of this step.
            self._failure = self._failure or error
        else:
            self._answer = answer if self._answer is None else self._answer

    def _log(self, window: Window, shares: Mapping[str, float]) -> dict[str, float]:
        means = window.means()
        seconds, waiting = self._mean_seconds(window)
        if means and self.fabric.is_global_zero:
            weights = self.distiller.method.weights(self._progress(self.step - 1))
            terms = {
                name: {"value": means[name], "weight": weight, "share": shares.get(name)}
                for name, weight in (weights | self.adversaries.weights).items()
            }
            row = {
                "kind": "train",
                "step": self.step,
                "lr": self.optimizer.param_groups[0]["lr"],
                "total": sum(means[name] * weight for name, weight in weights.items()),
                "terms": terms,
                **({"kept": kept_shares(self._kept)} if self._kept else {}),
                **({"skipped": self.skipped} if self.skipped else {}),
                **({"overflowed": self.overflowed} if self.overflowed else {}),
                "seconds_per_step": seconds / window.steps,
                "data_seconds": waiting / window.steps,
            }
            self.record(row)
            self._tell_closed_gates(row.get("kept", {}))
            self._tell_zero_terms(terms)
        return means

    def _tell_zero_terms(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        """Warn once of each term that was 0 in all steps since the last row, but for one that is switched off."""
        for name, one in terms.items():
            term = self.distiller.method.terms.get(name)
            off = term is None or getattr(term.loss, "switched_off", False)
            told = name in self._zero or name in self._closed
            if one["value"] == 0 and one["weight"] and not off and not told:
                self._zero.add(name)
                _log.warning(
                    "steps up to %d: %s is 0, so nothing is learnt from it there%s",
                    self.step,
                    name,
                    ". Check that the labels are not all ignored, and that the classes that it needs occur"
                    if term and term.needs_labels
                    else "",
                )

    def _tell_closed_gates(self, kept: Mapping[str, Sequence[float | None]]) -> None:
        """Warn once of each gate that lets no pixel of a logged step through: its term learns nothing there."""
        for name, shares in kept.items():
            if name not in self._closed and shares and not any(shares):
                self._closed.add(name)
                key = "method.confidence" if name == "labels" else f"the confidence of {name}"
                _log.warning(
                    "step %d: no pixel reaches %s, so nothing is learnt from it there. Lower it",
                    self.step,
                    key,
                )

    def _validate(self, bar: TrainingProgress, save: bool = True) -> bool:
        """Evaluate if due. The state is saved first, so that a failure here loses no step."""
        validation = self.validation
        due = validation is not None and validation.every > 0 and self.step % validation.every == 0
        if validation is None or self.validated == self.step or not (due or not self._goes_on()):
            return False
        key, title = validation.score
        if save:
            self.save()
        with self.average.applied():
            row = self._measure(validation)
            self.validated = self.step
            if self.fabric.is_global_zero:
                self.record(row)
                bar.say(f"{self.label}  step {self.step}: {100 * row[key]:.2f} {title}")
            self._tell_lost_best(row[key])
            if row[key] > self.best:
                self.best = row[key]
                self.best_sha256 = validation.save_best()
        return True

    def _measure(self, validation: Validation) -> dict[str, Any]:
        self.module.eval()
        self._validating = True
        try:
            with doing("evaluating the student", f"step {self.step}"):
                return {"kind": "val", "step": self.step, **validation.run(self.step)}
        finally:
            self._validating = False
            self.module.train()


def _mix(*numbers: int) -> int:
    """Hash several numbers to a 63-bit seed, so that neighbouring steps have unrelated streams."""
    value = 0x9E3779B97F4A7C15
    for number in numbers:
        value = (value ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value & 0x7FFFFFFFFFFFFFFF


def _summed(sums: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: sums[name] + value if name in sums else value for name, value in more.items()}
