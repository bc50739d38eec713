"""What happens on the page: from what is given to what is shown."""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from numpy.typing import NDArray

from .app_inputs import (
    Mask,
    Photo,
    box_around,
    mask_in_box,
    painted_mask,
    read_objects,
    read_photo,
    typed_box,
)
from .app_layout import FROM_BOX, FROM_FILE, number_table
from .app_pictures import (
    animation,
    coco_document,
    confidence_picture,
    numbers,
    shown_photo,
    slider_pair,
    way_frames,
)
from .app_work import Meter, Options, Watched, Work, refine_watched
from .cutout import cutout
from .errors import ImageError, MaskError, SegRefinerError
from .options import check_options
from .output import png_bytes
from .overlay import overlay
from .server_errors import ProblemError

_CANVAS_SIDE = 1000
_TELL_SECONDS = 0.1

_log = logging.getLogger(__name__)

Run = Callable[[str, Photo, Sequence[Mask], Work], Awaitable[list[Watched]]]
"""Does work with the refiner of this name, for a photo and masks."""

Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])


@dataclass(frozen=True)
class Shown:
    """What a visitor looks at, kept in memory until they leave or a while has passed.

    Attributes:
        name: Of the photo's file, without its ending.
        photo: `(H, W, 3)` uint8, RGB.
        coarse: `(H, W)` bool by the objects' names.
        watched: Their refinements, in the same order.
        soft: Whether the cut-out's edge is soft.
    """

    name: str
    photo: Photo
    coarse: dict[str, Mask]
    watched: list[Watched]
    soft: bool

    def of(self, chosen: str | None) -> tuple[str, Mask, Watched]:
        """The chosen object, or the first."""
        names = list(self.coarse)
        index = names.index(chosen) if chosen in names else 0
        return names[index], self.coarse[names[index]], self.watched[index]


def _whole(number: Any) -> Any:
    """A whole number as one, for the page's fields give floats; anything else as it is."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def told_in_a_sentence(handler: Handler) -> Handler:
    """Makes a handler's errors what the visitor is told; of the server's own faults only that there was one."""

    @wraps(handler)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return await handler(*args, **kwargs)
        except (SegRefinerError, ProblemError) as error:
            # Gradio shows messages as HTML, and they repeat what a visitor called a file.
            raise gr.Error(escape(str(error)), duration=None, title="Not yet", print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:
            _log.error("the page failed", exc_info=error)
            message = "Something failed inside the server, whose log says more."
            raise gr.Error(message, duration=None, title="Sorry", print_exception=False) from error

    return wrapped  # type: ignore[return-value]


class Events:
    """The page's handlers.

    Args:
        run: Does the work.
        max_pixels: Of a photo.
        folder: Where files for visitors are written.
    """

    def __init__(self, run: Run, max_pixels: int, folder: Path) -> None:
        self._run, self._max_pixels, self._folder = run, max_pixels, folder

    @told_in_a_sentence
    async def to_canvas(self, path: str | None, way: str) -> Any:
        """The photo to paint on, at a size that is good to paint on; nothing where masks come from files."""
        if path is None or way == FROM_FILE:
            return None
        photo = await asyncio.to_thread(read_photo, path, self._max_pixels)
        return {"background": shown_photo(photo, _CANVAS_SIDE), "layers": [], "composite": None}

    @told_in_a_sentence
    async def refine(
        self,
        path: str | None,
        way: str,
        masks: list[str] | None,
        canvas: dict[str, Any] | None,
        left: float | None,
        top: float | None,
        right: float | None,
        bottom: float | None,
        steps: float,
        max_shift: float | None,
        strength: float,
        seed: float | None,
        soft: bool,
        model: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio is asked for one
    ) -> Shown:
        """Refines what is given, telling how far it is."""
        if path is None:
            raise ImageError("there is no photo: drop one, or pick a sample")
        given_seed, given_steps, max_shift, strength = check_options(_whole(seed), _whole(steps), max_shift, strength)
        progress(0, desc="reading the photo")
        box = (left, top, right, bottom)
        photo, coarse = await asyncio.to_thread(self._given, path, way, masks or [], canvas or {}, box)
        options = Options(given_steps, given_seed, max_shift, strength)
        meter = Meter()
        work = asyncio.ensure_future(
            self._run(
                model,
                photo,
                list(coarse.values()),
                lambda refiner, on_progress: refine_watched(
                    refiner, photo, list(coarse.values()), options, on_progress, meter
                ),
            )
        )
        try:
            while not work.done():
                share, what = meter.read()
                progress(share, desc=what)
                await asyncio.wait((work,), timeout=_TELL_SECONDS)
            return Shown(Path(path).stem, photo, coarse, work.result(), soft)
        finally:
            work.cancel()

    @told_in_a_sentence
    async def compare(self, shown: Shown | None, chosen: str | None, look: str, part: str) -> Any:
        """The pictures of the slider."""
        return None if shown is None else await asyncio.to_thread(self._compared, shown, chosen, look, part)

    @told_in_a_sentence
    async def describe(self, shown: Shown | None, chosen: str | None, look: str, part: str) -> tuple[Any, ...]:
        """All of the chosen object but its files, in the place of what stood there before."""
        if shown is None:
            return (gr.skip(),) * 12
        name = shown.of(chosen)[0]
        parts = await asyncio.to_thread(self._described, shown, name)
        pair = await asyncio.to_thread(self._compared, shown, name, look, part)
        choice = gr.Dropdown(list(shown.coarse), value=name, visible=len(shown.coarse) > 1)
        return (
            gr.HTML(visible=False),
            gr.Column(visible=True),
            choice,
            pair,
            *parts,
            *[gr.DownloadButton(interactive=False)] * 4,
        )

    @told_in_a_sentence
    async def write(self, shown: Shown | None, chosen: str | None) -> tuple[Any, ...]:
        """The files of the chosen object."""
        if shown is None:
            return (gr.skip(),) * 4
        paths = await asyncio.to_thread(self._written, shown, chosen)
        return tuple(gr.DownloadButton(value=path, interactive=True) for path in paths)

    def _given(
        self, path: str, way: str, masks: list[str], canvas: dict[str, Any], box: tuple[float | None, ...]
    ) -> tuple[Photo, dict[str, Mask]]:
        photo = read_photo(path, self._max_pixels)
        height, width = photo.shape[:2]
        if way == FROM_FILE:
            if not masks:
                raise MaskError("there is no mask: drop its file, or choose to paint it or to give a box")
            names, given = read_objects(masks, photo, self._max_pixels)
            return photo, dict(zip(names, given, strict=True))
        painted = painted_mask(canvas.get("layers") or [], height, width)
        if way == FROM_BOX:
            return photo, {"object": mask_in_box(photo, typed_box(box, height, width) or box_around(painted))}
        if not painted.any():
            raise MaskError("nothing is painted: paint roughly over the object")
        return photo, {"object": painted}

    def _compared(self, shown: Shown, chosen: str | None, look: str, part: str) -> tuple[Photo, Photo]:
        _, coarse, watched = shown.of(chosen)
        return slider_pair(shown.photo, coarse, watched.result.probability, look=look, part=part)

    def _described(self, shown: Shown, chosen: str) -> tuple[Any, ...]:
        name, coarse, watched = shown.of(chosen)
        result = watched.result
        frames = way_frames(shown.photo, coarse, result.mask, watched.states, watched.seen, watched.view)
        return (
            number_table(numbers(result.report)),
            overlay(shown.photo, coarse, result.mask),
            confidence_picture(shown.photo, result.probability),
            self._save(f"{shown.name}_{name}_way.webp", animation(frames)),
        )

    def _written(self, shown: Shown, chosen: str | None) -> tuple[str, ...]:
        name, _, watched = shown.of(chosen)
        result = watched.result
        stem = shown.name if len(shown.coarse) == 1 else f"{shown.name}_{name}"
        refined = {title: one.result.mask for title, one in zip(shown.coarse, shown.watched, strict=True)}
        alpha: NDArray[Any] = result.probability if shown.soft else result.mask.astype(np.float32)
        return (
            self._save(f"{stem}_mask.png", png_bytes(result.mask)),
            self._save(f"{stem}_soft.png", png_bytes(result.probability, bits=16)),
            self._save(f"{stem}_cutout.png", png_bytes(cutout(shown.photo, alpha))),
            self._save(f"{shown.name}_coco.json", json.dumps(coco_document(shown.name, refined)).encode()),
        )

    def _save(self, name: str, content: bytes) -> str:
        """Writes a file whose name is what the visitor's download is called."""
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        return save_bytes_to_cache(content, plain[-100:], os.fspath(self._folder))
