"""Numbered work in several processes, its results in order."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

_AHEAD = 4
"""Items that wait for each process, so that none is idle and results do not pile up."""


def in_processes(work: Callable[[int], T], items: Iterable[int], workers: int) -> Iterator[T]:
    """Yields `work(item)` for each item, in their order.

    Args:
        work: Can be pickled. What it raises ends the iteration.
        items: Numbers.
        workers: Processes; 0 works in this one.
    """
    if not workers:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        numbers = iter(items)
        waiting = [pool.submit(work, n) for n in islice(numbers, _AHEAD * workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, n) for n in islice(numbers, 1)]


def _one_thread() -> None:
    """Processes that share the cores must not use all of them each."""
    import torch

    torch.set_num_threads(1)
