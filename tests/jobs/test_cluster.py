"""The same jobs on a Ray cluster of this machine: the same files, and nothing is lost when actors die."""

import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import segrefiner
from helpers.child_work import ReversingWork
from segrefiner import InputError, Refiner
from segrefiner.jobs.folders import folder_job
from segrefiner.jobs.job import Item, Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.ledger import RunSummary

ray = pytest.importorskip("ray")
batch_ray = pytest.importorskip("segrefiner.jobs.cluster")

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCE = Path(segrefiner.__file__).parent.parent

pytestmark = [
    pytest.mark.slow,
    # Ray leaves its sockets and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with warnings.catch_warnings():
        # Of the environment variable that says whether Ray hides GPUs.
        warnings.simplefilter("ignore", FutureWarning)
        ray.init(
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=80_000_000,
            # Actors find this module, and the package where this process does.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(map(str, (*Path(__file__).parents[1:3], SOURCE)))}},
        )
    yield
    ray.shutdown()


def texts(folder: Path, count: int, **payloads: str) -> Job:
    """A job of items "0", "1" and so on; payloads are those of "_0", "_1"."""
    (folder / "out").mkdir(parents=True)
    items = []
    for index in range(count):
        (folder / str(index)).write_text(f"text {index}")
        items.append(Item(str(index), (folder / str(index),), payloads.get(f"_{index}")))
    return Job(items, ReversingWork(folder / "out"))


def on_cluster(job: Job, *, actors: int = 1, **options: Any) -> RunSummary:
    engine = batch_ray.RayEngine({}, actors=actors, cpus=1)
    return run(job, engine, job.work.root / ".segrefiner", config="1", **options)


def failures(job: Job) -> dict[str, str]:
    lines = (job.work.root / ".segrefiner" / "failures.jsonl").read_text().splitlines()
    return {row["item"]: row["error"] for row in map(json.loads, lines)}


def check_outputs(job: Job, *, without: Sequence[str] = ()) -> None:
    for item in job.items:
        target = job.work.root / item.key
        if item.key in without:
            assert not target.exists()
        else:
            assert target.read_bytes() == item.inputs[0].read_bytes()[::-1]
    assert not list(job.work.root.rglob("*.tmp"))


def test_the_same_files_as_on_this_machine(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in ("car", "person"):
        Image.open(EXAMPLES / f"{name}.jpg").resize((120, 90)).save(tmp_path / "images" / f"{name}.png")
        Image.open(EXAMPLES / f"{name}_coarse.png").resize((120, 90)).save(tmp_path / "masks" / f"{name}.png")
    for kind in ("images", "masks"):
        (tmp_path / kind / "bad.png").write_bytes(b"nonsense")
        Image.new("L", (120, 90)).save(tmp_path / kind / "empty.png")
        (tmp_path / kind / "gone.png").symlink_to("nowhere")

    def files(output: str, engine: Any) -> dict[str, bytes]:
        job = folder_job(tmp_path / "images", tmp_path / "masks", tmp_path / output, write="soft")
        finished: dict[str, Any] = {}
        job = Job(job.items, job.work, finished.update, left_out=job.left_out)
        summary = run(job, engine, tmp_path / output / ".segrefiner", config="1")
        assert (summary.done, summary.failed, summary.left_out) == (2, 1, 3) and list(failures(job)) == ["bad.png"]
        assert list(finished) == ["car.png", "empty.png", "person.png"]
        return {path.name: path.read_bytes() for path in (tmp_path / output).glob("*.png")} | {
            "said": json.dumps([summary.document(), failures(job), finished]).encode()
        }

    local = files("local", LocalEngine(Refiner.from_pretrained(), 0))
    levels = [handler.level for handler in logging.getLogger().handlers]
    assert files("cluster", batch_ray.RayEngine({})) == local and len(local) == 4
    assert levels == [handler.level for handler in logging.getLogger().handlers]


def test_bad_and_deadly_items_fail_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    job = texts(tmp_path, 12, _1="bad", _6="deadly", _10="deadly once")
    summary = on_cluster(job, actors=2)
    assert (summary.done, summary.failed, summary.notes, summary.stopped) == (10, 2, 10, "")
    assert failures(job)["1"] == "no text" and "3 actors died of it" in failures(job)["6"]
    check_outputs(job, without=["1", "6"])
    begun, _, policies = zip(*map(str.split, (job.work.root / "log").read_text().splitlines()), strict=True)
    assert begun.count("6") == 3 and begun.count("10") == 2
    # An actor's threads sleep while they wait, as those of commands do.
    assert set(policies) == {"PASSIVE"}


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes")
def test_files_that_take_too_long_are_items_of_their_own(tmp_path: Path) -> None:
    job = texts(tmp_path, 4, _2="spinning")
    summary = on_cluster(job)
    assert (summary.done, summary.failed) == (3, 1)
    assert "takes more time or memory to decode" in failures(job)["2"]
    check_outputs(job, without=["2"])
    # One and the same actor did the others.
    assert len({line.split()[1] for line in (job.work.root / "log").read_text().splitlines()}) == 1


def test_a_killed_actor_and_a_stop_lose_nothing(tmp_path: Path) -> None:
    job = texts(tmp_path, 16)
    log, killed, done = job.work.root / "log", [], [0]

    def kill_one(summary: RunSummary) -> None:
        done.append(summary.done)
        if summary.done == 2 and not killed:
            killed.append(int(log.read_text().split()[-2]))
            os.kill(killed[0], signal.SIGKILL)

    summary = on_cluster(job, progress=kill_one, should_stop=lambda: done[-1] >= 6)
    assert killed and killed[0] != int(log.read_text().split()[-2])
    assert summary.stopped and 6 <= summary.done < 16 and summary.failed == 0
    # Engines share the books.
    state = job.work.root / ".segrefiner"
    rest = run(job, LocalEngine(Refiner.from_pretrained(), 0), state, config="1")
    assert (rest.skipped, rest.done, rest.stopped) == (summary.done, 16 - summary.done, "")
    check_outputs(job)
    assert on_cluster(job).skipped == 16


def test_who_asks_for_termination_is_heard_by_the_job() -> None:
    code = """
import os, signal, sys
from segrefiner.jobs.cluster import RayEngine
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
RayEngine({}, address=sys.argv[1])._start()
os.kill(os.getpid(), signal.SIGTERM)
print("alive")
"""
    address = ray.get_runtime_context().gcs_address
    done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.split() == ["heard", "alive"], done.stderr


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ({"model": "/nowhere.safetensors"}, {}, "does not exist"),
        ({}, {"gpus": 1}, "1 GPU"),
        ({}, {"cpus": 99}, "99 CPU"),
    ],
    ids=["model", "gpus", "cpus"],
)
def test_what_no_actor_can_have_is_told(
    tmp_path: Path, settings: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    job = texts(tmp_path, 2)
    with pytest.raises(InputError, match=said):
        run(job, batch_ray.RayEngine(settings, **options), tmp_path / "state", config="1")
    assert not (job.work.root / "0").exists()
