"""Folders that fill while they are watched: what is half-written waits, and the account is that of one job."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from helpers.tiny import TINY
from segrefiner.cli.main import main
from segrefiner.jobs import watching
from segrefiner.jobs.folders import folder_job
from segrefiner.jobs.job import Item, ItemOutcome, ItemProcessor, Job, load
from segrefiner.jobs.job import refine as refine_item
from segrefiner.jobs.job import save as save_item
from segrefiner.jobs.run import pending, run
from segrefiner.jobs.watching import FileStability, Watched, final_ledger, wait_for_changes, watch_job
from segrefiner.ledger import Ledger
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.refiner import Refiner


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path / "images", tmp_path / "masks", tmp_path / "out"


def put(folders: tuple[Path, Path, Path], name: str, *, photo: bool = True, mask: bool = True) -> None:
    if photo:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folders[0] / name)
    if mask:
        plane = np.zeros((40, 50), bool)
        plane[10:30, 10:40] = True
        Image.fromarray(plane).save(folders[1] / name)


def engine(work: ItemProcessor, items: Sequence[Item], stop: object) -> Iterator[ItemOutcome]:
    refiner = Refiner(DenoisingUNet(TINY), steps=1)
    for item in items:
        loaded = load(work, item)
        if isinstance(loaded, ItemOutcome):
            yield loaded
            continue
        refined = refine_item(work, refiner, item, loaded[1])
        assert not isinstance(refined, ItemOutcome)
        yield save_item(work, item, loaded[0], *refined)


def watch(folders: tuple[Path, Path, Path], steps: Iterator[None], clock: Clock) -> tuple[Watched, list[list[str]]]:
    images, masks, output = folders
    rounds: list[list[str]] = []

    def execute(job: Job) -> Ledger:
        rounds.append([item.key for item in job.items])
        return run(job, engine, output / ".segrefiner", config="c")

    watched, _ = watch_job(
        lambda: folder_job(images, masks, output),
        execute,
        steps,
        lambda job: pending(job, output / ".segrefiner", "c")[0],
        FileStability(clock),
    )
    return watched, rounds


def test_what_is_still_written_waits_and_all_of_it_is_accounted_for(folders: tuple[Path, Path, Path]) -> None:
    clock = Clock()

    def steps() -> Iterator[None]:
        yield  # Nothing is there.
        put(folders, "a.png")
        put(folders, "late.png", mask=False)
        yield  # Both are seen for the first time.
        clock.now += 2
        put(folders, "b.png")
        whole = (folders[0] / "b.png").read_bytes()
        (folders[0] / "b.png").write_bytes(whole[: len(whole) // 2])
        yield  # a is complete, b is new.
        clock.now += 0.5
        (folders[0] / "b.png").write_bytes(whole[: len(whole) // 2 + 10])
        yield
        clock.now += 0.9
        yield  # b has changed less than a second ago.
        (folders[0] / "b.png").write_bytes(whole)
        yield
        clock.now += 2
        yield

    watched, rounds = watch(folders, steps(), clock)
    assert rounds == [["a.png"], ["b.png"]]
    assert watched.done == {"a.png", "b.png"}
    ledger = final_ledger(folder_job(*folders), folders[2] / ".segrefiner", "c", watched)
    assert (ledger.done, ledger.skipped, ledger.failed, ledger.not_tried) == (2, 0, 1, 0)
    assert [entry.name for entry in ledger.failures] == ["late.png"] and not ledger.stopped
    again = final_ledger(folder_job(*folders), folders[2] / ".segrefiner", "c", Watched())
    assert (again.done, again.skipped) == (0, 2)


def test_inputs_that_are_taken_away_once_done_count_all_the_same(folders: tuple[Path, Path, Path]) -> None:
    clock = Clock()

    def steps() -> Iterator[None]:
        put(folders, "a.png")
        put(folders, "b.png")
        yield
        clock.now += 2
        yield
        (folders[0] / "a.png").unlink()
        (folders[1] / "a.png").unlink()
        put(folders, "c.png")
        yield
        clock.now += 2
        yield

    watched, _ = watch(folders, steps(), clock)
    state = folders[2] / ".segrefiner"
    ledger = final_ledger(folder_job(*folders), state, "c", watched)
    assert (ledger.done, ledger.total, ledger.not_tried) == (3, 3, 0)
    assert watched.last is not None
    emptied = final_ledger(replace(watched.last, items=()), state, "c", watched)
    assert (emptied.done, emptied.total) == (3, 3) and any("not there any more" in one for one in emptied.remarks)


def test_what_failed_is_tried_again_when_it_changes_and_not_before(folders: tuple[Path, Path, Path]) -> None:
    clock = Clock()

    def steps() -> Iterator[None]:
        put(folders, "a.png")
        (folders[0] / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        for _ in range(4):
            yield
            clock.now += 2
        put(folders, "a.png")
        for _ in range(2):
            yield
            clock.now += 2

    watched, rounds = watch(folders, steps(), clock)
    assert rounds == [["a.png"], ["a.png"]]
    assert watched.done == {"a.png"} and not watched.failures


def test_changes_wake_and_our_own_do_not(folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("watchfiles")
    monkeypatch.setattr(watching, "QUIET_SECONDS", 0.05)
    images, masks, _ = folders
    output = images / "out"
    output.mkdir()
    stop = threading.Event()
    end = time.monotonic() + 20

    def should_stop() -> bool:
        return stop.is_set() or time.monotonic() > end

    woken = wait_for_changes((images, masks), output, lambda: False, should_stop)
    next(woken)
    (output / "own.png").write_bytes(b"x")
    writer = threading.Timer(0.5, (images / "a.png").write_bytes, [b"x"])
    writer.start()
    started = time.monotonic()
    next(woken)
    assert (images / "a.png").exists() and time.monotonic() - started < 20
    stop.set()
    assert next(woken, "ended") == "ended"
    writer.join()


def test_without_the_package_the_extra_is_named(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "watchfiles", None)
    given = ["folder", str(folders[0]), str(folders[1]), "-o", str(folders[2]), "--watch"]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 1 and "segrefiner[watch]" in result.stderr and result.stderr.count("\n") == 1
    result = CliRunner().invoke(main, [*given, "--dry-run"])
    assert result.exit_code == 1 and "--dry-run" in result.stderr
