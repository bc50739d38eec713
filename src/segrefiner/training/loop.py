"""The training loop: checkpoints, logs, validation, and stopping in time.

A run's folder holds `recipe.json`, `log.jsonl` (means over the steps since the row before), `validation.jsonl`,
`failures.jsonl` (photos that could not be read), `pictures/STEP.png` (what the network sees and answers),
`checkpoint.pt` (all that a run needs to go on) and `best.safetensors` (the weights that validated best).
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TrainingError
from ..imaging.files import atomic_write, write_png
from ..imaging.json_files import json_text
from ..model.unet import DenoisingUNet
from .monitoring.examples import example_grid
from .run_folder import CHECKPOINT_NAME, FAILURES_NAME, LOG_NAME, PICTURES_NAME, RECIPE_NAME, VALIDATION_NAME
from .trainer import Trainer

DEGENERATE = 0.95
"""Share of empty or full predictions from which on a network is taken for collapsed."""

PATIENCE, FIRST_PATIENCE = 200, 2000
"""Steps for which it may stay so: when it has been better before, and from the start of a run."""

MOST_FAILURES, FEWEST_FAILURES = 0.05, 20
"""Share of unreadable photos among those tried, and their number, from which on a run stops."""

_GRID_ROWS = 6
_CHECK_STEPS = 10
"""Steps after which several processes ask each other whether to stop."""

LogRow = dict[str, float]
Validate = Callable[[DenoisingUNet], Sequence[Mapping[str, Any]]]
"""Rows of a validation of a network: pipeline, iou_after, mba_after and what else is to be logged."""


@dataclass(frozen=True)
class Watch:
    """Callables that follow a run, in the first process alone. Each has a default that does nothing.

    Attributes:
        begin: Takes the step at which the run begins or goes on.
        log: Takes each row of the log: means over the steps since the row before, by name.
        validation: Takes each row of a validation, as `validation.validate` gives it, with its `step`.
        picture: Takes the step and a picture `(H, W, 3)` uint8, RGB, of what the network sees and answers.
    """

    begin: Callable[[int], None] = lambda step: None
    log: Callable[[LogRow], None] = lambda row: None
    validation: Callable[[Mapping[str, Any]], None] = lambda row: None
    picture: Callable[[int, NDArray[np.uint8]], None] = lambda step, picture: None


@dataclass
class CollapseGuard:
    """Notices when a network answers empty or full masks only, as it does where the learning rate was too high.

    Attributes:
        alive: Whether it has ever answered otherwise.
        since: The first step from which on it has not; None while it does.
    """

    alive: bool = False
    since: int | None = None

    def look(self, step: int, degenerate: float) -> bool:
        """Takes the share of empty or full predictions of the last steps; True where the run should stop."""
        if degenerate < DEGENERATE:
            self.alive, self.since = True, None
            return False
        self.since = step if self.since is None else self.since
        return step - self.since >= (PATIENCE if self.alive else FIRST_PATIENCE)

    @property
    def healthy(self) -> bool:
        """Whether the weights are worth a checkpoint."""
        return self.since is None or not self.alive


def train(
    trainer: Trainer,
    folder: Path,
    *,
    max_minutes: float = math.inf,
    checkpoint_minutes: float = 3.0,
    log_every: int = 50,
    validate: Validate | None = None,
    keep_best: Callable[[DenoisingUNet, int], None] = lambda net, step: None,
    watch: Watch = Watch(),
) -> bool:
    """Trains until the recipe's end or for so many minutes, resuming from the folder's checkpoint if there is one.

    SIGTERM and Ctrl-C end the run after the step under way, with a checkpoint.

    Args:
        trainer: Network, optimizer and batches of the run.
        folder: Folder of checkpoint and logs; created if need be.
        max_minutes: Stop, with a checkpoint, after this time.
        checkpoint_minutes: Time between checkpoints.
        log_every: Steps between log rows.
        validate: Judges the moving average at the start, after every `validate_every` steps and at the end.
        keep_best: Called with the network and the step whenever a validation is the best so far.
        watch: Callables that follow the run.

    Returns:
        True when the recipe's end is reached.

    Raises:
        TrainingError: The loss is no longer a number, the network has collapsed, or too many photos cannot be read;
            the checkpoint on disk is the last good one.
        OutputError: Something cannot be written; the last checkpoint stays whole.
    """
    return _Run(trainer, folder, log_every, validate, keep_best, watch).go(max_minutes, checkpoint_minutes)


@dataclass
class _Run:
    trainer: Trainer
    folder: Path
    log_every: int
    validate: Validate | None
    keep_best: Callable[[DenoisingUNet, int], None]
    watch: Watch
    guard: CollapseGuard = field(default_factory=CollapseGuard)
    failures: int = 0

    def __post_init__(self) -> None:
        self.first = self.trainer.processes.rank == 0
        self.checkpoint = self.folder / CHECKPOINT_NAME

    def go(self, max_minutes: float, checkpoint_minutes: float) -> bool:
        trainer, recipe = self.trainer, self.trainer.recipe
        self._begin()
        started = saved = self.logged = time.monotonic()
        self.started, self.samples = started, recipe.samples_before(trainer.step)
        if trainer.step == 0:
            self._validate()
        with _asked_to_stop() as asked:
            while trainer.step < recipe.steps:
                trainer.train_step()
                now = time.monotonic()
                if trainer.step % self.log_every == 0 or trainer.step == recipe.steps:
                    self._log(now)
                if now - saved > 60 * checkpoint_minutes:
                    self._save()
                    saved = now
                if trainer.step % recipe.validate_every == 0 and trainer.step < recipe.steps:
                    self._validate()
                if self._stops(asked.is_set() or now - started > 60 * max_minutes):
                    break
        self._save()
        if trainer.step >= recipe.steps:
            self._validate()
        trainer.processes.barrier()
        return trainer.step >= recipe.steps

    def _begin(self) -> None:
        if self.first:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.trainer.processes.barrier()
        if self.checkpoint.exists():
            self.trainer.load(self.checkpoint)
        if self.first:
            for name in (LOG_NAME, VALIDATION_NAME):
                _forget_later_rows(self.folder / name, self.trainer.step)
            recipe = json_text(self.trainer.recipe.to_dict(), indent=1)
            atomic_write(self.folder / RECIPE_NAME, lambda file: file.write(recipe.encode()))
            self.watch.begin(self.trainer.step)
        self.trainer.processes.barrier()

    def _stops(self, wanted: bool) -> bool:
        """Whether to stop now; several processes agree on it now and then."""
        processes = self.trainer.processes
        if processes.world > 1 and self.trainer.step % _CHECK_STEPS:
            return False
        return processes.any(wanted, self.trainer.device)

    def _log(self, now: float) -> None:
        trainer, recipe = self.trainer, self.trainer.recipe
        seen = recipe.samples_before(trainer.step)
        row = {"step": float(trainer.step)} | trainer.tally.means(trainer.processes)
        row |= {"samples": float(seen), "lr": recipe.lr_at(trainer.step - 1)}
        row["samples_per_second"] = (seen - self.samples) / max(1e-9, now - self.logged)
        row["minutes"] = (now - self.started) / 60
        failures = trainer.tally.failures
        self.samples, self.logged = seen, now
        trainer.tally.clear()
        self._check_finite(row)
        if self.first:
            self._append(LOG_NAME, {k: round(v, 6) for k, v in row.items()})
            self.watch.log(row)
        self._count_failures(failures, seen)
        if self.guard.look(trainer.step, row["degenerate"]):
            raise TrainingError(
                f"the network collapsed: since step {self.guard.since} its masks are empty or full. "
                f"{self._last_good()}; go on in another folder with a lower lr, with warmup_steps and clip_norm"
            )

    def _count_failures(self, failures: Sequence[tuple[str, str]], seen: int) -> None:
        for name, reason in failures:
            self._append(FAILURES_NAME, {"name": name, "reason": reason})
        self.failures += len(failures)
        if self.failures > max(FEWEST_FAILURES, MOST_FAILURES * seen / self.trainer.processes.world):
            raise TrainingError(
                f"{self.failures} photos could not be read, the last one: {failures[-1][1]}. "
                f"All are in {self.folder / FAILURES_NAME}: mend or remove them"
            )

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        # Unreadable photos are noted by every process: short lines are appended whole.
        with (self.folder / name).open("a") as file:
            file.write(json_text(row) + "\n")

    def _save(self) -> None:
        # Without waiting for the other processes, whose clocks differ.
        self._check_finite(self.trainer.tally.means())
        if self.first and self.guard.healthy:
            self.trainer.save(self.checkpoint)

    def _check_finite(self, row: Mapping[str, float]) -> None:
        """Raises `TrainingError` before numbers that are none get into a checkpoint."""
        # A scaled loss in float16 overflows now and then by design; those steps are left out.
        names = ("loss",) if self.trainer.recipe.precision == "fp16" else ("loss", "gradient_norm")
        for name in names:
            if not math.isfinite(row[name]):
                raise TrainingError(
                    f"the {name.replace('_', ' ')} became {row[name]} at step {self.trainer.step}. "
                    f"{self._last_good()}; go on with a lower lr, in another folder"
                )

    def _last_good(self) -> str:
        if not self.checkpoint.exists():
            return "There is no earlier checkpoint"
        return f"The last good weights are in {self.checkpoint}"

    def _validate(self) -> None:
        began = time.monotonic()
        # Only the first process reads what it alone writes.
        if self.first:
            self._show()
            self._judge()
        self.trainer.processes.barrier()
        self.logged += time.monotonic() - began  # the rate of samples is that of training alone

    def _show(self) -> None:
        """Draws what the network sees and answers at this step."""
        trainer = self.trainer
        example = trainer.example()
        b = example.batch
        shown = [t[:_GRID_ROWS].cpu() for t in (b.image, b.coarse, example.mixed)]
        answer = [t[:_GRID_ROWS].cpu() for t in (trainer.probability(example), b.fine, example.timesteps)]
        picture = example_grid(*shown, *answer)
        (self.folder / PICTURES_NAME).mkdir(exist_ok=True)
        write_png(self.folder / PICTURES_NAME / f"{trainer.step}.png", picture)
        self.watch.picture(trainer.step, picture)

    def _judge(self) -> None:
        """Validates the moving average, unless that was done at this step, and keeps it if it is the best so far."""
        step, before = self.trainer.step, _rows(self.folder / VALIDATION_NAME)
        if self.validate is None or any(row["step"] == step for row in before):
            return
        rows = [{"step": step, **row} for row in self.validate(self.trainer.result())]
        for row in rows:
            self._append(VALIDATION_NAME, row)
            self.watch.validation(row)
        if rows and _score(rows[0]) > max(_scores(before), default=-math.inf):
            self.keep_best(self.trainer.result(), step)


def _score(row: Mapping[str, Any]) -> float:
    """What makes a validation the best one: the mean of IoU and mBA after refinement, by the first pipeline."""
    return float(row["iou_after"] + row["mba_after"]) / 2


def _scores(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The scores of the first pipeline that each step was validated with."""
    first = {row["step"]: row for row in reversed(rows)}
    return [_score(row) for row in first.values()]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, where this is the main thread; a second Ctrl-C interrupts as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    for number in before:
        signal.signal(number, stop)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forget_later_rows(log: Path, step: int) -> None:
    """Drops what a killed run had logged after its last checkpoint, and a cut-off line: those steps are taken again."""
    if not log.exists():
        return
    whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    rows = [line for line in whole if json.loads(line)["step"] <= step]
    atomic_write(log, lambda file: file.write("".join(rows).encode()))
