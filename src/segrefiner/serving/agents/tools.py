"""The tools: from an agent's arguments to text, structure and pictures."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from ...errors import InputError
from ...imaging.files import atomic_write, png_bytes
from ...imaging.json_files import without_nan
from ...imaging.label_files import LabelMap, labels_png
from ...imaging.reading import Photo
from ...jobs.local import LocalEngine
from ...jobs.opened import JobModel
from ...ledger import RunSummary
from ...refinement.options import Options
from ...rendering.overlay import REFINED_COLOUR, overlay
from ..forms import Common, label_task, mask_task, wrong
from ..limits import Limits
from ..service import Service
from ..worker import Settings, Task
from .arguments import ExplainReport, RefineFolder, RefineLabelMap, RefineMask
from .explaining import explain
from .folder_jobs import FolderPlan
from .folders import AllowedFolders

PNG, JPEG = "image/png", "image/jpeg"
_PICTURE_SIDE = 1280
_JPEG_QUALITY = 85
_JOB_SHARE = 0.5
"""Of a request's seconds: after these a job begins no other photo."""

T = TypeVar("T")

OnProgress = Callable[[float, float], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """What a tool says.

    Attributes:
        text: For the model.
        structure: The same and more as JSON types.
        pictures: `(media type, content)` each.
    """

    text: str
    structure: dict[str, Any]
    pictures: tuple[tuple[str, bytes], ...] = ()


class Toolbox:
    """The tools over a set of models and folders.

    Args:
        models: By name, the default first.
        folders: Where files may be read and written.
        limits: What one call may take; those of the HTTP API.
        workers: Processes that decode and encode the photos of a folder; with 0 this process does it, without bounds.

    Attributes:
        service: What computes; tools work while its `running()` lasts.
    """

    def __init__(
        self, models: Mapping[str, JobModel], folders: AllowedFolders, limits: Limits, workers: int = 1
    ) -> None:
        self._models, self._folders, self._limits, self._workers = dict(models), folders, limits, workers
        self.service = Service({name: opened.refiner for name, opened in models.items()}, limits)
        self._steps = {name: opened.refiner.steps for name, opened in models.items()}

    async def refine_mask(self, asked: RefineMask, progress: OnProgress) -> Answer:
        """Refines one mask. Raises `InputError`, `OutputError` and `ProblemError`, as all tools do."""
        target = self._target(asked.output, asked.replace, asked.image, asked.mask)
        form = self._form(asked, {"image": asked.image, "mask": asked.mask})
        task, _, (kept,) = await self._computed(
            form, lambda form, decode: mask_task(form, self._steps, self._limits, decode)
        )
        content = png_bytes(kept.mask if kept.probability is None else kept.probability)
        shown = await asyncio.to_thread(_before_and_after, task, kept.mask)
        pictures = [(JPEG, shown)]
        if target is None:
            pictures.append((PNG, content))
        else:
            atomic_write(target, lambda stream: stream.write(content))
        report = without_nan(asdict(kept.report))
        told = [f"{target}: {kept.report}" if target else str(kept.report), *explain(report)]
        return Answer("\n".join(told), {"output": target and str(target), "report": report}, tuple(pictures))

    async def refine_label_map(self, asked: RefineLabelMap, progress: OnProgress) -> Answer:
        """Refines a label map."""
        target = self._target(asked.output, asked.replace, asked.image, asked.labels)
        assert target is not None
        form = self._form(asked, {"image": asked.image, "labels": asked.labels})
        task, given, refined = await self._computed(
            form, lambda form, decode: label_task(form, self._steps, self._limits, decode)
        )
        content = labels_png(LabelMap(refined.labels, given.palette))
        shown = await asyncio.to_thread(_changes, task.photo, refined.labels != given.labels)
        atomic_write(target, lambda stream: stream.write(content))
        document = without_nan({
            "changed": refined.changed,
            "vanished": list(refined.vanished),
            "warnings": list(refined.warnings),
            "reports": {str(label): asdict(report) for label, report in refined.reports.items()},
        })  # fmt: skip
        told = [f"{target} is written; the picture shows in green which pixels changed.", *explain(document)]
        return Answer("\n".join(told), {"output": str(target), "report": document}, ((JPEG, shown),))

    async def refine_folder(self, asked: RefineFolder, progress: OnProgress) -> Answer:
        """Says what refining a folder would do, or does what was said."""
        name = asked.settings(self._steps).model
        plan = await asyncio.to_thread(self._plan, asked, self._models[name])
        if asked.plan is None:
            preview = await asyncio.to_thread(plan.preview)
            masks, photos = _counted(preview["would_write_count"], "mask"), _counted(preview["photos"], "photo")
            return Answer(
                f"Nothing is done yet: {masks} of {photos} would be written to {plan.output}, "
                f"{preview['would_replace_count']} over files that are there; done before: {preview['done_before']}. "
                f"To do it, call again with plan {preview['plan']!r}.",
                preview,
            )
        if asked.plan != plan.name:
            raise InputError(
                f"plan {asked.plan[:20]!r} is not that of these arguments and files: call without plan, and look at "
                "what would be done"
            )
        document = await self._carried_out(plan, name, progress)
        sentences = explain(document)
        if "next" in document:
            sentences.append(f"To go on: {document['next']}.")
        return Answer("\n".join(sentences), {"output": str(plan.output), "summary": document})

    async def explain_report(self, asked: ExplainReport, progress: OnProgress) -> Answer:
        """Says what a report means."""
        if (asked.report is None) == (asked.file is None):
            raise wrong("report", "expected a report, or the file of one, and not both")
        document = asked.report
        if asked.file is not None:
            try:
                document = json.loads(self._folders.content(asked.file, "file", self._limits.upload_bytes))
            except (ValueError, RecursionError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"file {asked.file!r} is no JSON: give one that holds a report") from error
        if isinstance(document, dict) and isinstance(document.get("report"), dict):
            document = document["report"]
        sentences = explain(document if isinstance(document, dict) else {})
        return Answer("\n".join(sentences), {"sentences": sentences})

    def _target(self, output: str | None, replace: bool, *inputs: str) -> Path | None:
        if output is None:
            return None
        target = self._folders.new_file(output, "output", replace=replace)
        if any(target == self._folders.file(name, "input") for name in inputs):
            raise InputError(f"output {output!r} is an input and would be overwritten: choose another name")
        return target

    def _form(self, asked: Common, files: Mapping[str, str]) -> FormData:
        """What a client of the HTTP API would send."""
        most = self._limits.upload_bytes
        parts: list[tuple[str, Any]] = []
        for name, path in files.items():
            content = self._folders.content(path, name, most)
            most -= len(content)
            parts.append((name, UploadFile(io.BytesIO(content), size=len(content), filename="file")))
        fields = asked.model_dump(exclude=set(files) | {"output", "replace"}, exclude_none=True, exclude_unset=True)
        for name, value in fields.items():
            for one in (value or ["none"]) if isinstance(value, list) else [value]:
                parts.append((name, one if isinstance(one, str) else json.dumps(one)))
        return FormData(parts)

    async def _computed(
        self, form: FormData, prepare: Callable[[FormData, Any], tuple[Task, T]]
    ) -> tuple[Task, T, Any]:
        self.service.check_ready()
        with self.service.place():
            return await self.service.refined(form, prepare)

    def _plan(self, asked: RefineFolder, opened: JobModel) -> FolderPlan:
        return FolderPlan.of(
            self._folders.folder(asked.images, "images"),
            self._folders.folder(asked.masks, "masks"),
            self._folders.new_folder(asked.output, "output"),
            opened=opened,
            options=Options(asked.seed, asked.steps, asked.max_shift, asked.strength, asked.trust),
            limits=self._limits,
            pattern=asked.pattern,
            threshold=asked.threshold,
            write=asked.write,
        )

    async def _carried_out(self, plan: FolderPlan, name: str, progress: OnProgress) -> dict[str, Any]:
        """The job's summary, computed by the thread that computes everything."""
        loop = asyncio.get_running_loop()

        def follow(summary: RunSummary) -> None:
            done = summary.total - summary.not_tried
            asyncio.run_coroutine_threadsafe(_reported(progress, done, summary.total), loop)

        def alone(refiner: Any, on_progress: Callable[[Any], None]) -> dict[str, Any]:
            def told(summary: RunSummary) -> None:
                follow(summary)
                if not task.abandoned:
                    on_progress(summary)

            seconds = _JOB_SHARE * self._limits.request_seconds
            engine = LocalEngine(refiner, self._workers)
            return plan.carry_out(engine, seconds, stopped=lambda: task.abandoned, progress=told)

        nothing = Photo(np.zeros((1, 1, 3), np.uint8))
        task = Task(Settings(name), nothing, [], lambda result: result, alone, count=len(plan.job.items))
        document: dict[str, Any] = await self.service.compute(task)
        return document


async def _reported(progress: OnProgress, done: float, total: float) -> None:
    await progress(done, total)


TOOLS: dict[str, tuple[type[BaseModel], Callable[[Toolbox, Any, OnProgress], Awaitable[Answer]]]] = {
    "refine_mask": (RefineMask, Toolbox.refine_mask),
    "refine_label_map": (RefineLabelMap, Toolbox.refine_label_map),
    "refine_folder": (RefineFolder, Toolbox.refine_folder),
    "explain_report": (ExplainReport, Toolbox.explain_report),
}
"""By name: what a tool takes, and what it does."""


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _before_and_after(task: Task, refined: NDArray[np.bool_]) -> bytes:
    return _jpeg(overlay(task.photo.pixels, task.masks[0], refined))


def _changes(photo: Photo, changed: NDArray[np.bool_]) -> bytes:
    """The photo, darker, with the changed pixels in one colour; thin changes stay visible in a smaller picture."""
    factor = max(1, -(-max(changed.shape) // _PICTURE_SIDE))
    height, width = (-(-side // factor) for side in changed.shape)
    picture = np.asarray(Image.fromarray(photo.pixels).resize((width, height), Image.Resampling.BOX)) // 2
    rows, columns = np.nonzero(changed)
    picture[rows // factor, columns // factor] = REFINED_COLOUR
    return _jpeg(picture)


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()
