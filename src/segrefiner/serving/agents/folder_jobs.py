"""A folder of masks as an agent may refine it: within the server's bounds, and only as a dry run has shown it."""

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...imaging.codecs.file_checks import check_file
from ...jobs.folders import MaskProcessor, folder_job
from ...jobs.job import Engine, Item, Job, SavedItem
from ...jobs.manifest import settings_hash
from ...jobs.opened import JobModel
from ...jobs.run import STATE_NAME, pending, run
from ...ledger import Ledger, RunSummary
from ...refinement.cost import estimated_cost
from ...refinement.options import Options
from ...refinement.refiner import Refiner
from ..limits import Limits

_SHOWN = 20
"""Names of each kind in an answer."""


@dataclass(frozen=True)
class BoundedProcessor:
    """Refuses items that are larger than one request may be, and leaves the others to `work`."""

    work: MaskProcessor
    limits: Limits

    @property
    def root(self) -> Path:  # noqa: D102 - described by the protocol
        return self.work.root

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return self.work.settings()

    def load(self, item: Item, contents: Sequence[bytes]) -> Any:  # noqa: D102
        for path, content in zip(item.inputs, contents, strict=True):
            size = check_file(io.BytesIO(content), partial(_refused, path))
            if size is not None and size.pixels > self.limits.pixels:
                limit = f"{self.limits.pixels / 1e6:g} megapixels"
                raise InputError(f"{path} has {size.width}x{size.height} pixels, more than the limit of {limit}")
        return self.work.load(item, contents)

    def refine(self, refiner: Refiner, loaded: Any) -> Any:  # noqa: D102
        _, masks, _ = loaded
        steps = self.work.options.steps or refiner.steps
        if estimated_cost(masks.values(), steps, most=self.limits.views) > self.limits.views:
            raise InputError(f"its masks take more than {self.limits.views:g} views of the network, the limit")
        return self.work.refine(refiner, loaded)

    def save(self, item: Item, refined: Any) -> SavedItem:  # noqa: D102
        return self.work.save(item, refined)


@dataclass(frozen=True)
class FolderPlan:
    """What refining a folder would do.

    Attributes:
        job: All of it.
        config: Name of all settings.
        output: Folder of the results.
    """

    job: Job
    config: str
    output: Path

    @classmethod
    def of(
        cls,
        images: Path,
        masks: Path,
        output: Path,
        *,
        opened: JobModel,
        options: Options,
        limits: Limits,
        **more: Any,
    ) -> "FolderPlan":
        """The plan for two folders; `more` as of `folder_job`. Raises `InputError`."""
        job = folder_job(images, masks, output, options=options, **more)
        config = settings_hash({**job.work.settings(), **opened.identity})
        failures = dict(job.failures)
        items = []
        for item in job.items:
            if problem := _too_large(item, limits):
                failures[item.key] = problem
            else:
                items.append(item)
        assert isinstance(job.work, MaskProcessor)
        job = replace(job, items=items, failures=failures, work=BoundedProcessor(job.work, limits))
        return cls(job, config, output)

    @property
    def name(self) -> str:
        """What stands for exactly this plan: inputs as they are now, outputs and settings."""
        inputs = [[item.key, item.payload, [_state(path) for path in item.inputs]] for item in self.job.items]
        text = json.dumps([self.config, str(self.output), inputs])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def preview(self) -> dict[str, Any]:
        """What would be done, as JSON types, without doing anything."""
        todo, ledger = pending(self.job, self.output / STATE_NAME, self.config)
        targets = [name for item in todo for name in item.payload]
        replaced = [name for name in targets if (self.output / name).exists()]
        return {
            "plan": self.name,
            "photos": ledger.total,
            "done_before": ledger.total - len(todo),
            "would_write": targets[:_SHOWN],
            "would_write_count": len(targets),
            "would_replace": replaced[:_SHOWN],
            "would_replace_count": len(replaced),
            **_told(ledger),
        }

    def carry_out(
        self,
        engine: Engine,
        seconds: float,
        *,
        stopped: Callable[[], bool],
        progress: Callable[[RunSummary], None],
    ) -> dict[str, Any]:
        """Does it for about so many seconds and gives the job's summary; the same call again goes on."""
        end = time.monotonic() + seconds
        ledger = run(
            self.job,
            engine,
            self.output / STATE_NAME,
            config=self.config,
            should_stop=lambda: stopped() or time.monotonic() > end,
            progress=progress,
        )
        document = ledger.document() | _told(ledger)
        return document | ({"next": "call again with the same plan to go on"} if ledger.stopped else {})


def _told(ledger: Ledger) -> dict[str, Any]:
    """The names in a ledger, no more of them than somebody reads."""
    return {
        "failures": [{"name": entry.name, "reason": entry.reason} for entry in ledger.failures[:_SHOWN]],
        "left_out_reasons": ledger.reasons,
        "left_out_names": [{"name": entry.name, "reason": entry.reason} for entry in ledger.omissions[:_SHOWN]],
        "remarks": list(ledger.remarks[:_SHOWN]),
    }


def _refused(path: Path, problem: str) -> InputError:
    return InputError(f"{path} {problem}; save it again as PNG")


def _state(path: Path) -> list[Any]:
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _too_large(item: Item, limits: Limits) -> str:
    for path in item.inputs:
        if path.stat().st_size > limits.upload_bytes:
            return f"{path} is larger than the limit of {limits.upload_bytes / 1e6:g} MB"
    if len(item.inputs) - 1 > limits.masks:
        return f"it has {len(item.inputs) - 1} masks: expected at most {limits.masks}"
    return ""
