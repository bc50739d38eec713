"""Laws of the worker: who waits together is computed together, and only what somebody waits for."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.serving import MASK, OTHER, PHOTO, Stub
from segrefiner.imaging.reading import Photo
from segrefiner.refinement.options import Options
from segrefiner.refinement.refiner import Refiner
from segrefiner.serving.worker import QueueFullError, Settings, StoppedError, Task, Worker

SETTINGS = Settings("stub")
SECONDS = 20


def task(*masks: np.ndarray, settings: Settings = SETTINGS, alone: Any = None) -> Task:
    return Task(settings, Photo(PHOTO), list(masks or (MASK,)), lambda result: result.mask, alone)


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def worker(stub: Stub) -> Iterator[Worker]:
    working = Worker({"stub": stub}, waiting_bytes=1 << 30)  # type: ignore[dict-item]
    yield working
    stub.let.set()
    working.stop()


def hold(worker: Worker, stub: Stub) -> Task:
    """A task that keeps the worker busy until the stub is let."""
    first = task()
    worker.submit(first)
    assert stub.begun.wait(SECONDS)
    return first


def test_what_waits_with_the_same_settings_is_computed_together_and_each_gets_its_own(
    worker: Worker, stub: Stub
) -> None:
    hold(worker, stub)
    tasks = [task(MASK), task(OTHER, MASK), task(OTHER)]
    for one in tasks:
        worker.submit(one)
    assert worker.waiting == 3
    stub.let.set()
    for one in tasks:
        for got, given in zip(one.finished.result(SECONDS), one.masks, strict=True):
            np.testing.assert_array_equal(got, given)
    assert stub.calls == [1, 4] and worker.waiting == 0


def test_other_settings_wait_for_their_turn_and_the_first_comes_first(worker: Worker, stub: Stub) -> None:
    hold(worker, stub)
    seeds = [1, 2, 1, 3, 2]
    tasks = [task(settings=replace(SETTINGS, options=Options(seed=seed))) for seed in seeds]
    for one in tasks:
        worker.submit(one)
    stub.let.set()
    for one in tasks:
        one.finished.result(SECONDS)
    assert [given["options"].seed for given in stub.options] == [0, 1, 2, 3]
    assert stub.calls == [1, 2, 2, 1]


def test_shared_batches_are_not_longer_than_it_takes(worker: Worker, stub: Stub) -> None:
    hold(worker, stub)
    tasks = [task(*[MASK] * 7) for _ in range(5)] + [task(*[MASK] * 40)]
    for one in tasks:
        worker.submit(one)
    stub.let.set()
    for one in tasks:
        assert len(one.finished.result(SECONDS)) == len(one.masks)
    assert stub.calls == [1, 14, 14, 7, 40]


def test_a_faulty_task_fails_alone(worker: Worker, stub: Stub) -> None:
    hold(worker, stub)
    stub.faulty = OTHER
    tasks = [task(MASK), task(MASK, OTHER), task(MASK)]
    for one in tasks:
        worker.submit(one)
    stub.let.set()
    assert len(tasks[0].finished.result(SECONDS)) == len(tasks[2].finished.result(SECONDS)) == 1
    with pytest.raises(RuntimeError, match="poison"):
        tasks[1].finished.result(SECONDS)
    assert worker.alive


def test_what_nobody_waits_for_is_never_begun(worker: Worker, stub: Stub) -> None:
    hold(worker, stub)
    left, stays = task(OTHER), task(MASK)
    worker.submit(left)
    worker.submit(stays)
    left.abandon()
    stub.let.set()
    stays.finished.result(SECONDS)
    assert stub.calls == [1, 1] and not left.finished.done()


def test_what_nobody_waits_for_any_more_is_broken_off(worker: Worker, stub: Stub) -> None:
    first = hold(worker, stub)
    after = task()
    worker.submit(after)
    first.abandon()
    assert first.finished.exception(SECONDS) is not None
    stub.let.set()
    assert len(after.finished.result(SECONDS)) == 1


def test_a_shared_batch_goes_on_as_long_as_one_waits_for_it(worker: Worker, stub: Stub) -> None:
    hold(worker, stub)
    pair = [task(MASK), task(OTHER)]
    for one in pair:
        worker.submit(one)
    first, stub.let = stub.let, threading.Event()
    first.set()
    while len(stub.calls) < 2:
        time.sleep(0.001)
    pair[0].abandon()
    time.sleep(0.1)
    stub.let.set()
    np.testing.assert_array_equal(pair[1].finished.result(SECONDS)[0], OTHER)


def test_what_is_no_list_of_masks_is_computed_alone(worker: Worker, stub: Stub) -> None:
    hold(worker, stub)
    asked = []

    def alone(refiner: Any, on_progress: Any) -> str:
        asked.append(refiner)
        return "answer"

    tasks = [task(), task(alone=alone), task()]
    for one in tasks:
        worker.submit(one)
    stub.let.set()
    assert tasks[1].finished.result(SECONDS) == "answer" and asked == [stub]
    assert len(tasks[0].finished.result(SECONDS)) == len(tasks[2].finished.result(SECONDS)) == 1
    assert stub.calls == [1, 2]


def test_pictures_that_wait_are_bounded_but_one_always_may() -> None:
    stub = Stub()
    size = task().bytes
    worker = Worker({"stub": stub}, waiting_bytes=2 * size)  # type: ignore[dict-item]
    hold(worker, stub)
    worker.submit(task(*[MASK] * 9))
    with pytest.raises(QueueFullError):
        worker.submit(task())
    stub.let.set()
    worker.stop()


def test_places_of_those_who_left_are_free_again() -> None:
    stub = Stub()
    size = task().bytes
    worker = Worker({"stub": stub}, waiting_bytes=2 * size)  # type: ignore[dict-item]
    hold(worker, stub)
    waiting = [task(), task()]
    for one in waiting:
        worker.submit(one)
    with pytest.raises(QueueFullError):
        worker.submit(task())
    waiting[0].abandon()
    worker.submit(task())
    stub.let.set()
    worker.stop()


def test_stopping_finishes_what_is_computed_and_refuses_the_rest() -> None:
    stub = Stub()
    worker = Worker({"stub": stub}, waiting_bytes=1 << 30)  # type: ignore[dict-item]
    first, second = hold(worker, stub), task()
    worker.submit(second)
    stub.let.set()
    worker.stop()
    assert first.finished.result(SECONDS)
    # The worker may have begun the second one before it was told to stop.
    assert second.finished.done()
    assert not worker.alive
    with pytest.raises(StoppedError):
        worker.submit(task())


def test_what_is_computed_together_is_what_calls_of_their_own_give() -> None:
    bundled = Refiner.from_pretrained()
    together = Worker({"stub": bundled}, waiting_bytes=1 << 30)
    tasks = [
        Task(SETTINGS, Photo(PHOTO), masks, lambda result: result.probability)
        for masks in ([MASK], [OTHER, MASK], [OTHER])
    ]
    for one in tasks:
        together.submit(one)
    for one in tasks:
        for got, given in zip(one.finished.result(SECONDS), one.masks, strict=True):
            np.testing.assert_array_equal(got, bundled(PHOTO, given).probability)
    together.stop()
