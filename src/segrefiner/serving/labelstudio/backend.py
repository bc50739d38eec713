"""The routes that Label Studio calls, and what a prediction is made of."""

import asyncio
import hashlib
import io
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray
from starlette.datastructures import FormData, UploadFile

from ..._version import __version__
from ...errors import InputError, MaskError, printable
from ...formats.labelstudio import refined_result
from ...imaging.codecs.decoder_process import KilledError
from ...imaging.files import Json
from ...imaging.json_files import json_text
from ..forms import Kept, mask_task, wrong
from ..openapi import route
from ..problems import BAD_REQUEST, TOO_LARGE, ProblemError, as_problem
from ..responses import JSON
from ..service import Service, out_of_time
from .images import ImageHost
from .tasks import Prompt, Region, decode_regions, photo_address, pixel_box, prompt_of, regions_of

_BATCH_SHARE = 0.9
"""Of a request's seconds: tasks of a batch that are not begun by then are left to another request."""

_LONGEST_REASON = 300
_log = logging.getLogger(__name__)

PREDICT = route("Refine regions of Label Studio's tasks", responses={200: {"description": "Predictions."}}, body=JSON)
PLAIN = route("Label Studio's contract for ML backends", responses={200: {"description": "Done."}})


class Backend:
    """Makes predictions of tasks.

    Args:
        service: What refines, with the first of its models.
        host: Where photos are fetched.

    Attributes:
        version: Of predictions: another model, or another release, makes others.
    """

    def __init__(self, service: Service, host: ImageHost) -> None:
        self._service, self._host = service, host
        self._model = next(iter(service.refiners))
        self._steps = {name: one.steps for name, one in service.refiners.items()}
        self.version = f"segrefiner-{__version__}-{self._model}"

    async def predict(self, body: bytes) -> Json:
        """The answer to a request. Raises `ProblemError` and `InputError`."""
        asked = await asyncio.to_thread(_object, body)
        tasks, context = asked.get("tasks"), _context(asked)
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise wrong("tasks", "expected a list of tasks, as Label Studio sends it")
        most = self._service.limits.masks
        if len(tasks) > most:
            raise ProblemError(TOO_LARGE, f"{len(tasks)} tasks: expected at most {most} in one request")
        config = asked.get("label_config")
        if context is not None:
            if len(tasks) != 1:
                raise wrong("tasks", f"{len(tasks)} tasks with a context: expected one")
            return {"results": [await self._interactive(tasks[0], context, config)]}
        return {"results": await self._batch(tasks, config)}

    async def _interactive(self, task: Json, context: Sequence[Any], config: Any) -> Json:
        """One region refined, by what an annotator has drawn."""
        found = regions_of(task, context=context, own_version=self.version)
        prompt = prompt_of(context)
        drawn = found.source == "drawing"
        if not drawn and not prompt.points and prompt.box is None:
            raise wrong("context", "expected a keypoint, a rectangle, a brush or a polygon")
        (chosen,) = await self._masks(found.regions, None if drawn and len(found.regions) == 1 else prompt)
        return await self._refined(task, [chosen], config, prompt.box)

    async def _batch(self, tasks: Sequence[Json], config: Any) -> list[Json]:
        """A prediction of each task, or why there is none: Label Studio logs that, and asks again another time.

        That holds where no task has a prediction too: of an error's status and body, Label Studio keeps the status.
        """
        end = time.monotonic() + _BATCH_SHARE * self._service.limits.request_seconds
        answers = []
        for task in tasks:
            try:
                if time.monotonic() > end:
                    raise out_of_time()
                answers.append(await self._whole(task, config))
            except (ProblemError, InputError) as error:
                answers.append({"error": as_problem(error).detail})
        return answers

    async def _whole(self, task: Json, config: Any) -> Json:
        found = regions_of(task, context=None, own_version=self.version)
        masks = await self._masks(found.regions, None)
        answer = await self._refined(task, masks, config, None)
        told = [*found.unread, *answer.pop("notes", ())]
        # What cannot be read stays beside what was refined, as it is.
        answer["result"] += [*(region.result for region, rle, _ in masks if not rle), *found.others]
        return answer | ({"notes": told} if told else {})

    async def _masks(self, regions: Sequence[Region], prompt: Prompt | None) -> list[tuple[Region, str, list[str]]]:
        """Regions with their RLE and notes: all, or the one that suits the prompt."""
        limits = self._service.limits
        if len(regions) > limits.masks:
            raise ProblemError(TOO_LARGE, f"{len(regions)} regions: expected at most {limits.masks} in one task")
        stored = [region.instance.mask for region in regions]
        labels = [region.instance.label for region in regions]
        told = None if prompt is None else list(astuple(prompt))
        pixels = sum(one["size"][0] * one["size"][1] for one in stored)
        try:
            found = await self._service.decoded(
                pixels, decode_regions, stored, labels, told, (limits.pixels, limits.mask_pixels)
            )
        except KilledError:
            raise MaskError(
                "the regions take more time or memory to read than their pixels do: draw them again"
            ) from None
        return [(regions[index], rle, notes) for index, rle, notes in found]

    async def _refined(
        self, task: Json, masks: Sequence[tuple[Region, str, list[str]]], config: Any, box: Sequence[float] | None
    ) -> Json:
        """The prediction with these regions refined."""
        readable = [(region, rle) for region, rle, _ in masks if rle]
        notes = [f"{region.instance.name}: {note}" for region, _, said in masks for note in said]
        if not readable:
            raise MaskError(f"none of the task's regions can be read: {notes[0]}")
        by_photo: dict[str, list[int]] = {}
        for index, (region, _) in enumerate(readable):
            by_photo.setdefault(photo_address(task, region.result, config), []).append(index)
        kept: dict[int, Kept] = {}
        for address, indices in by_photo.items():
            content = await asyncio.to_thread(self._host.fetch, address, _task_id(task))
            found = await self._on_photo(content, [readable[index] for index in indices], box)
            kept |= dict(zip(indices, found, strict=True))
        results = []
        for index, (region, _) in enumerate(readable):
            result, said = await asyncio.to_thread(_result, region.result, kept[index])
            results.append(result)
            notes += [f"{region.instance.name}: {note}" for note in said]
        score = float(np.mean([one.report.confidence for one in kept.values()]))
        answer = {"result": results, "score": score, "model_version": self.version}
        return answer | ({"notes": list(dict.fromkeys(notes))} if notes else {})

    async def _on_photo(
        self, content: bytes, regions: Sequence[tuple[Region, str]], box: Sequence[float] | None
    ) -> Sequence[Kept]:
        """Regions of one photo, refined together."""
        parts: list[tuple[str, Any]] = [
            ("image", UploadFile(io.BytesIO(content), size=len(content), filename="photo")),
            ("rle", f"[{', '.join(rle for _, rle in regions)}]"),
        ]
        if box is not None:
            parts.append(("boxes", json.dumps([pixel_box(box, regions[0][0].instance.mask["size"])])))
        limits = self._service.limits
        _, _, kept = await self._service.refined(
            FormData(parts), lambda form, decode: mask_task(form, self._steps, limits, decode)
        )
        return kept


def add_backend(app: FastAPI, service: Service, host: ImageHost) -> None:
    """Adds Label Studio's routes to the server."""
    backend = Backend(service, host)

    @app.post("/predict", **PREDICT)
    async def predict(request: Request) -> Response:
        """Tasks with drafts, annotations and predictions to predictions."""

        async def answer(body: bytes) -> Response:
            try:
                return _json(await backend.predict(body))
            except (ProblemError, InputError) as error:
                # Label Studio shows its users nothing of it.
                why = printable(as_problem(error).detail[:_LONGEST_REASON])
                _log.warning("note: Label Studio's request is not answered: %s", why)
                raise

        return await service.answer_body(request, answer)

    @app.post("/setup", **PLAIN)
    async def setup() -> Response:
        """The version; the address and the token that Label Studio sends are not used."""
        return _json({"model_version": backend.version})

    @app.post("/webhook", **PLAIN)
    async def webhook(request: Request) -> Response:
        """Events change nothing, since nothing is trained; what asks for training is refused."""

        async def answer(body: bytes) -> Response:
            if (await asyncio.to_thread(_object, body)).get("action") == "START_TRAINING":
                raise wrong("action", "nothing is trained here: export the annotations, and see `segrefiner train`")
            return _json({"status": "ok", "result": "nothing is trained by annotations"})

        return await service.answer_body(request, answer)

    @app.get("/versions", **PLAIN)
    async def versions() -> Response:
        """Those that predictions may have."""
        return _json({"versions": [backend.version]})

    @app.get("/health", **PLAIN)
    async def health() -> Response:
        """Whether the server would refine."""
        service.check_ready()
        return _json({"status": "UP", "model_class": "segrefiner", "model_version": backend.version})


def _result(result: Json, kept: Kept) -> tuple[Json, list[str]]:
    """A result with the refined mask, under an id of its own: the editor may show both. And what there is to say."""
    mask: NDArray[np.bool_] = kept.mask
    notes = [one for one in (kept.report.note, *kept.report.warnings) if one]
    new = dict(result)
    if mask.any():
        new, joined = refined_result(result, mask)
        notes += [f"{joined} are joined in one ring: a brush keeps them apart"] if joined else []
    else:
        notes.append("nothing is left of it: it stays as it was")
    named = f"{result.get('id')}:{hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()}"
    new["id"] = hashlib.sha256(named.encode()).hexdigest()[:10]
    return new | {"score": kept.report.confidence, "origin": "prediction"}, notes


def _task_id(task: Json) -> int | None:
    value = task.get("id")
    return value if isinstance(value, int) and value > 0 else None


def _object(body: bytes) -> Json:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError(BAD_REQUEST, "the body is no JSON: send what Label Studio sends") from error
    if not isinstance(value, dict):
        raise ProblemError(BAD_REQUEST, "the body is no object: send what Label Studio sends")
    return value


def _context(asked: Json) -> list[Any] | None:
    """What an annotator has drawn; nothing in a batch."""
    params = asked.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    context = context or asked.get("context")
    results = context.get("result") if isinstance(context, dict) else None
    return results if isinstance(results, list) and results else None


def _json(value: Json) -> Response:
    return Response(json_text(value), media_type=JSON)
