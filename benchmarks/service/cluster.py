"""Jobs on a Ray cluster of two machines of which one is killed in the middle, against the same jobs on this machine.

    python -m benchmarks.service.cluster STREET [--scenes 12] [--side 240]

Two `ray start`, each with processes, an object store and an address of its own, on one computer with Linux. A job of
label maps and one of a COCO file are done by the local engine, and by an actor on each machine. When three items are
done, all processes of the machine without the driver are killed. Printed are: what became of the job; whether all
files equal the local engine's, byte by byte; items that were begun again after they had been reported done; and what
the same command does afterwards.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from PIL import Image

from benchmarks.common import street, street_objects
from benchmarks.service.logged_items import LoggedProcessor, lines_of, wait_for
from benchmarks.service.ray_machines import RayMachines
from segrefiner.jobs.coco import coco_job
from segrefiner.jobs.folders import semantic_job
from segrefiner.jobs.job import Engine, ItemProcessor, Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.manifest import settings_hash
from segrefiner.jobs.opened import JobModel
from segrefiner.jobs.run import STATE_NAME, run
from segrefiner.ledger import RunSummary

_LOADING = {"model": None, "device": "auto", "dtype": "auto", "backend": "auto"}
_KILLED_AFTER = 3


def make(data: Path, folder: Path, count: int, side: int, kind: str = "street-4") -> None:
    """Shrunk scenes with coarse label maps, and a COCO file of coarse masks of their objects."""
    maps, scenes = street.find_maps(data), []
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for files in (maps[len(maps) * i // count] for i in range(min(count, len(maps)))):
        with Image.open(files.image) as photo, Image.open(files.labels) as labels:
            size = side, round(side * photo.height / photo.width)
            target = folder / "images" / f"{files.labels.stem}.png"
            photo.convert("RGB").resize(size).save(target)
            labels.resize(size, Image.Resampling.NEAREST).save(folder / "labels" / target.name)
        small = street.MapFiles(files.name, target, folder / "labels" / target.name)
        image, truth = small.read()
        scenes.append((target.name, image, truth))
        Image.fromarray(street.make_map(kind, files.name, truth, 0)).save(small.labels)
    street_objects.write_files(scenes, folder, "sam-like", 0)


def jobs(folder: Path) -> dict[str, Callable[[Path], Job]]:
    """What makes each job, with an output."""
    images, source, truth = folder / "images", folder / "results.json", folder / "truth.json"
    return {
        "label maps": lambda output: semantic_job(images, folder / "labels", output, ignore=[street.VOID]),
        "COCO": lambda output: coco_job(source, images, output / "refined.json", annotations=truth),
    }


def command(name: str, folder: Path, output: Path) -> list[str]:
    """The command that does the same job."""
    start = [sys.executable, "-m", "segrefiner"]
    if name == "COCO":
        files = [folder / "results.json", folder / "images", "-o", output / "refined.json"]
        return [*start, "coco", *map(str, files), "--annotations", str(folder / "truth.json")]
    return [*start, "semantic", *map(str, (folder / "images", folder / "labels", "-o", output)), "--ignore", "11"]


def contents(output: Path) -> dict[str, str]:
    """What stands in all files of an output but the books."""
    files = (path for path in output.rglob("*") if path.is_file() and STATE_NAME not in str(path))
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "log"
    }


def done_in(state: Path) -> set[str]:
    """The items that a manifest tells of."""
    return {line["key"] for line in lines_of(state / "manifest.jsonl")}


@dataclass(frozen=True)
class Outcome:
    """How a job went.

    Attributes:
        summary: What became of its items.
        equal: Whether the files are the local engine's.
        files: How many there are.
        killed: Processes of the machine that was killed.
        known: Items that were done when it was.
        begun: How often each item was.
        again: Items that were begun after they had been reported done.
        seconds: By the clock.
        rerun: The last line of the same command afterwards, and its exit status.
    """

    summary: RunSummary
    equal: bool
    files: int
    killed: int
    known: int
    begun: Counter[str]
    again: list[str]
    seconds: float
    rerun: str

    @property
    def is_sound(self) -> bool:
        """Whether nothing was lost, and nothing done twice that was reported done."""
        whole = self.summary.done == self.summary.total and not self.summary.failed
        return whole and self.equal and not self.again and self.killed > 0 and self.rerun.startswith("exit status 0")


def compare(name: str, folder: Path, machines: RayMachines) -> Outcome:
    """Do a job by both engines, one machine of the cluster being killed meanwhile."""
    from segrefiner.jobs.cluster import RayEngine

    local, cluster = folder / name / "local", folder / name / "cluster"
    for output in (local, cluster):
        output.mkdir(parents=True)
    model = JobModel(**_LOADING)
    make_job = jobs(folder)[name]
    state_of = (lambda o: o / f"refined.json{STATE_NAME}") if name == "COCO" else (lambda o: o / STATE_NAME)

    def do(output: Path, engine: Engine, work: Callable[[ItemProcessor], ItemProcessor], **options: Any) -> RunSummary:
        job = make_job(output)
        config = settings_hash({**job.work.settings(), **model.identity})
        logged = Job(job.items, work(job.work), job.finish, job.failures, job.left_out, job.notes, job.accepts)
        return run(logged, engine, state_of(output), config=config, **options)

    do(local, LocalEngine(model.refiner, 0), lambda work: work)
    log, killed, known = cluster / "log", [0], set[str]()

    def begun() -> list[str]:
        return [line["key"] for line in lines_of(log)]

    before: list[str] = []

    def kill_once(summary: RunSummary) -> None:
        if summary.done >= _KILLED_AFTER and not killed[0]:
            known.update(done_in(state_of(cluster)))
            before.extend(begun())
            killed[0] = machines.kill_other()

    started = time.perf_counter()
    engine = RayEngine(_LOADING, address=machines.address, actors=2, cpus=1)
    summary = do(cluster, engine, lambda work: LoggedProcessor(work, log), progress=kill_once)
    seconds = time.perf_counter() - started
    later = begun()[len(before) :]
    equal, count = contents(local) == contents(cluster), len(contents(cluster))
    again = subprocess.run(command(name, folder, cluster), capture_output=True, text=True)
    told = (again.stdout.strip() or again.stderr.strip()).splitlines()[:1]
    rerun = f"exit status {again.returncode}: {' '.join(told)}"
    return Outcome(
        summary, equal, count, killed[0], len(known), Counter(begun()), sorted(known & set(later)), seconds, rerun
    )


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--scenes", default=12, show_default=True)
@click.option("--side", default=240, show_default=True, help="Width of the photos in pixels.")
def main(data: Path, scenes: int, side: int) -> None:
    """Print what became of both jobs, and exit with 1 where it is not what it should be."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        machines = RayMachines(folder)
        # Ray looks at these when it is imported.
        os.environ.update({key: value for key, value in machines.environment.items() if key.startswith("RAY_")})
        import ray

        sound = True
        with machines:
            make(data, folder, scenes, side)
            machines.start_other()
            ray.init(address=machines.address, log_to_driver=False)
            try:
                for name in jobs(folder):
                    wait_for(lambda: sum(machine["Alive"] for machine in ray.nodes()) == 2)
                    outcome = compare(name, folder, machines)
                    print(told(name, outcome), flush=True)
                    sound &= outcome.is_sound
                    # The next job begins with a machine in its place.
                    machines.start_other()
            finally:
                # Before its head ends, without which Ray ends this process, and what it was about to say.
                ray.shutdown()
    sys.exit(0 if sound else 1)


def told(name: str, outcome: Outcome) -> str:
    """Lines for people."""
    summary, twice = outcome.summary, {key: times for key, times in outcome.begun.items() if times > 1}
    return (
        f"{name}: {summary.done} of {summary.total} done, {summary.failed} failed, {outcome.seconds:.0f} s\n"
        f"  one of two machines ({outcome.killed} processes) killed when {outcome.known} were done\n"
        f"  {outcome.files} files, equal to the local engine's: {outcome.equal}\n"
        f"  begun again after they were reported done: {len(outcome.again)}; begun twice or more in all: {len(twice)}\n"
        f"  the same command afterwards: {outcome.rerun}"
        + "".join(f"\n  failed: {failure}" for failure in summary.failures[:3])
    )


if __name__ == "__main__":
    main()
