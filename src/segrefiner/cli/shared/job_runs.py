"""How a job's command runs it: the model, the engine, the bar, and what an interruption does."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .messages import is_watched

if TYPE_CHECKING:
    from ...jobs.job import Item, Job
    from ...ledger import Ledger, RunSummary


class OpenedJob:
    """A model and an engine, for jobs; and what names the model in a manifest: results depend on weights and precision.

    Args:
        given: The command's options.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        from ...jobs.opened import JobModel

        self._given, self._settings = given, {name: given[name] for name in ("model", "device", "dtype", "backend")}
        model = JobModel(**self._settings)
        self.refiner, self._identity = model.refiner, model.identity

    def config(self, job: "Job") -> str:
        """The name of all that decides a job's results, beside its inputs."""
        from ...jobs.manifest import settings_hash

        return settings_hash({**job.work.settings(), **self._identity})

    def pending(self, job: "Job", state: Path, config: str) -> "Sequence[Item]":
        """The items that are still to be done."""
        from ...jobs.run import pending

        return pending(job, state, config)[0]

    def run(self, job: "Job", state: Path, config: str, should_stop: Callable[[], bool]) -> "Ledger":
        """Run a job under a progress bar; see `jobs.run.run`."""
        from ...jobs.run import run

        with _bar() as progress:
            return run(
                job,
                _engine(self, self._settings, self._given),
                state,
                config=config,
                max_failures=self._given["max_failures"],
                should_stop=should_stop,
                progress=progress,
            )


def _engine(opened: "OpenedJob", settings: dict[str, Any], given: dict[str, Any]) -> Any:
    if given["engine"] == "ray":
        from ...jobs.cluster import RayEngine

        return RayEngine(
            settings,
            address=given["address"],
            actors=given["actors"],
            gpus=given["gpus_per_actor"],
            cpus=given["cpus_per_actor"],
        )
    from ...jobs.local import LocalEngine

    return LocalEngine(opened.refiner, given["workers"])


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects interruptions, after the first of which the job ends what it has begun; the second one ends it."""
    came: list[int] = []
    names = (signal.SIGINT, signal.SIGTERM)

    def note(number: int, frame: Any) -> None:
        came.append(number)
        for name in names:
            signal.signal(name, before[name])

    before = {name: signal.signal(name, note) for name in names}
    try:
        yield came
    finally:
        for name in names:
            signal.signal(name, before[name])


@contextmanager
def _bar() -> Iterator[Callable[["RunSummary"], None]]:
    """A progress bar on standard error with rate and remaining time; silent where nobody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("refining"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Bars(*columns, console=console, disable=not is_watched(console), speed_estimate_period=120) as bars:
        task = bars.add_task("", total=None, rate="", failed="")

        def follow(summary: "RunSummary") -> None:
            speed = bars.tasks[0].speed
            bars.update(
                task,
                total=summary.total,
                completed=summary.total - summary.not_tried,
                rate=f"{speed:.2f}/s" if speed else "",
                failed=f"{summary.failed} failed" if summary.failed else "",
            )

        yield follow
