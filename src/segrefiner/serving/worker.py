"""The one thread that computes, and what waits for it.

Refining is bound by the processor or the GPU, so that two threads would only take memory from each other. What waits
meanwhile is taken together: masks of several requests with the same settings are refined at once.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..imaging.reading import Photo
from ..model.diffusion import Progress
from ..refinement.options import PLAIN, Options
from ..refinement.refiner import Refiner, Result
from .problems import fault

_BATCH_MASKS = 16
_BATCH_PIXELS = 64_000_000
"""What several requests share at most: more would not compute faster, and the first would wait for the last."""

_LAST_SECONDS = 10.0
"""For what is computed when the worker is stopped."""

_log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """No more pictures may wait."""


class StoppedError(Exception):
    """Nothing is computed any more."""


class _AbandonedError(Exception):
    """Nobody waits for this any more."""


@dataclass(frozen=True)
class Settings:
    """What requests must have in common to be computed together.

    Attributes:
        model: A name among the worker's.
        options: How masks are refined.
    """

    model: str
    options: Options = PLAIN


class Task:
    """Something to compute.

    Args:
        settings: With which.
        photo: Read already.
        masks: `(H, W)` bool each.
        keep: Takes from each result what the answer needs, so that the rest can go.
        alone: Computes all of it, for what is not simply a list of masks; then `keep` is not called.
        count: Of the masks, where `alone` makes them.
        cost: About how much work it is, in views of the network, see `cost.estimated_cost`.

    Attributes:
        started: Done when the worker begins; cancelled by who does not want to wait any longer.
        finished: The list of what `keep` gave, or what `alone` did, or its error.
    """

    def __init__(
        self,
        settings: Settings,
        photo: Photo,
        masks: list[NDArray[np.bool_]],
        keep: Callable[[Result], Any],
        alone: Callable[..., Any] | None = None,
        count: int | None = None,
        cost: float = 1.0,
    ) -> None:
        self.settings, self.photo, self.masks, self.keep, self.alone = settings, photo, masks, keep, alone
        self.cost = cost
        self.count = len(masks) if count is None else count
        self.bytes = photo.pixels.nbytes + sum(mask.nbytes for mask in masks)
        self.started: Future[None] = Future()
        self.finished: Future[Any] = Future()
        self._abandoned = False

    @property
    def pixels(self) -> int:
        """Of all masks."""
        return sum(mask.size for mask in self.masks)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the result."""
        return self._abandoned

    def abandon(self) -> None:
        """Tells that nobody waits any longer: it is not begun, or ended at the network's next evaluation."""
        self._abandoned = True
        self.started.cancel()

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        """Sets the result, once."""
        with suppress(InvalidStateError):
            if error is None:
                self.finished.set_result(value)
            else:
                self.finished.set_exception(error)


class Worker:
    """Computes tasks in one thread, in the order in which they came, and together with each the others of its kind.

    Args:
        refiners: By name.
        waiting_bytes: Pictures that may wait, in bytes; a task is always let in where none waits.
        on_batch: Called with the number of masks before they are refined together.
    """

    def __init__(
        self, refiners: Mapping[str, Refiner], *, waiting_bytes: int, on_batch: Callable[[int], None] = lambda _: None
    ) -> None:
        self._refiners, self._limit, self._on_batch = refiners, waiting_bytes, on_batch
        self._waiting: deque[Task] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._seconds_per_view = 0.2
        self._sign: float | None = None
        self._thread = threading.Thread(target=self._run, name="segrefiner-worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether tasks are computed."""
        return self._thread.is_alive() and not self._stopped

    def seconds_ahead(self) -> float:
        """About how long it will take to compute what waits, by the pace of the last tasks."""
        return self._seconds_per_view * (sum(task.cost for task in list(self._waiting)) + 1)

    def silent_seconds(self) -> float:
        """For how long a task has been computed without any sign; 0 where none is computed."""
        sign = self._sign
        return 0.0 if sign is None else time.monotonic() - sign

    def submit(self, task: Task) -> None:
        """Puts a task into the queue.

        Raises:
            QueueFullError: Too many pictures wait.
            StoppedError: The worker was stopped.
        """
        with self._changed:
            if self._stopped:
                raise StoppedError
            # Pictures of those who do not wait any longer shall not be in the way of others.
            self._waiting = deque(other for other in self._waiting if not other.started.cancelled())
            if self._waiting and sum(other.bytes for other in self._waiting) + task.bytes > self._limit:
                raise QueueFullError
            self._waiting.append(task)
            self._changed.notify()

    def stop(self) -> None:
        """Ends the thread after what it computes now; what waits fails with `StoppedError`."""
        with self._changed:
            self._stopped = True
            left, self._waiting = list(self._waiting), deque()
            self._changed.notify()
        for task in left:
            if task.started.set_running_or_notify_cancel():
                task.started.set_result(None)
                task.end(error=StoppedError())
        # A thread that is stuck does not keep the process: it ends with it.
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Waits and computes; a call of its own, so that no pictures are held while nothing waits."""
        batch = self._next()
        begun = self._sign = time.monotonic()
        if batch and batch[0].alone:
            self._do_alone(batch[0])
        elif batch:
            self._do_together(batch)
        self._sign = None
        if batch:
            took = (time.monotonic() - begun) / max(1.0, sum(task.cost for task in batch))
            self._seconds_per_view += 0.2 * (took - self._seconds_per_view)
        return bool(batch)

    def _next(self) -> list[Task]:
        """The first task that somebody still waits for and what shares its batches; nothing when stopped."""
        with self._changed:
            while True:
                while not self._waiting and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return []
                chosen: list[Task] = []
                masks = pixels = 0
                for task in list(self._waiting):
                    masks, pixels = masks + task.count, pixels + task.pixels
                    if chosen and (masks > _BATCH_MASKS or pixels > _BATCH_PIXELS):
                        break
                    if chosen and (task.alone or chosen[0].alone or task.settings != chosen[0].settings):
                        masks, pixels = masks - task.count, pixels - task.pixels
                        continue
                    self._waiting.remove(task)
                    if task.started.set_running_or_notify_cancel():
                        task.started.set_result(None)
                        chosen.append(task)
                    else:
                        masks, pixels = masks - task.count, pixels - task.pixels
                if chosen:
                    return chosen

    def _do_alone(self, task: Task) -> None:
        assert task.alone is not None
        try:
            self._on_batch(task.count)
            task.end(task.alone(self._refiners[task.settings.model], on_progress=self._follow([task])))
        except Exception as error:  # Whatever it is, the thread has to go on.
            task.end(error=error)

    def _do_together(self, tasks: list[Task]) -> None:
        """Refines the masks of these tasks; where that fails, each on its own, so that only the faulty one fails."""
        refiner, options = self._refiners[tasks[0].settings.model], tasks[0].settings.options
        try:
            self._on_batch(sum(task.count for task in tasks))
            pairs = ((task.photo, mask) for task in tasks for mask in task.masks)
            results = refiner.many(pairs, options=options, on_progress=self._follow(tasks))
            for task in tasks:
                task.end([task.keep(next(results)) for _ in task.masks])
            return
        except Exception as error:  # Whatever it is, the thread has to go on.
            if len(tasks) == 1 or isinstance(error, _AbandonedError):
                for task in tasks:
                    task.end(error=error)
                return
            _log.warning("a shared batch failed, its requests are computed one by one: %s", fault(error))
        for task in tasks:
            if not task.finished.done():
                self._do_together([task])

    def _follow(self, tasks: list[Task]) -> Callable[[Progress], None]:
        def follow(_: Progress) -> None:
            self._sign = time.monotonic()
            if all(task.abandoned for task in tasks):
                raise _AbandonedError

        return follow
