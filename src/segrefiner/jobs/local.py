"""Runs a job on this machine: one model here, and worker processes that decode and encode around it."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING, Any

from ..imaging.codecs.decoder_process import guard_this_process
from ..imaging.reading import MAX_PIXELS
from ..openmp import sleep_while_waiting
from .job import Item, ItemOutcome, ItemProcessor, load, refine, save

if TYPE_CHECKING:
    from ..refinement.refiner import Refiner


_DIED = (
    "the worker process died of it: a file takes more time or memory to decode than its pixels do, is damaged, or "
    "memory is too small; save the file again as PNG"
)


class LocalEngine:
    """Refines items one after the other, so that the result of each is the same in every run.

    Args:
        refiner: The model.
        workers: Processes that decode and encode; with 0 this process does it.
    """

    def __init__(self, refiner: "Refiner", workers: int = 1) -> None:
        self.refiner, self.workers = refiner, workers

    def __call__(self, work: ItemProcessor, items: Sequence[Item], stop: Callable[[], bool]) -> Iterator[ItemOutcome]:
        """See `run.Engine`."""
        if not items:
            return
        with closing(Workers(self.workers)) as workers:
            ahead = 2 * max(1, self.workers)
            waiting = iter(items)
            loading: deque[tuple[Item, _Call]] = deque()
            saving: deque[_Call] = deque()

            def fill() -> None:
                while len(loading) < ahead and not stop():
                    item = next(waiting, None)
                    if item is None:
                        return
                    loading.append((item, workers.call(load, work, item)))

            fill()
            while loading:
                item, call = loading.popleft()
                loaded = call.result()
                # Stopping gives up what is only loaded, not what is refined.
                if not isinstance(loaded, ItemOutcome) and stop():
                    break
                fill()
                if isinstance(loaded, ItemOutcome):
                    yield loaded
                    continue
                states, content = loaded
                refined = refine(work, self.refiner, item, content)
                if isinstance(refined, ItemOutcome):
                    yield replace(refined, inputs=states)
                else:
                    saving.append(workers.call(save, work, item, states, *refined))
                while len(saving) > ahead or (saving and saving[0].done()):
                    yield saving.popleft().result()
            for call in saving:
                yield call.result()


class _Call:
    """A function of work and item, under way in a worker, or called here when its result is asked for."""

    def __init__(self, workers: "Workers", function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._workers, self._function, self._arguments = workers, function, arguments
        self._future = workers.submit(function, arguments)

    def done(self) -> bool:
        return self._future is None or self._future.done()

    def result(self) -> Any:
        if self._future is None:
            return self._function(*self._arguments)
        try:
            return self._future.result()
        except BrokenProcessPool:
            pass
        # A worker died, of this call or of another one that was under way: alone, it shows which.
        try:
            with _pool(1) as alone:
                return alone.submit(self._function, *self._arguments).result()
        except BrokenProcessPool:
            key = self._arguments[1].key
            return ItemOutcome(key, error=_DIED)


class Workers:
    """Processes in which foreign files are decoded within bounds; one that dies is replaced.

    Args:
        count: How many; with 0 calls go on in this process.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = _pool(count) if count else None

    def close(self) -> None:
        """End the processes."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Any] | None":
        """Begin a call; `None` where there are no processes."""
        if self._pool is None:
            return None
        try:
            return self._pool.submit(function, *arguments)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = _pool(self._count)
            return self._pool.submit(function, *arguments)

    def call(self, function: Callable[..., Any], *arguments: Any) -> _Call:
        """Begin a function of work and item; where a process dies of it, its result is the outcome that says so."""
        return _Call(self, function, arguments)


def _pool(count: int) -> ProcessPoolExecutor:
    # Not by fork: PyTorch's threads do not survive it.
    return ProcessPoolExecutor(count, get_context("spawn"), initializer=_prepare_worker)


def _prepare_worker() -> None:
    sleep_while_waiting()
    # The terminal interrupts the whole group; the main process says when workers end.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    guard_this_process(MAX_PIXELS)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose main process was killed, and so could not say it."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
