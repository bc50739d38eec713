"""Jobs whose processes are killed lose nothing and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.jobs.places import Place, Shout, until
from segrefiner.jobs.job import Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run

TESTS = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_item_that_kills_its_process_fails_alone(place: Place, workers: int) -> None:
    names = "abcdef"
    summary, refined = place.run(place.items(names, b="deadly", e="deadly"), workers=workers)
    assert refined == list("acdf") and (summary.done, summary.failed) == (4, 2)
    failures = {row["item"]: row["error"] for row in place.rows("failures.jsonl")}
    assert list(failures) == ["b.txt", "e.txt"] and all("process died" in why for why in failures.values())


MANY = "abcdefghijklmnopqrstuvwxyz"


def shout_slowly(folder: str, workers: str) -> None:
    """What `test_killed_at_any_moment` kills."""
    place = Place(Path(folder))
    work = Shout(place.root, seconds=0.02)
    run(Job(place.items(MANY), work), LocalEngine([], int(workers)), place.state, config="1")  # type: ignore[arg-type]


def started(place: Place, workers: int) -> "subprocess.Popen[bytes]":
    code = "import sys; from jobs.test_killed_runs import shout_slowly; shout_slowly(*sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", code, str(place.folder), str(workers)], cwd=TESTS)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_moment(tmp_path: Path, workers: int) -> None:
    whole, killed = Place(tmp_path / "whole"), Place(tmp_path / "killed")
    for place in (whole, killed):
        for item in place.items(MANY):
            os.utime(item.inputs[0], ns=(1, 1))
    assert started(whole, workers).wait(60) == 0
    manifest = killed.state / "manifest.jsonl"
    for more, delay in ((1, 0.0), (3, 0.004), (5, 0.011), (1, 0.017)):
        wanted = more + (manifest.read_bytes().count(b"\n") if manifest.exists() else 0)
        with started(killed, workers) as process:
            until(lambda wanted=wanted: manifest.exists() and manifest.read_bytes().count(b"\n") >= wanted)
            time.sleep(delay)
            process.kill()
            assert process.wait(60) == -signal.SIGKILL
    assert started(killed, workers).wait(60) == 0
    assert killed.outputs() == whole.outputs() and len(whole.outputs()) == len(MANY)
    assert sorted(killed.rows("manifest.jsonl"), key=str) == sorted(whole.rows("manifest.jsonl"), key=str)
    assert not list(killed.root.rglob("*.tmp")) and not (killed.state / "running").exists()


def test_what_a_killed_run_left_is_removed_and_what_others_left_is_not(place: Place) -> None:
    place.run(place.items("ab"))
    left, others = place.root / "deep" / ".segrefiner-0123456789abcdef.tmp", place.root / "mine.tmp"
    left.parent.mkdir()
    left.touch()
    others.touch()
    (place.state / "running").touch()
    place.run(place.items("ab"))
    assert not left.exists() and others.exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_workers_do_not_outlive_a_run_that_was_killed(place: Place) -> None:
    process = started(place, 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: bool(place.outputs()))
    workers = children.read_text().split()
    process.kill()
    process.wait(60)
    assert workers
    until(lambda: not any(alive(pid) for pid in workers), 20)


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
